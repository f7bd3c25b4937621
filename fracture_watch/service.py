"""The use case: run batches of files and record what came of each file, a batch in one transaction."""

import logging
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from fracture_watch.engine import Engine
from fracture_watch.errors import FractureWatchError, Internal, Unreadable
from fracture_watch.intake.filing import Filing, is_free
from fracture_watch.intake.moving import names
from fracture_watch.intake.settling import is_still_there
from fracture_watch.outcomes import Failed, Outcome, Recorded, Rejected
from fracture_watch.records import SourceFile
from fracture_watch.results.database import Database
from fracture_watch.results.store import Store
from fracture_watch.results.trail import Quarantined, note_put_back
from fracture_watch.stages import Stages

log = logging.getLogger(__name__)
Destination: TypeAlias = Callable[[SourceFile, Outcome], Path | None]
Entry: TypeAlias = tuple[SourceFile, Outcome, Path | None]
Build: TypeAlias = Callable[[Sequence[Entry]], list[Entry]]
PutOff: TypeAlias = Callable[[SourceFile, Outcome], bool]
Past: TypeAlias = Callable[[Sequence[SourceFile]], set[SourceFile]]


def never(source: SourceFile, outcome: Outcome) -> bool:
    """Every outcome is recorded as it comes."""
    return False


@dataclass(frozen=True, slots=True)
class Done:
    """A batch that was dealt with, what was recorded of it, and how long its stages took."""

    batch: Sequence[SourceFile]
    recorded: list[Recorded]
    stages: Stages


@dataclass(frozen=True, slots=True)
class _UnderWay:
    batch: Sequence[SourceFile]
    news: Sequence[SourceFile]  # without what needs no work
    outcomes: Future[list[Outcome]]
    stages: Stages


class Service:
    """What the watcher and ``scan`` share.

    Parameters
    ----------
    engine : Engine
    store : Store
    past : function
        Which of some files need no work, because their results stand; by default what the model in force has already
        dealt with in its place.
    build : function
        Builds the DICOM objects of what is about to be recorded, and says in it which there are.
    """

    def __init__(self, engine: Engine, store: Store, past: Past | None = None, build: Build | None = None) -> None:
        self._engine = engine
        self._store = store
        self._past = past or store.unchanged
        self._build = build

    def process(
        self, batches: Iterable[Sequence[SourceFile]], destination: Destination, put_off: PutOff = never
    ) -> Generator[Done]:
        """Classify and commit, batch by batch, as they are done; of those that are, the oldest first.

        A batch that is yielded is on disk; its files may be moved. While one batch is recorded, and while the caller
        files it, the next ones are decoded and classified.

        Parameters
        ----------
        batches : iterable of sequences of SourceFile
            What needs no work is left out. An empty batch says that no more is ready now, so that what is under way
            is finished before the next is asked for.
        destination : function
            Where a file will be filed, so that the row says it.
        put_off : function
            Whether a file is to be tried again later, and not to be recorded now.

        Raises
        ------
        SystemicError
            Nothing was recorded of the batches that were not yielded; they may be tried again.
        """
        under_way: list[_UnderWay] = []
        try:
            for batch in batches:
                if batch:
                    under_way.append(self._begin(batch))
                while len(under_way) > (self._engine.ahead if batch else 0):
                    yield self._finish(_next_of(under_way), destination, put_off)
            while under_way:
                yield self._finish(_next_of(under_way), destination, put_off)
        finally:
            for abandoned in under_way:
                abandoned.outcomes.cancel()

    def _begin(self, batch: Sequence[SourceFile]) -> _UnderWay:
        old, stages = self._past(batch), Stages()
        news = [source for source in batch if source not in old]
        outcomes = self._engine.submit(news, stages.measure) if news else _nothing()
        return _UnderWay(batch, news, outcomes, stages)

    def _finish(self, work: _UnderWay, destination: Destination, put_off: PutOff) -> Done:
        taken: set[Path] = set()
        entries = [
            (source, outcome, _apart(taken, source, destination(source, outcome)))
            for source, outcome in zip(work.news, work.outcomes.result(), strict=True)
            if not _is_gone(source, outcome) and not _has_changed(source, outcome) and not put_off(source, outcome)
        ]
        if self._build:
            with work.stages.measure("build"):
                entries = self._with_objects(entries, self._build)
        with work.stages.measure("record"):
            recorded = self._recorded(entries, destination, taken)
        return Done(work.batch, recorded, work.stages)

    def _recorded(self, entries: list[Entry], destination: Destination, taken: set[Path]) -> list[Recorded]:
        """Commit; an outcome that no row can hold is a defect of this program, and costs its own file alone."""
        try:
            return self._store.record(entries) if entries else []
        except FractureWatchError:
            raise
        except Exception as error:
            if len(entries) > 1:
                return [recorded for entry in entries for recorded in self._recorded([entry], destination, taken)]
            [(source, outcome, _)] = entries
            log.exception("%s: its outcome cannot be recorded", source.name)
            why = f"an internal error: its outcome cannot be recorded ({type(error).__name__}); see the log"
            failed = Failed(Internal.code, why, outcome.sha256)
            return self._store.record([(source, failed, _apart(taken, source, destination(source, failed)))])

    def _with_objects(self, entries: list[Entry], build: Build) -> list[Entry]:
        """A content that the model has classified before becomes a duplicate: the objects that it has stay."""
        past = self._store.known({outcome.sha256 for _, outcome, _ in entries if outcome.sha256})
        first: dict[str, Entry] = {}
        for entry in entries:
            digest = entry[1].sha256
            if digest and digest not in past:
                first.setdefault(digest, entry)
        built = dict(zip(first, build(list(first.values())), strict=True))
        return [built[str(e[1].sha256)] if first.get(str(e[1].sha256)) is e else e for e in entries]


