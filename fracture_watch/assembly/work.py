"""Settings -> what records, what watches, and what tells of it."""

import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fracture_watch.assembly.deliveries import subscriptions
from fracture_watch.assembly.destinations import workshop
from fracture_watch.assembly.model import Runtime, card_in_force, check_model, cores, decoders, runtime
from fracture_watch.assembly.remote import dask_engine
from fracture_watch.assembly.storage import (
    aliases,
    filing,
    inbox_lock,
    make_folder,
    open_database,
    privacy,
    tree,
    watcher_of,
)
from fracture_watch.config import Settings
from fracture_watch.imaging.sniff import HEAD, may_become, sniff
from fracture_watch.intake.completeness import Completeness, completeness, opened
from fracture_watch.intake.folder import Folder
from fracture_watch.intake.mounts import network_type
from fracture_watch.intake.settling import Settling
from fracture_watch.intake.tree import scan
from fracture_watch.records import Format
from fracture_watch.results.database import Database

if TYPE_CHECKING:
    from flask import Flask

    from fracture_watch.daemon import Daemon, DaemonStatus
    from fracture_watch.delivery.metrics import Metrics
    from fracture_watch.engine import Engine
    from fracture_watch.engine.local import LocalEngine
    from fracture_watch.objects import Builders
    from fracture_watch.receive.door import Look
    from fracture_watch.records import SourceFile
    from fracture_watch.results.store import Store
    from fracture_watch.service import PutBack, Service
    from fracture_watch.timeline import Inbox

log = logging.getLogger(__name__)


def service(settings: Settings, running: Runtime, database: Database) -> "Service":
    """What records, with what computes in this process."""
    from fracture_watch.results.store import Store
    from fracture_watch.service import Service

    card = running.classifier.card
    store = Store(database, card.facts, subscriptions(settings), watcher_of(settings))
    build = workshop(settings, running.workers, card.preprocessor)
    return Service(_local(settings, running, store), store, build=build)


@dataclass(frozen=True, slots=True)
class Scanner:
    """What ``scan`` works with."""

    service: "Service"
    store: "Store"


@contextmanager
def scanner(settings: Settings, paths: Sequence[Path], *, retry: bool) -> Iterator[Scanner]:
    """Whatever ``engine.kind`` says computes, and what records.

    Parameters
    ----------
    settings : Settings
    paths : sequence of Path
        What is to be scanned.
    retry : bool
        Whether to take up again what was refused or failed before.

    Raises
    ------
    WrongUse
        If the model or the engine is not what the settings ask for.
    """
    from fracture_watch.results.store import Store
    from fracture_watch.service import Service

    with ExitStack() as held:
        running = None
        if settings.engine.kind == "local":
            running = held.enter_context(runtime(settings))
            check_model(running.classifier)
        card = running.classifier.card if running else card_in_force(settings)
        database = held.enter_context(closing(open_database(settings)))
        store = Store(database, card.facts, subscriptions(settings), watcher_of(settings, make=True))
        if running:
            engine: Engine = _local(settings, running, store)
            builders: Builders = running.workers
        else:
            # Objects are built where they are recorded; these processes start with the first of them.
            builders = held.enter_context(closing(decoders(settings, card, settings.imaging.workers or cores())))
            engine = held.enter_context(dask_engine(settings, card, _samples(settings, paths, store)))
        build = workshop(settings, builders, card.preprocessor)
        yield Scanner(Service(engine, store, store.unchanged if retry else store.settled, build), store)


def _local(settings: Settings, running: Runtime, store: "Store") -> "LocalEngine":
    from fracture_watch.engine.local import LocalEngine
    from fracture_watch.model.heatmap import Gallery, Illustrator

    illustrator = Illustrator(running.classifier.card.preprocessor, settings.model.heatmaps)
    return LocalEngine(running.pipeline, store.known, Gallery(illustrator, settings.filing.artefacts_dir))


def _samples(settings: Settings, paths: Sequence[Path], store: "Store") -> Iterator[Path]:
    """A file of each folder that is scanned, or else of what is to be reclassified."""
    lists = [scan(tree(settings, path)) for path in paths] or [outdated(settings, store)]
    return (source.path for sources in lists for source in itertools.islice(sources, 1))


def outdated(settings: Settings, store: "Store") -> "Iterator[SourceFile]":
    """What only other models have classified, where it is filed; results without a file stay as they are."""
    for path in store.outdated():
        if path.is_file() and not path.is_symlink():
            yield from scan(tree(settings, path))
        else:
            log.warning("%s is not there any more; its result stays that of another model", path)


