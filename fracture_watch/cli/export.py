"""``export``: results that are recorded, as DICOM objects."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fracture_watch.cli.common import DEFAULT_CONFIG, Config, Json, complain, open_results, say, say_json, settings_from

if TYPE_CHECKING:
    from fracture_watch.exporting import Exporter
    from fracture_watch.records import Kind
    from fracture_watch.results.database import Database


def export(
    kind: Annotated[
        Literal["sr", "sc"], typer.Argument(metavar="KIND", help="sr: the report; sc: the picture with its heat map.")
    ],
    ids: Annotated[list[int], typer.Argument(metavar="ID...", help="Results, as `results` numbers them.")],
    output: Annotated[Path, typer.Option(help="The folder to write to.", file_okay=False)] = Path(),
    config: Config = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Write results as DICOM objects, one file each: as they were built, or built anew from the filed image."""
    settings = settings_from(config)
    from fracture_watch import assembly
    from fracture_watch.errors import FractureWatchError, WrongUse
    from fracture_watch.records import Kind

    failed = 0
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WrongUse(f"--output {output}: cannot be made: {error.strerror}") from error
    with closing(open_results(settings)) as database, assembly.exporting(settings, Kind(kind)) as exporter:
        for file_id in dict.fromkeys(ids):
            try:
                path, why = _written(database, exporter, Kind(kind), file_id, output), None
            except FractureWatchError as error:
                path, why, failed = None, error.detail, failed + 1
            if as_json:
                say_json({"id": file_id, "file": path and str(path), "detail": why})
            elif path:
                say(str(path))
            else:
                complain(f"result {file_id}: {why}")
    if failed:
        raise typer.Exit(1)


def _written(database: "Database", exporter: "Exporter", kind: "Kind", file_id: int, output: Path) -> Path:
    from fracture_watch.disk import write_whole
    from fracture_watch.errors import WrongUse
    from fracture_watch.results.queries import one

    row = one(database, file_id)
    if row is None:
        raise WrongUse("there is no such result; `fracture-watch results` lists them")
    content, path = exporter.object(row, kind), output / f"{file_id}.{kind}.dcm"
    try:
        write_whole(path, content)
    except OSError as error:
        raise WrongUse(f"{path} cannot be written: {error.strerror}") from error
    return path