@dataclass(frozen=True, slots=True)
class PutBack:
    """A file that was to go back from quarantine to the inbox, and where it is; ``None``: nowhere to be found."""

    item: Quarantined
    target: Path | None


def put_back(database: Database, filing: Filing, items: Iterable[Quarantined]) -> Iterator[PutBack]:
    """Move files from quarantine to the inbox, where they are received like new ones; their old rows stay.

    Raises
    ------
    StorageUnavailable
        If one cannot be moved; those before it are.
    """
    for item in items:
        try:
            target = filing.put_back(item.filed_path, item.source_path)
        except FileNotFoundError:
            target = None
        # After the move: a crash between the two leaves a file in the inbox, and a row that a repeated retry corrects.
        note_put_back(database, item, target)
        yield PutBack(item, target)


def _next_of(under_way: list[_UnderWay]) -> _UnderWay:
    """Take the oldest batch that is done, so that one slow batch holds up no other; wait where none is."""
    done = wait([work.outcomes for work in under_way], return_when=FIRST_COMPLETED).done
    return under_way.pop(next(n for n, work in enumerate(under_way) if work.outcomes in done))


def _nothing() -> Future[list[Outcome]]:
    future: Future[list[Outcome]] = Future()
    future.set_result([])
    return future


def _is_gone(source: SourceFile, outcome: Outcome) -> bool:
    """A file that was taken away before it could be read was never received."""
    unread = isinstance(outcome, Failed) and outcome.code == Unreadable.code
    gone = unread and not os.path.lexists(source.path)
    if gone:
        log.warning("%s was taken away before it could be read; nothing is recorded of it", source.name)
    return gone


def _has_changed(source: SourceFile, outcome: Outcome) -> bool:
    """A file that was written while it was read may be refused for being half of what it becomes."""
    changed = isinstance(outcome, Failed | Rejected) and not is_still_there(source)
    if changed:
        log.warning(
            "%s was written to while it was read (%s); nothing is recorded of that, it is taken up again as it is now",
            source.name,
            outcome.code if isinstance(outcome, Failed | Rejected) else outcome.status,
        )
    return changed


def _apart(taken: set[Path], source: SourceFile, wanted: Path | None) -> Path | None:
    """A place that no other file of the batch has; files of one content want the same where it is named for that."""
    place = wanted
    if wanted in taken and wanted != source.path:
        place = next(name for name in names(wanted) if name not in taken and is_free(name))
    if place:
        taken.add(place)
    return place


def in_place(source: SourceFile, outcome: Outcome) -> Path:
    """The destination of files that are never moved."""
    return source.path
