"""intake -> service -> filing, until told to stop. Pauses when nothing can be processed, and resumes by itself."""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from fracture_watch.delivery.exports import log_line
from fracture_watch.delivery.metrics import Metrics
from fracture_watch.errors import TRANSIENT, SystemicError
from fracture_watch.intake.filing import Filing
from fracture_watch.intake.folder import Folder
from fracture_watch.intake.settling import Settled, is_still_there
from fracture_watch.outcomes import Classified, Duplicate, Failed, Outcome, Recorded, Stalled
from fracture_watch.records import SourceFile
from fracture_watch.results.rows import source_text
from fracture_watch.results.store import Store
from fracture_watch.service import Done, Service
from fracture_watch.texts import printable

log = logging.getLogger(__name__)


# Seconds between the attempts to read a file that is there and cannot be read: a scanner or its sender may hold it.
PATIENCE = (2.0, 10.0, 30.0, 60.0)


@dataclass(frozen=True, slots=True)
class DaemonStatus:
    """What the daemon is doing.

    ``mode`` is how it watches; ``paused`` says why it is paused, or is ``None``; ``waiting`` files are not ready yet,
    the oldest of them for ``oldest_seconds``.
    """

    mode: str
    paused: str | None
    waiting: int
    oldest_seconds: float
    running: bool


@dataclass(frozen=True, slots=True)
class Pace:
    """How patient a daemon is, in seconds.

    A pause lasts ``pause`` before the next attempt; an emptied folder stays for ``linger``, since its sender may have
    more files for it; ``patience`` lies between the attempts to read a file; ``give_up`` is only for what is said of
    stalled files.
    """

    give_up: float
    pause: float = 5.0
    linger: float = 60.0
    patience: tuple[float, ...] = PATIENCE


