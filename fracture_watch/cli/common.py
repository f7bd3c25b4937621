"""What commands share: options, the log, and where text goes."""

import logging
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import format_tb
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fracture_watch.texts import json_text

if TYPE_CHECKING:
    from fracture_watch.config import LoggingSettings, Settings
    from fracture_watch.results.database import Database

Config = Annotated[
    Path, typer.Option("--config", help="The settings; relative paths in it are relative to its folder.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
DEFAULT_CONFIG = Path("config.yaml")
MOST = 2**63 - 1  # databases count no further


def settings_from(config: Path) -> "Settings":
    """Load the settings and start the log."""
    from fracture_watch.config import load_settings

    settings = load_settings(config)
    _start_log(settings.logging, quoting=settings.privacy.identifiers == "keep")
    return settings


def open_results(settings: "Settings") -> "Database":
    """The database, for a command that only makes sense where there is one."""
    from fracture_watch import assembly
    from fracture_watch.errors import WrongUse

    if settings.database.path and not settings.database.path.exists():
        raise WrongUse(f"{settings.database.path}: there is no database yet; `fracture-watch run` or `scan` makes it")
    return assembly.open_database(settings)


def say(text: str) -> None:
    """A line for a person, on standard output."""
    typer.echo(text)


def complain(text: str) -> None:
    """For a person, on standard error. What it quotes of a file reaches no terminal as it is, and begins no line."""
    from fracture_watch.texts import printable

    sys.stderr.write("\n  ".join(map(printable, text.split("\n"))) + "\n")


def say_json(value: Any) -> None:
    """A JSON value on a line of its own."""
    typer.echo(json_text(value))


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM ask to stop; a second one stops at once, wherever the program is."""
    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(_number: int, _frame: object) -> None:
        stop.set()
        restore()
        complain("stopping when what is in hand is recorded; once more, and it is left at once")

    for number in numbers:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        restore()


def track(items: Iterable[Any], description: str) -> Iterable[Any]:
    """A progress bar on standard error where that is a terminal."""
    from rich.console import Console
    from rich.progress import track as tracked

    console = Console(stderr=True)
    return tracked(items, description, console=console, transient=True, disable=not console.is_terminal)


class _Lines(logging.Formatter):
    """``quoting``: a traceback has the texts of its errors, which may quote the file that caused them."""

    quoting = True

    def formatException(self, ei: Any) -> str:  # noqa: N802  logging's own name
        if self.quoting:
            return super().formatException(ei)
        kind, _, traceback = ei
        frames = "".join(format_tb(traceback))
        return f"{frames}{kind.__name__ if kind else 'error'} (its text is withheld: privacy.identifiers)"


class _TextLines(_Lines):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's own name
        from fracture_watch.texts import printable

        record.message = printable(record.message)  # a file's name cannot forge a line
        return super().formatMessage(record)


class _JsonLines(_Lines):
    def format(self, record: logging.LogRecord) -> str:
        from datetime import UTC, datetime

        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= getattr(record, "facts", {})
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json_text(entry)


def _start_log(wanted: "LoggingSettings", *, quoting: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    lines = _JsonLines() if wanted.format == "json" else _TextLines("%(asctime)s %(levelname)-7s %(message)s")
    lines.quoting = quoting
    handler.setFormatter(lines)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("fracture_watch").setLevel(wanted.level.upper())
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # what it would log is a detail or a note, and quotes files
