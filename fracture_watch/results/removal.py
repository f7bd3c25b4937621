"""Rows that are no longer to be kept."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, false, func, literal, not_, select, tuple_, update
from sqlalchemy.orm import aliased

from fracture_watch.records import Label, Status
from fracture_watch.results.database import CHUNK, Database
from fracture_watch.results.rows import as_path, as_text
from fracture_watch.results.schema import EventRow, FileRow, StudyRow, has_status, of_watcher
from fracture_watch.results.studies import count_studies
from fracture_watch.results.types import NUMBER, TEXT

_OLDEST_FIRST = FileRow.completed_at, FileRow.id  # as the indexes have it


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows: completed before a time, of a patient, or both; ``keep_positives`` spares what was called fractured.

    ``patient`` holds all that the patient's rows may have as ``patient_id``: the PatientID, and its hash.

    Raises
    ------
    ValueError
        If neither is said: that would be everything.
    """

    before: str | None = None
    patient: tuple[str, ...] | None = None
    keep_positives: bool = False

    def __post_init__(self) -> None:
        if not self.before and not self.patient:
            raise ValueError("neither a time nor a patient says what is to be removed")


@dataclass(frozen=True, slots=True)
class Kept:
    """A row, as far as its removal needs it. ``result`` are the content and the model of one with a prediction."""

    id: int
    completed_at: str
    filed_path: Path | None
    heatmap_path: Path | None
    study_key: str | None
    result: tuple[str, str] | None = None


def rows_to_remove(database: Database, wanted: Wanted, watcher: str | None = None) -> Iterator[list[Kept]]:
    """The rows, the oldest first, piece by piece; the pieces before may be removed meanwhile.

    Those of other watchers are left to them: without its row nobody would find a file that lies on another machine.
    """
    conditions = [*_conditions(wanted), of_watcher(watcher)]
    places = FileRow.filed_path, FileRow.heatmap_path
    result = FileRow.prediction, FileRow.sha256, FileRow.model_id
    last = "", 0
    while True:
        onward = tuple_(*_OLDEST_FIRST) > _place(*last)
        with database.reading() as connection:
            rows = connection.execute(
                select(FileRow.id, FileRow.study_key, FileRow.completed_at, *places, *result)
                .where(onward, *conditions)
                .order_by(*_OLDEST_FIRST)
                .limit(CHUNK)
            ).all()
        if not rows:
            return
        yield [_kept(row) for row in rows]
        last = rows[-1].completed_at, rows[-1].id


def count_of_others(database: Database, wanted: Wanted, watcher: str | None) -> int:
    """How many of the rows are left to other watchers."""
    others = select(func.count()).select_from(FileRow).where(*_conditions(wanted), not_(of_watcher(watcher)))
    with database.reading() as connection:
        return connection.scalar(others) or 0


def remove_rows(database: Database, rows: Collection[Kept]) -> None:
    """Delete rows with their events; their studies are counted anew, and go with their last file."""
    ids, keys = [row.id for row in rows], {row.study_key for row in rows if row.study_key}
    with database.writing() as connection:
        model = connection.scalar(
            select(FileRow.model_id).where(FileRow.model_id.is_not(None)).order_by(FileRow.id.desc()).limit(1)
        )
        connection.execute(update(FileRow).where(FileRow.duplicate_of.in_(ids)).values(duplicate_of=None))
        # What happened before there was a row is of the path alone, which other rows may have, too.
        other = aliased(FileRow)
        theirs = select(other.id).where(other.source_path == FileRow.source_path, other.id.not_in(ids))
        paths = select(FileRow.source_path).where(FileRow.id.in_(ids), not_(theirs.exists()))
        connection.execute(delete(EventRow).where(EventRow.file_id.is_(None), EventRow.source_path.in_(paths)))
        connection.execute(delete(FileRow).where(FileRow.id.in_(ids)))
        left = set(connection.scalars(select(FileRow.study_key).where(FileRow.study_key.in_(keys))))
        connection.execute(delete(StudyRow).where(StudyRow.study_uid.in_(keys - left)))
        # A study of which only repeats are left has nothing to count.
        nothing = {"files": 0, "classified": 0, "fractured": 0, "max_probability": None, "prediction": None}
        connection.execute(update(StudyRow).where(StudyRow.study_uid.in_(left)).values(nothing))
        count_studies(connection, model or "", [str(key) for key in left])


def shared_places(database: Database, rows: Sequence[Kept], wanted: Wanted, watcher: str | None = None) -> set[Path]:
    """Which of the rows' files other rows stand for, too: a filed picture that a later model has classified.

    A file goes with the last of its rows. The rows before it are to be removed, or, where all is only counted, would be
    by now.
    """
    places = [as_text(row.filed_path) for row in rows if row.filed_path]
    last = _place(rows[-1].completed_at, rows[-1].id)
    gone = func.coalesce(and_(*_conditions(wanted), tuple_(*_OLDEST_FIRST) <= last), false())
    others = select(FileRow.filed_path).where(FileRow.filed_path.in_(places), not_(gone), of_watcher(watcher))
    with database.reading() as connection:
        return {as_path(place) for place in connection.scalars(others) if place}


def _place(completed_at: str, number: int) -> ColumnElement[Any]:
    """A row's place in that order."""
    return tuple_(literal(completed_at, TEXT), literal(number, NUMBER))


def _conditions(wanted: Wanted) -> list[ColumnElement[bool]]:
    conditions: list[Any] = [FileRow.filed, FileRow.status != str(Status.STALLED)]
    if wanted.before:
        conditions.append(FileRow.completed_at < wanted.before)
        # A duplicate that is not as old has its prediction from here, and would have none.
        copy = aliased(FileRow)
        newer = copy.duplicate_of == FileRow.id, copy.completed_at >= wanted.before
        conditions.append(not_(select(copy.id).where(*newer).exists()))
    if wanted.patient is not None:
        conditions.append(FileRow.patient_id.in_(wanted.patient))
    else:  # what needs somebody's attention is not forgotten by its age
        conditions.append(has_status(Status.CLASSIFIED, Status.DUPLICATE))
    if wanted.keep_positives:
        positive = aliased(FileRow)
        same = select(positive.id).where(positive.sha256 == FileRow.sha256)
        conditions.append(not_(same.where(positive.prediction == str(Label.FRACTURED)).exists()))
    return conditions


def _kept(row: Any) -> Kept:
    result = (row.sha256, row.model_id) if row.prediction else None
    return Kept(row.id, row.completed_at, _path(row.filed_path), _path(row.heatmap_path), row.study_key, result)


def _path(text: str | None) -> Path | None:
    return as_path(text) if text else None
