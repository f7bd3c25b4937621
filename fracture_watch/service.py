"""The use case: run a batch of files and record what came of each, in one transaction."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from fracture_watch.engine import Engine
from fracture_watch.errors import Unreadable
from fracture_watch.intake.filing import Filing
from fracture_watch.intake.settling import is_still_there
from fracture_watch.pipeline import Draw, no_picture
from fracture_watch.records import Failed, Outcome, Recorded, Rejected, SourceFile
from fracture_watch.results.database import Database
from fracture_watch.results.store import Store
from fracture_watch.results.trail import Quarantined, note_put_back
from fracture_watch.stages import Measure, unmeasured

log = logging.getLogger(__name__)
Destination: TypeAlias = Callable[[SourceFile, Outcome], Path | None]
PutOff: TypeAlias = Callable[[SourceFile, Outcome], bool]


def never(source: SourceFile, outcome: Outcome) -> bool:
    """Every outcome is recorded as it comes."""
    return False


class Service:
    """What the watcher and ``scan`` share.

    Parameters
    ----------
    engine : Engine
    store : Store
    draw : function
        Makes the picture that explains a prediction.
    measure : function
        Times the stage ``record``.
    """

    def __init__(self, engine: Engine, store: Store, draw: Draw = no_picture, measure: Measure = unmeasured) -> None:
        self._measure = measure
        self._engine = engine
        self._store = store
        self._draw = draw

    def process(self, batch: Sequence[SourceFile], destination: Destination, put_off: PutOff = never) -> list[Recorded]:
        """Classify and commit. When this returns, the outcomes are on disk and the files may be moved.

        Parameters
        ----------
        batch : sequence of SourceFile
            What the model in force has already dealt with in its place is left out.
        destination : function
            Where a file will be filed, so that the row says it.
        put_off : function
            Whether a file is to be tried again later, and not to be recorded now.

        Raises
        ------
        SystemicError
            Nothing was recorded; the batch may be tried again.
        """
        old = self._store.unchanged(batch)
        news = [source for source in batch if source not in old]
        if not news:
            return []
        outcomes = self._engine.run(news, self._store.known, self._draw)
        entries = [
            (source, outcome, destination(source, outcome))
            for source, outcome in zip(news, outcomes, strict=True)
            if not _is_gone(source, outcome) and not _has_changed(source, outcome) and not put_off(source, outcome)
        ]
        with self._measure("record"):
            return self._store.record(entries)


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


def in_place(source: SourceFile, outcome: Outcome) -> Path:
    """The destination of files that are never moved."""
    return source.path
