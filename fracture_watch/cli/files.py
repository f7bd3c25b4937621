"""``scan``, ``predict``, ``render``: files that are named on the command line."""

import itertools
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fracture_watch.cli.common import (
    DEFAULT_CONFIG,
    Config,
    Json,
    complain,
    say,
    say_json,
    settings_from,
    stop_on_signals,
)

if TYPE_CHECKING:
    from fracture_watch.outcomes import Outcome
    from fracture_watch.records import Prediction, Prepared, SourceFile
    from fracture_watch.service import Done

Paths = Annotated[list[Path] | None, typer.Argument(help="Files or folders.", exists=True)]
Files = Annotated[list[Path], typer.Argument(help="DICOM, PNG, JPEG, TIFF, WebP or BMP files.")]


def scan(
    paths: Paths = None,
    reclassify: Annotated[
        bool,
        typer.Option("--reclassify", help="Also what only other models have classified, wherever it is filed now."),
    ] = False,
    retry: Annotated[
        bool,
        typer.Option("--retry", help="Also what was rejected or failed before, as after a change of scope or limits."),
    ] = False,
    config: Config = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Classify folder trees where they are; results are recorded, files are never moved.

    What is already recorded is skipped, so an interrupted scan goes on where it was.
    """
    from fracture_watch.errors import WrongUse

    if not paths and not reclassify:
        raise WrongUse("name at least one PATH to scan, or --reclassify for what other models have classified")
    settings = settings_from(config)
    from fracture_watch import assembly
    from fracture_watch.intake.tree import scan as walk
    from fracture_watch.pipeline import batches
    from fracture_watch.service import in_place

    roots = [Path(os.path.normpath(path.absolute())) for path in paths or ()]
    counts: Counter[str] = Counter()
    began = time.monotonic()
    with stop_on_signals() as stop, assembly.scanner(settings, roots, retry=retry) as scanner:
        sources = itertools.chain.from_iterable(walk(assembly.tree(settings, root)) for root in roots)
        if reclassify:
            sources = itertools.chain(sources, assembly.outdated(settings, scanner.store))
        wanted = itertools.takewhile(lambda _: not stop.is_set(), sources)
        done = scanner.service.process(batches(wanted, settings.model.batch_size), in_place)
        _tell(_with_progress(done, counts), counts, as_json)
    if stop.is_set():
        complain("interrupted: what is recorded stays, and the same command goes on with the rest")
        _summary(counts, time.monotonic() - began, as_json)
        raise typer.Exit(1)
    _finish(counts, time.monotonic() - began, as_json)


def _tell(batches: "Iterable[Done]", counts: Counter[str], as_json: bool) -> None:
    """A line for each file that is recorded."""
    from fracture_watch.delivery.exports import file_record, sentence

    began_batch = time.monotonic()
    for done in batches:
        began_batch, since = time.monotonic(), began_batch
        share = (began_batch - since) * 1000 / len(done.batch)
        counts["skipped"] += len(done.batch) - len(done.recorded)
        for item in done.recorded:
            counts[str(item.outcome.status)] += 1
            if as_json:
                say_json(file_record(item.source.name, item.outcome, share))
            else:
                say(sentence(item.source.name, item.outcome))


def predict(
    files: Files,
    heatmap: Annotated[Path | None, typer.Option(help="Write the explaining picture of one FILE as PNG.")] = None,
    config: Config = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Classify files ad hoc; nothing is recorded."""
    from fracture_watch.errors import WrongUse

    if heatmap and len(files) != 1:
        raise WrongUse("--heatmap needs exactly one FILE")
    settings = settings_from(config)
    from fracture_watch import assembly
    from fracture_watch.delivery.exports import file_record, sentence
    from fracture_watch.model.heatmap import Illustrator
    from fracture_watch.pipeline import batches, no_picture

    counts: Counter[str] = Counter()
    began = time.monotonic()
    with assembly.runtime(settings, workers=1 if len(files) == 1 else None) as running:
        illustrator = Illustrator(running.classifier.card.preprocessor)

        pictures: list[bytes | None] = []

        def keep(prepared: "Prepared", prediction: "Prediction") -> str | None:
            pictures.append(illustrator.png(prepared, prediction))
            return None

        for batch in batches((_source(path) for path in files), settings.model.batch_size):
            started = time.monotonic()
            outcomes: list[Outcome] = running.pipeline.run(batch, draw=keep if heatmap else no_picture)
            share = (time.monotonic() - started) * 1000 / len(batch)
            for source, outcome in zip(batch, outcomes, strict=True):
                counts[str(outcome.status)] += 1
                if as_json:
                    say_json(file_record(source.name, outcome, share))
                else:
                    say(sentence(source.name, outcome))
    if heatmap:
        _write_picture(heatmap, pictures)
    _finish(counts, time.monotonic() - began, as_json)


def render(
    file: Annotated[Path, typer.Argument(help="A DICOM, PNG, JPEG, TIFF, WebP or BMP file.")],
    output: Annotated[Path, typer.Argument(metavar="OUT.png")],
    frame: Annotated[int, typer.Option(help="Counted from 0.")] = 0,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Write the full-size 8-bit picture that a viewer would show: the exact output of the imaging stage."""
    settings = settings_from(config)
    from PIL import Image

    from fracture_watch import assembly
    from fracture_watch.errors import WrongUse
    from fracture_watch.imaging import read

    radiograph = read(file, frame, assembly.limits(settings))
    try:
        Image.fromarray(radiograph.pixels).save(output, "PNG")
    except OSError as error:
        raise WrongUse(f"{output} cannot be written: {error.strerror or error}") from error
    for note in radiograph.notes:
        complain(f"note: {note}")


def _write_picture(path: Path, pictures: list[bytes | None]) -> None:
    from fracture_watch.errors import WrongUse

    if not pictures or pictures[0] is None:
        complain(f"no prediction, so no picture: {path} was not written")
        return
    try:
        path.write_bytes(pictures[0])
    except OSError as error:
        raise WrongUse(f"{path} cannot be written: {error.strerror}") from error


def _source(path: Path) -> "SourceFile":
    """A file as it stands; one that is not there gets its reason from the decoder."""
    from fracture_watch.records import SourceFile
    from fracture_watch.times import now

    return SourceFile(path, 0, 0, 0, now())


def _with_progress(batches: "Iterable[Done]", counts: Counter[str]) -> "Iterator[Done]":
    """A progress bar on standard error where that is a terminal; the total is unknown, as the tree is read lazily."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("scanning", total=None)
        for done in batches:
            yield done
            summary = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()) if count)
            progress.update(task, advance=len(done.batch), description=summary or "scanning")


def _finish(counts: Counter[str], seconds: float, as_json: bool) -> None:
    _summary(counts, seconds, as_json)
    if counts["failed"]:
        raise typer.Exit(1)


def _summary(counts: Counter[str], seconds: float, as_json: bool) -> None:
    names = ("classified", "duplicate", "rejected", "failed", "skipped")
    if as_json:
        say_json({"summary": {name: counts[name] for name in names} | {"seconds": round(seconds, 3)}})
    else:
        done = ", ".join(f"{counts[name]} {name}" for name in names if counts[name]) or "no files"
        say(f"{done} in {seconds:.1f} s. Research use only. Not a medical device.")