class Daemon:
    """Watches one inbox.

    Parameters
    ----------
    folder : Folder
    service : Service
    store : Store
    filing : Filing
    pace : Pace
    metrics : Metrics
    """

    def __init__(
        self,
        folder: Folder,
        service: Service,
        store: Store,
        filing: Filing,
        pace: Pace,
        metrics: Metrics,
    ) -> None:
        self._folder = folder
        self._service = service
        self._store = store
        self._filing = filing
        self._pace = pace
        self._metrics = metrics
        self._emptied: dict[Path, float] = {}  # folders that files were taken from, and when
        self._in_hand: list[tuple[SourceFile, ...]] = []  # batches that are under way, or that a fault interrupted
        self._put_off: set[SourceFile] = set()  # of these, what is tried again later
        self._stalled: deque[SourceFile] = deque()  # files that keep growing, until their rows are written
        self._paused: str | None = None
        self._running = False

    @property
    def status(self) -> DaemonStatus:
        """A snapshot for other threads."""
        folder = self._folder
        return DaemonStatus(folder.mode, self._paused, folder.waiting, folder.oldest_seconds, self._running)

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set; the oldest batch in hand is finished first, the others stay in the inbox."""
        self._running = True
        try:
            while not stop.is_set():
                try:
                    self._work(stop)
                except SystemicError as error:
                    self._pause(error, stop)
        finally:
            self._running = False

    def _work(self, stop: threading.Event) -> None:
        # Before files are claimed, be sure that their outcome can be written.
        self._store.ping()
        self._filing.probe()
        self._finish_filing()
        with (
            closing(self._folder.watch(stop)) as ticks,
            closing(self._service.process(self._claimed(ticks), self._filing.destination, self._try_later)) as batches,
        ):
            for done in batches:
                self._deal_with(done)
                if stop.is_set():
                    break

    def _claimed(self, ticks: Iterator[Settled]) -> Iterator[tuple[SourceFile, ...]]:
        """Batches as they become ready; an empty one where none is."""
        # What a fault interrupted shows best whether its cause is gone.
        interrupted, self._in_hand = self._in_hand, []
        put_off, self._put_off = self._put_off, set()
        for batch in interrupted:
            yield self._taken(tuple(s for s in batch if s not in put_off and is_still_there(s)))
        yield ()
        for settled in ticks:
            self._resume()  # the inbox can be listed too
            self._report_stalled(settled)
            self._remove_emptied()
            yield self._taken(settled.ready)

    def _taken(self, batch: tuple[SourceFile, ...]) -> tuple[SourceFile, ...]:
        if batch:
            self._in_hand.append(batch)
            self._filing.require_room()
        return batch

    def _finish_filing(self) -> None:
        """Whatever was committed before a crash or a pause is put in its place before anything new is looked at."""
        unfiled = self._folder.find_again(self._store.unfiled(self._filing.inbox))
        if unfiled:
            log.info("finishing the filing of %d files", len(unfiled))
            self._file(unfiled)

    def _deal_with(self, done: Done) -> None:
        with done.stages.measure("file"):
            moved = self._file(done.recorded)
        self._tell(done.recorded, done.stages.seconds)
        for source in done.batch:
            if source in self._put_off:
                self._put_off.remove(source)
            elif source in moved or not os.path.lexists(source.path):
                self._folder.forget(source)  # what is at its place by now was put back, and is work again
            else:
                self._folder.keep(source)
        self._in_hand = [batch for batch in self._in_hand if batch is not done.batch]

    def _try_later(self, source: SourceFile, outcome: Outcome) -> bool:
        """Whether a file that could not be read is tried again; recorded it is after the last attempt."""
        code = outcome.code if isinstance(outcome, Failed) else None
        if code not in TRANSIENT or source.attempts >= len(self._pace.patience):
            return False
        seconds = self._pace.patience[source.attempts]
        detail = f"{getattr(outcome, 'detail', code)}; attempt {source.attempts + 1}, tried again in {seconds:g} s"
        log.warning("%s: %s", printable(source.name), detail)
        self._store.note_postponed(source, detail)
        self._folder.postpone(source, seconds)
        self._metrics.put_off()
        self._put_off.add(source)
        return True

    def _tell(self, recorded: list[Recorded], seconds: dict[str, float]) -> None:
        """One line a file: what came of it, and its share of the time that its batch took."""
        self._metrics.spent(seconds)
        shares = {stage: round(value * 1000 / max(1, len(recorded)), 1) for stage, value in seconds.items()}
        for item in recorded:
            outcome = item.outcome
            self._metrics.count(outcome)
            well = isinstance(outcome, Classified | Duplicate)
            facts = {
                "file": None if well else source_text(item.source),
                "result": item.id,
                "sha256": outcome.sha256,
                "status": str(outcome.status),
                "code": getattr(outcome, "code", None),
                "milliseconds": shares,
            }
            log.log(logging.INFO if well else logging.WARNING, "%s", log_line(item), extra={"facts": facts})

    def _file(self, recorded: list[Recorded]) -> set[SourceFile]:
        """Put files where their rows say; gives back those that are not in the inbox any more."""
        places: list[tuple[Recorded, Path | None]] = []
        try:
            for item in recorded:
                if item.filed_path != item.source.path:
                    places += [(item, self._filing.file(item))]
                    self._emptied[item.source.path.parent] = time.monotonic()
        finally:  # what was moved counts, also if a later move fails
            if places:
                self._store.filed(places)
        return {item.source for item, place in places if place != item.source.path}

    def _remove_emptied(self) -> None:
        due = [folder for folder, when in self._emptied.items() if time.monotonic() - when >= self._pace.linger]
        for folder in due:
            del self._emptied[folder]
            self._filing.remove_emptied(folder)

    def _report_stalled(self, settled: Settled) -> None:
        self._stalled += settled.stalled
        while self._stalled:  # those whose row a fault kept from being written, too
            source = self._stalled[0]
            detail = f"still growing after {self._pace.give_up:g} s; it is processed when its writer is done"
            self._store.record_stalled(source, Stalled(detail))
            log.warning("%s: stalled: %s", printable(source.name), detail)
            self._stalled.popleft()
        if settled.gone:
            self._store.forget_stalled(settled.gone)

    def _resume(self) -> None:
        if self._paused is not None:
            log.info("resumed")
            self._paused = None

    def _pause(self, error: SystemicError, stop: threading.Event) -> None:
        if self._paused is None:
            log.error("paused: %s; the files stay where they are, trying again every %g s", error, self._pace.pause)
        self._paused = printable(f"{error.code}: {error.detail}")
        stop.wait(self._pace.pause)
