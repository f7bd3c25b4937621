"""intake -> service -> filing, until told to stop. Pauses when nothing can be processed, and resumes by itself."""

import logging
import os
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from fracture_watch.delivery.exports import printable, sentence
from fracture_watch.errors import SystemicError
from fracture_watch.intake.filing import Filing
from fracture_watch.intake.folder import Folder
from fracture_watch.intake.settling import Settled
from fracture_watch.records import Recorded, Stalled
from fracture_watch.results.store import Store
from fracture_watch.service import Service

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DaemonStatus:
    """What the daemon is doing: its watching mode, why it is paused (or ``None``), and how many files wait."""

    mode: str
    paused: str | None
    waiting: int
    running: bool


class Daemon:
    """Watches one inbox.

    Parameters
    ----------
    folder : Folder
    service : Service
    store : Store
    filing : Filing
    give_up_seconds : float
        Only for what is said of stalled files.
    pause_seconds : float
        How long a pause lasts before the next attempt.
    linger_seconds : float
        How long an emptied folder stays: its sender may have more files for it.
    """

    def __init__(
        self,
        folder: Folder,
        service: Service,
        store: Store,
        filing: Filing,
        give_up_seconds: float,
        pause_seconds: float = 5.0,
        linger_seconds: float = 60.0,
    ) -> None:
        self._folder = folder
        self._service = service
        self._store = store
        self._filing = filing
        self._give_up_seconds = give_up_seconds
        self._pause_seconds = pause_seconds
        self._linger_seconds = linger_seconds
        self._emptied: dict[Path, float] = {}  # folders that files were taken from, and when
        self._paused: str | None = None
        self._running = False

    @property
    def status(self) -> DaemonStatus:
        """A snapshot for other threads."""
        return DaemonStatus(self._folder.mode, self._paused, self._folder.waiting, self._running)

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set; a batch in hand is finished first."""
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
        if self._paused is not None:
            log.info("resumed")
            self._paused = None
        with closing(self._folder.watch(stop)) as ticks:
            for settled in ticks:
                if settled.ready:
                    self._process(settled)
                self._report_stalled(settled)
                self._remove_emptied()

    def _finish_filing(self) -> None:
        """Whatever was committed before a crash or a pause is put in its place before anything new is looked at."""
        unfiled = self._store.unfiled(self._filing.inbox)
        if unfiled:
            log.info("finishing the filing of %d files", len(unfiled))
            self._file(unfiled)

    def _process(self, settled: Settled) -> None:
        recorded = self._service.process(settled.ready, self._filing.destination)
        for item in recorded:
            level = logging.INFO if item.outcome.status in ("classified", "duplicate") else logging.WARNING
            log.log(level, "%s", sentence(item.source.name, item.outcome))
        self._file(recorded)
        for source in settled.ready:
            if os.path.lexists(source.path):
                self._folder.keep(source)

    def _file(self, recorded: list[Recorded]) -> None:
        places: list[tuple[Recorded, Path | None]] = []
        try:
            for item in recorded:
                if item.filed_path != item.source.path:
                    places += [(item, self._filing.file(item))]
                    self._emptied[item.source.path.parent] = time.monotonic()
        finally:  # what was moved counts, also if a later move fails
            if places:
                self._store.filed(places)

    def _remove_emptied(self) -> None:
        due = [folder for folder, when in self._emptied.items() if time.monotonic() - when >= self._linger_seconds]
        for folder in due:
            del self._emptied[folder]
            self._filing.remove_emptied(folder)

    def _report_stalled(self, settled: Settled) -> None:
        for source in settled.stalled:
            detail = f"still growing after {self._give_up_seconds:g} s; it is processed when its writer is done"
            log.warning("%s: stalled: %s", printable(source.name), detail)
            self._store.record_stalled(source, Stalled(detail))

    def _pause(self, error: SystemicError, stop: threading.Event) -> None:
        if self._paused is None:
            log.error("paused: %s; the files stay where they are, trying again every %g s", error, self._pause_seconds)
        self._paused = printable(f"{error.code}: {error.detail}")
        stop.wait(self._pause_seconds)
