"""The only module that names concrete classes: Settings -> running parts."""

import ctypes
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fracture_watch.config import Settings
from fracture_watch.errors import InvalidSettings
from fracture_watch.imaging.limits import Limits, Scope
from fracture_watch.imaging.sniff import HEAD, may_become, sniff
from fracture_watch.intake.claim import claimed as claimed_by
from fracture_watch.intake.completeness import Completeness, completeness
from fracture_watch.intake.filing import Filing
from fracture_watch.intake.folder import Folder, Tree
from fracture_watch.intake.mounts import network_type
from fracture_watch.intake.settling import Settling
from fracture_watch.model import load_classifier
from fracture_watch.pipeline import Pipeline
from fracture_watch.records import Format
from fracture_watch.results.database import Database
from fracture_watch.stages import Stages

if TYPE_CHECKING:
    from flask import Flask

    from fracture_watch.daemon import Daemon, DaemonStatus
    from fracture_watch.delivery.metrics import Metrics
    from fracture_watch.model.classifier import Classifier
    from fracture_watch.records import SourceFile
    from fracture_watch.service import Service

log = logging.getLogger(__name__)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


@dataclass(frozen=True, slots=True)
class Runtime:
    """A loaded model and its decoding workers. ``adhoc`` has one of its own, so that it never waits for a backlog.

    ``stages`` times ``pipeline`` and what is done with its outcomes.
    """

    classifier: "Classifier"
    pipeline: Pipeline
    adhoc: Pipeline
    stages: Stages
    metrics: "Metrics"


@contextmanager
def runtime(settings: Settings, workers: int | None = None) -> Iterator[Runtime]:
    """Load the model and start decoding workers; they are killed on leaving.

    Raises
    ------
    InvalidModel
        If the weights or their card do not load.
    """
    from fracture_watch.delivery.metrics import Metrics
    from fracture_watch.imaging.workers import Plan, WorkerPool
    from fracture_watch.model.preprocess import thumbnail

    # Decoding workers and torch share the cores: threads that spin while they wait would slow both many times over.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _keep_freed_memory()
    imaging, classifier = settings.imaging, load_model(settings)
    plan = Plan(classifier.card.preprocessor, thumbnail, limits(settings), _scope(settings))
    # torch is the reference; a result that something else computed says so.
    notes = () if settings.model.runtime == "torch" else (f"runtime {settings.model.runtime}",)
    count = workers or imaging.workers or cores()
    bounds = imaging.timeout_seconds, imaging.memory_mb
    # Workers start with their first file, so the second pool costs nothing until somebody asks.
    with closing(WorkerPool(plan, count, *bounds)) as decoder, closing(WorkerPool(plan, 1, *bounds)) as adhoc:
        stages, metrics = Stages(), Metrics()
        pipeline = Pipeline(decoder, classifier, notes, stages.measure)
        yield Runtime(classifier, pipeline, Pipeline(adhoc, classifier, notes), stages, metrics)


def load_model(settings: Settings) -> "Classifier":
    """The classifier that the settings name.

    Raises
    ------
    InvalidModel
        If the weights or their card do not load.
    """
    model = settings.model
    return load_classifier(
        model.weights,
        threshold=model.threshold,
        device=model.device,
        batch_size=model.batch_size,
        runtime=model.runtime,
        one_view=model.views == "whole",
    )


def check_model(classifier: "Classifier") -> None:
    """Run the golden images, before anything is recorded; a card without their probabilities is only warned of.

    Raises
    ------
    InvalidModel
        If they get other probabilities than the card says.
    """
    from fracture_watch import golden

    if not golden.require(classifier):
        log.warning(
            "%s: its card has no probabilities for the golden images, so a broken model would not be noticed; "
            "`fracture-watch model check --write` stores them",
            classifier.card.name,
        )


def limits(settings: Settings) -> Limits:
    """What one file may ask for."""
    return Limits(settings.imaging.max_pixels, settings.imaging.max_frames, settings.inbox.max_file_mb << 20)


def _scope(settings: Settings) -> Scope:
    scope = settings.scope
    return Scope(
        frozenset(value.upper() for value in scope.modalities),
        frozenset(value.upper() for value in scope.body_parts),
        scope.on_mismatch,
    )


def open_database(settings: Settings) -> Database:
    """Open, and where needed create or migrate, the database.

    Raises
    ------
    InvalidSettings
        If it cannot lie where the settings say.
    """
    path, lock = database_path(settings), lock_of(settings.database.path)
    if not path.exists() and lock.exists() and lock.stat().st_size:
        raise InvalidSettings(
            f"database.url: {path} is gone, but {lock.name} says that it was there. Put it back, from a backup if need "
            f"be, or remove {lock} too to begin with an empty one"
        )
    return Database(settings.database.url)


@contextmanager
def claimed(settings: Settings) -> Iterator[None]:
    """Keep other daemons away from the inbox and the database.

    Raises
    ------
    InvalidSettings
        If one is there already.
    """
    _make_folder("inbox.path", settings.inbox.path)
    database = settings.database.path
    with (
        claimed_by(inbox_lock(settings), f"inbox.path: {settings.inbox.path}"),
        claimed_by(lock_of(database), f"database.url: {database}"),
    ):
        yield


def inbox_lock(settings: Settings) -> Path:
    """Held by the daemon that watches the inbox."""
    return settings.inbox.path / ".fracture_watch.lock"