def daemon(settings: Settings, running: Runtime, database: Database) -> "Daemon":
    """The watcher, with its folders made where they are missing."""
    from fracture_watch.daemon import Daemon, Pace
    from fracture_watch.results.store import Store

    inbox = settings.inbox
    make_folder("inbox.path", inbox.path)
    watcher = watcher_of(settings, make=True)
    settling = Settling(inbox.settle_seconds, inbox.give_up_seconds, check_completeness)
    folder = Folder(
        tree(settings, inbox.path),
        settling,
        inbox.rescan_seconds,
        polling_reason(settings),
        settings.model.batch_size,
    )
    return Daemon(
        folder,
        service(settings, running, database),
        Store(database, running.classifier.card.facts, watcher=watcher),
        filing(settings),
        Pace(inbox.give_up_seconds),
        running.metrics,
    )


def inbox(settings: Settings) -> "Inbox":
    """What ``trace`` looks at."""
    from fracture_watch.timeline import Inbox

    chosen = settings.inbox
    return Inbox(
        tree(settings, chosen.path),
        inbox_lock(settings),
        chosen.settle_seconds,
        chosen.give_up_seconds,
        check_completeness,
        nameless=settings.privacy.identifiers == "drop",
    )


def polling_reason(settings: Settings) -> str | None:
    """Why the inbox is listed every second instead of being watched by events; ``None`` where it is not."""
    inbox = settings.inbox
    if inbox.polling == "always":
        return "inbox.polling is always"
    kind = network_type(inbox.path) if inbox.polling == "auto" else None
    return f"it lies on {kind}, which sends no events" if kind else None


def website(
    settings: Settings,
    running: Runtime,
    database: Database,
    watcher: "Daemon | None",
    receiver: "Look | None" = None,
) -> "Flask":
    """The HTTP service."""
    from fracture_watch.model.heatmap import DataUrl, Illustrator
    from fracture_watch.results.trail import quarantined, trail_of
    from fracture_watch.service import put_back
    from fracture_watch.timeline import timeline
    from fracture_watch.web.app import Access, create_app
    from fracture_watch.web.site import Site

    web, card, quarantine = settings.web, running.classifier.card, settings.filing.quarantine_dir
    guard = privacy(settings)

    def status() -> "DaemonStatus | None":
        return watcher.status if watcher else None

    def retry(ids: Iterable[int]) -> "list[PutBack]":
        items = quarantined(database, quarantine, list(ids), watcher=watcher_of(settings))
        return list(put_back(database, filing(settings), items))

    if watcher:
        _watch_status(running.metrics, watcher)
    site = Site(
        pipeline=running.adhoc,
        illustrate=DataUrl(Illustrator(card.preprocessor)),
        viewer=running.viewer,
        status=status,
        metrics=running.metrics.text,
        database=database,
        model=card.facts,
        threshold=card.threshold.value,
        inbox=settings.inbox.path,
        card=card,
        receiver=receiver or (lambda: None),
        history=lambda file_id: timeline(trail_of(database, file_id), inbox(settings)),
        retry=retry,
        patient=guard.patient,
        aliases=partial(aliases, settings),
        watcher=watcher_of(settings),
        quoting=settings.privacy.identifiers == "keep",
    )
    token = web.token.get_secret_value() if web.token else None
    return create_app(site, Access(web.host, token, web.max_upload_mb << 20))


def check_completeness(path: Path) -> Completeness:
    """Sniff a file and see whether it reaches its own end."""
    with opened(path) as file:
        head = file.read(HEAD)
    found = sniff(head)
    if found is Format.UNKNOWN and may_become(head):
        return Completeness.INCOMPLETE
    return completeness(path, found)


def _watch_status(metrics: "Metrics", watcher: "Daemon") -> None:
    from fracture_watch.errors import SystemicError

    metrics.watch("waiting_files", "Files in the inbox that are not ready yet.", lambda: watcher.status.waiting)
    metrics.watch(
        "oldest_waiting_seconds", "For how long the oldest of them has waited.", lambda: watcher.status.oldest_seconds
    )
    codes = [kind.code for kind in SystemicError.__subclasses__()]
    metrics.watch_reasons("paused", "Whether intake is paused, by reason.", codes, lambda: watcher.status.paused)
