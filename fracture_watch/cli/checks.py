"""What ``doctor`` finds: a check of one thing, how it is made and how it is shown."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fracture_watch.cli.common import say


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: whether it is well, and what is to be said of it."""

    part: str
    name: str
    ok: bool
    detail: str


def tried(part: str, name: str, look: Callable[[], str]) -> Check:
    """What ``look`` says; what stops it is the finding."""
    from fracture_watch.errors import FractureWatchError

    try:
        return Check(part, name, True, look())
    except FractureWatchError as error:
        return Check(part, name, False, error.detail)
    except OSError as error:
        return Check(part, name, False, f"{error.filename}: {error.strerror}")


def writable(folder: Path) -> str:
    """Where it is and how much room it has; a folder that is not there yet is made at the first start."""
    place = folder
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(13, "is no folder that can be written to; change its owner or the setting", str(place))
    free = shutil.disk_usage(place).free / 1e9
    return f"{folder}{'' if place == folder else ' can be made'}, {free:,.1f} GB free"


def some(count: int, what: str, plural: str = "s") -> str:
    """A number of things, in words."""
    return f"{count} {what}{'' if count == 1 else plural}"


def show(checks: list[Check]) -> None:
    """A table for a person."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from fracture_watch.texts import printable

    table = Table("", "part", "what", "finding", box=None)
    for check in checks:
        mark = Text("ok", "green") if check.ok else Text("FAIL", "bold red")
        table.add_row(mark, check.part, Text(check.name), Text(printable(check.detail)))
    Console(width=None if Console().is_terminal else 160).print(table)
    broken = sum(not check.ok for check in checks)
    say("Everything is well." if not broken else f"{broken} of {len(checks)} checks found something.")