def lock_of(database: Path) -> Path:
    """Held by the daemon that writes to the database; it stays, so that a database that went missing is noticed."""
    return database.with_name(f"{database.name}.lock")


def database_path(settings: Settings) -> Path:
    """Where the SQLite file lies.

    Raises
    ------
    InvalidSettings
        If that is on a network file system, where SQLite's locks do not hold, or in no folder.
    """
    path = settings.database.path
    kind = network_type(path)
    if kind:
        raise InvalidSettings(
            f"database.url: {path} lies on a network file system ({kind}), where SQLite loses data; put it on a "
            "local disk"
        )
    if not path.parent.is_dir():
        raise InvalidSettings(f"database.url: the folder {path.parent} does not exist; create it first")
    return path


def service(settings: Settings, running: Runtime, database: Database) -> "Service":
    """What records: the watcher's and the scanner's use case."""
    from fracture_watch.engine import LocalEngine
    from fracture_watch.model.heatmap import Gallery, Illustrator
    from fracture_watch.results.store import Store
    from fracture_watch.service import Service

    card = running.classifier.card
    gallery = Gallery(Illustrator(card.preprocessor, settings.model.heatmaps), settings.filing.artefacts_dir)
    return Service(LocalEngine(running.pipeline), Store(database, card.facts), gallery, running.stages.measure)


def outdated(running: Runtime, database: Database) -> "Iterator[SourceFile]":
    """What only other models have classified, where it is filed; results without a file stay as they are."""
    from fracture_watch.intake.folder import scan
    from fracture_watch.results.store import Store

    for path in Store(database, running.classifier.card.facts).outdated():
        if path.is_file() and not path.is_symlink():
            yield from scan(Tree(path))
        else:
            log.warning("%s is not there any more; its result stays that of another model", path)


def daemon(settings: Settings, running: Runtime, database: Database) -> "Daemon":
    """The watcher, with its folders made where they are missing."""
    from fracture_watch.daemon import Daemon, Pace
    from fracture_watch.results.store import Store

    inbox = settings.inbox
    _make_folder("inbox.path", inbox.path)
    settling = Settling(inbox.settle_seconds, inbox.give_up_seconds, check_completeness)
    folder = Folder(
        Tree(inbox.path, inbox.recursive, inbox.ignore),
        settling,
        inbox.rescan_seconds,
        polling_reason(settings),
        settings.model.batch_size,
    )
    return Daemon(
        folder,
        service(settings, running, database),
        Store(database, running.classifier.card.facts),
        filing(settings),
        Pace(inbox.give_up_seconds),
        running.metrics,
        running.stages,
    )


def filing(settings: Settings) -> Filing:
    """Where files go."""
    chosen = settings.filing
    return Filing(
        settings.inbox.path,
        chosen.processed_dir,
        chosen.quarantine_dir,
        chosen.processed,
        chosen.receipts,
        chosen.min_free_mb << 20,
        (chosen.artefacts_dir, settings.database.path.parent),
    )


def polling_reason(settings: Settings) -> str | None:
    """Why the inbox is listed every second instead of being watched by events; ``None`` where it is not."""
    inbox = settings.inbox
    if inbox.polling == "always":
        return "inbox.polling is always"
    kind = network_type(inbox.path) if inbox.polling == "auto" else None
    return f"it lies on {kind}, which sends no events" if kind else None


def website(settings: Settings, running: Runtime, database: Database, watcher: "Daemon | None") -> "Flask":
    """The HTTP service."""
    from fracture_watch.model.heatmap import DataUrl, Illustrator
    from fracture_watch.results.queries import Filter, results
    from fracture_watch.web.app import Access, create_app
    from fracture_watch.web.site import Site

    web = settings.web

    def status() -> "DaemonStatus | None":
        return watcher.status if watcher else None

    if watcher:
        _watch_status(running.metrics, watcher)
    site = Site(
        pipeline=running.adhoc,
        illustrate=DataUrl(Illustrator(running.classifier.card.preprocessor)),
        status=status,
        metrics=running.metrics.text,
        recent=lambda: list(results(database, Filter(limit=200))),
        inbox=settings.inbox.path,
    )
    token = web.token.get_secret_value() if web.token else None
    return create_app(site, Access(web.host, token, web.max_upload_mb << 20))


def _watch_status(metrics: "Metrics", watcher: "Daemon") -> None:
    from fracture_watch.errors import SystemicError

    metrics.watch("waiting_files", "Files in the inbox that are not ready yet.", lambda: watcher.status.waiting)
    metrics.watch(
        "oldest_waiting_seconds", "For how long the oldest of them has waited.", lambda: watcher.status.oldest_seconds
    )
    codes = [kind.code for kind in SystemicError.__subclasses__()]
    metrics.watch_reasons("paused", "Whether intake is paused, by reason.", codes, lambda: watcher.status.paused)


def check_completeness(path: Path) -> Completeness:
    """Sniff a file and see whether it reaches its own end."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    found = sniff(head)
    if found is Format.UNKNOWN and may_become(head):
        return Completeness.INCOMPLETE
    return completeness(path, found)


def _keep_freed_memory() -> None:
    """Let glibc keep what a forward pass frees: to ask the system for it anew takes up to a quarter of the next one."""
    with suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, 1 << 30)


def cores() -> int:
    """How many cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _make_folder(key: str, path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidSettings(f"{key}: {path} cannot be created: {error.strerror}") from error
