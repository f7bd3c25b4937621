"""What commands share: options, the log, and where text goes."""

import json
import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fracture_watch.config import LoggingSettings, Settings
    from fracture_watch.results.database import Database

Config = Annotated[
    Path, typer.Option("--config", help="The settings; relative paths in it are relative to its folder.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
DEFAULT_CONFIG = Path("config.yaml")


def settings_from(config: Path) -> "Settings":
    """Load the settings and start the log."""
    from fracture_watch.config import load_settings

    settings = load_settings(config)
    _start_log(settings.logging)
    return settings


def open_results(settings: "Settings") -> "Database":
    """The database, for a command that only makes sense where there is one."""
    from fracture_watch import assembly
    from fracture_watch.errors import WrongUse

    if not settings.database.path.exists():
        raise WrongUse(f"{settings.database.path}: there is no database yet; `fracture-watch run` or `scan` makes it")
    return assembly.open_database(settings)


def say(text: str) -> None:
    """A line for a person, on standard output."""
    typer.echo(text)


def say_json(value: Any) -> None:
    """A JSON value on a line of its own."""
    typer.echo(json.dumps(value, ensure_ascii=False))


def track(items: Iterable[Any], description: str) -> Iterable[Any]:
    """A progress bar on standard error where that is a terminal."""
    from rich.console import Console
    from rich.progress import track as tracked

    console = Console(stderr=True)
    return tracked(items, description, console=console, transient=True, disable=not console.is_terminal)


class _TextLines(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's own name
        from fracture_watch.delivery.exports import printable

        record.message = printable(record.message)  # a file's name cannot forge a line
        return super().formatMessage(record)


class _JsonLines(logging.Formatter):
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
        return json.dumps(entry, ensure_ascii=False)


def _start_log(wanted: "LoggingSettings") -> None:
    handler = logging.StreamHandler(sys.stderr)
    text = _TextLines("%(asctime)s %(levelname)-7s %(message)s")
    handler.setFormatter(_JsonLines() if wanted.format == "json" else text)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("fracture_watch").setLevel(wanted.level.upper())
