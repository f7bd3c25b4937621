"""``doctor``: whether this machine can do the work, and why not."""

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from fracture_watch.cli.checks import Check, show, some, tried, writable
from fracture_watch.cli.common import DEFAULT_CONFIG, Config, Json, say_json
from fracture_watch.cli.partners import partners

if TYPE_CHECKING:
    from fracture_watch.config import Settings

_PATIENCE = 5.0  # seconds


def doctor(config: Config = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """Look at codecs, model, database, folders, disk and receivers; nothing is started and nothing is changed."""
    from fracture_watch.config import load_settings

    settings = load_settings(config)
    checks = [
        check
        for look in (
            _codecs,
            _model,
            _database,
            _folders,
            _daemon,
            _workers,
            _engine,
            partners,
        )
        for check in look(settings)
    ]
    if as_json:
        say_json({"checks": [asdict(check) for check in checks]})
    else:
        show(checks)
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


def _codecs(settings: "Settings") -> Iterator[Check]:
    from fracture_watch.imaging.probes import probe

    for found in probe():
        detail = found.decoder if found.problem is None else f"{found.decoder}: {found.problem}"
        yield Check("codec", found.syntax, found.problem is None, detail)


def _model(settings: "Settings") -> Iterator[Check]:
    def loaded() -> str:
        import torch

        from fracture_watch import assembly, golden

        classifier = assembly.load_model(settings)
        known = golden.require(classifier)
        card = classifier.card
        facts = f"{card.name} {card.version} ({card.facts.id}), threshold {card.threshold.value}"
        images = "golden images agree" if known else "its card has no golden images to compare with"
        return f"{facts}; {images}; torch {torch.__version__} with {torch.get_num_threads()} threads"

    yield tried("model", str(settings.model.weights), loaded)


def _database(settings: "Settings") -> Iterator[Check]:
    from fracture_watch import assembly
    from fracture_watch.results.database import look_at

    def looked_at() -> str:
        path = assembly.database_path(settings)
        assembly.require_known(path)
        return look_at(settings.database.url) if path is None or path.exists() else writable(path)

    yield tried("database", settings.database.shown, looked_at)


def _folders(settings: "Settings") -> Iterator[Check]:
    from fracture_watch import assembly

    inbox, filing = settings.inbox, settings.filing

    def watched() -> str:
        why = assembly.polling_reason(settings)
        if why:
            return f"{writable(inbox.path)}; listed every second, because {why}"
        return f"{writable(inbox.path)}; watched by events, listed every {inbox.rescan_seconds:g} s"

    yield tried("folder", "inbox.path", watched)
    for key in ("processed_dir", "quarantine_dir", "artefacts_dir"):
        path: Path = getattr(filing, key)
        yield tried("folder", f"filing.{key}", partial(writable, path))

    def room() -> str:
        assembly.filing(settings).require_room()
        return f"at least {filing.min_free_mb} MiB free on every disk that is written to"

    yield tried("disk", "filing.min_free_mb", room)


def _daemon(settings: "Settings") -> Iterator[Check]:
    from fracture_watch import assembly
    from fracture_watch.intake.claim import holder

    watcher = holder(assembly.inbox_lock(settings))
    yield Check("daemon", str(settings.inbox.path), True, f"watched by {watcher}" if watcher else "no watcher runs now")


def _workers(settings: "Settings") -> Iterator[Check]:
    import torch

    from fracture_watch import assembly

    cores, imaging = assembly.cores(), settings.imaging
    chosen = "as imaging.workers says" if imaging.workers else "one a core; imaging.workers changes that"
    yield Check(
        "workers",
        "imaging.workers",
        True,
        f"{some(imaging.workers or cores, 'decoding process', 'es')} on {some(cores, 'core')} ({chosen}), "
        f"{imaging.memory_mb} MiB and {imaging.timeout_seconds:g} s a file; run and serve start {assembly.ADHOC} more "
        "with the first file that somebody waits for, at /predict or on a page; classification takes "
        f"{some(torch.get_num_threads(), 'thread')} beside them and sleeps while it waits, so that both together use "
        "the cores and neither blocks the other",
    )


def _engine(settings: "Settings") -> Iterator[Check]:
    """Where ``scan`` computes; a cluster's workers are asked what a scan would ask them."""
    from fracture_watch import assembly

    def connected() -> str:
        with assembly.dask_engine(settings, assembly.card_in_force(settings), (), patience=_PATIENCE) as engine:
            return f"{engine.describe()}; every worker has the same versions and weights"

    if settings.engine.kind == "local":
        yield Check("engine", "engine.kind", True, "local: scan computes in its own process")
    else:
        yield tried("engine", str(settings.engine.address), connected)
