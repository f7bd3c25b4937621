"""``results``: questions to the database."""

import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from fracture_watch.cli.common import DEFAULT_CONFIG, MOST, Config, Json, open_results, settings_from
from fracture_watch.records import Label, Status


class Format(StrEnum):
    """How rows are written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    JSONL = "jsonl"


_IN_TABLE = {
    "id": "id",
    "completed_at": "completed",
    "status": "status",
    "prediction": "prediction",
    "probability": "probability",
    "patient_id": "patient",
    "modality": "modality",
    "body_part": "body part",
    "source_path": "file",
    "code": "code",
}


def results(  # noqa: PLR0913, PLR0917  one parameter an option
    prediction: Annotated[Label | None, typer.Option()] = None,
    since: Annotated[str | None, typer.Option(help="Completed at or after this ISO 8601 time (UTC).")] = None,
    until: Annotated[str | None, typer.Option(help="Completed before this ISO 8601 time (UTC).")] = None,
    study: Annotated[str | None, typer.Option(help="StudyInstanceUID.")] = None,
    patient: Annotated[str | None, typer.Option(help="PatientID.")] = None,
    min_probability: Annotated[float | None, typer.Option(min=0, max=1)] = None,
    status: Annotated[Status | None, typer.Option()] = None,
    limit: Annotated[int | None, typer.Option(min=1, max=MOST, help="Newest first; without it all.")] = None,
    form: Annotated[Format, typer.Option("--format")] = Format.TABLE,
    output: Annotated[Path | None, typer.Option(help="Write here instead of to standard output.")] = None,
    config: Config = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Query what was recorded, newest first."""
    settings = settings_from(config)
    from fracture_watch import assembly
    from fracture_watch.results.queries import Filter
    from fracture_watch.results.queries import results as query

    patient = assembly.privacy(settings).patient(patient)
    wanted = Filter(
        prediction, _utc("since", since), _utc("until", until), study, patient, min_probability, status, limit
    )
    form = Format.JSON if as_json else form
    with closing(open_results(settings)) as database, _writable(output) as out:
        _write(query(database, wanted), form, out)


@contextmanager
def _writable(output: Path | None) -> Iterator[IO[str]]:
    """Standard output, or a file that is there once it is whole; a pipe or device is written to as it stands."""
    from fracture_watch.errors import WrongUse

    if output is None:
        yield sys.stdout
        return
    path = output.resolve()
    part = path.with_name(f".{path.name}.part")
    try:
        there = path.exists()
        part = path if there and not path.is_file() else part
        with part.open("w", encoding="utf-8", newline="") as file:
            if there and part != path:
                shutil.copymode(path, part)  # who may read it stays as it was
            yield file
        if part != path:
            part.replace(path)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise WrongUse(f"{output} cannot be written: {error.strerror}; name another file, or make room") from error
    finally:
        if part != path:
            with suppress(OSError):  # it was said above what is wrong
                part.unlink(missing_ok=True)


def _utc(option: str, text: str | None) -> str | None:
    """An ISO 8601 date or time as the database writes it; without an offset it is taken as UTC."""
    from fracture_watch.errors import WrongUse
    from fracture_watch.times import utc_of

    if text is None:
        return None
    try:
        return utc_of(text)
    except ValueError as error:
        raise WrongUse(
            f"--{option} {text}: is no ISO 8601 date or time, such as 2026-01-31 or 2026-01-31T08:00"
        ) from error


def _write(rows: Iterable[dict[str, Any]], form: Format, out: IO[str]) -> None:
    from fracture_watch.delivery.exports import write_csv, write_json, write_jsonl
    from fracture_watch.results.queries import COLUMNS

    if form is Format.CSV:
        write_csv(rows, COLUMNS, out)
    elif form is Format.JSON:
        write_json(rows, out)
    elif form is Format.JSONL:
        write_jsonl(rows, out)
    else:
        _write_table(rows, out)


def _write_table(rows: Iterable[dict[str, Any]], out: IO[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from fracture_watch.records import DISCLAIMER
    from fracture_watch.texts import printable

    table = Table(*_IN_TABLE.values(), caption=DISCLAIMER)
    for row in rows:
        cells = {name: "" if row[name] is None else printable(str(row[name])) for name in _IN_TABLE}
        cells["completed_at"] = cells["completed_at"][:19]
        if row["probability"] is not None:
            cells["probability"] = f"{row['probability']:.3f}"
        table.add_row(*map(Text, cells.values()))
    Console(file=out, width=None if out.isatty() else 200).print(table)
