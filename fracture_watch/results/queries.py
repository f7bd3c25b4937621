"""Questions to the views ``results`` and ``studies``, as the command line and the web service ask them."""

import operator
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnClause, ColumnElement, Double, Integer, Select, column, select, table

from fracture_watch.results import cursors, paging
from fracture_watch.results.database import Database
from fracture_watch.results.paging import Page
from fracture_watch.results.types import NUMBER, TEXT

COLUMNS = (
    "id received_at completed_at source_path filed_path status code detail notes sha256 duplicate_of patient_id "
    "study_uid series_uid sop_instance_uid accession_number modality body_part laterality view_position study_date "
    "rows columns frame prediction probability threshold model_name model_version model_id heatmap_path "
    "manufacturer"
).split()
STUDY_COLUMNS = (
    "study_uid patient_id study_date files classified fractured max_probability prediction last_result_at"
).split()
_TYPES: dict[str, Any] = {  # the others are text
    **dict.fromkeys(("id", "duplicate_of"), NUMBER),
    **dict.fromkeys("rows columns frame files classified fractured".split(), Integer),
    **dict.fromkeys(("probability", "threshold", "max_probability"), Double),
}


def _typed(name: str) -> ColumnClause[Any]:
    return column(name, _TYPES.get(name, TEXT))


RESULTS = table("results", *map(_typed, COLUMNS))
STUDIES = table("studies", *map(_typed, STUDY_COLUMNS))
_NEWEST = ("completed_at", "id")
_MOST_OF_A_STUDY = 1000  # rows that come with it; a study with more is asked for page by page


@dataclass(frozen=True, slots=True)
class Filter:
    """Which results; ``None`` asks for any. ``since`` and ``until`` are ISO 8601, compared with ``completed_at``."""

    prediction: str | None = None
    since: str | None = None
    until: str | None = None
    study: str | None = None
    patient: str | None = None
    min_probability: float | None = None
    status: str | None = None
    limit: int | None = None

    def statement(self, after: cursors.Position | None = None) -> Select[Any]:
        """The query, newest first; ``after``: what follows the row that is there in that order."""
        order = [RESULTS.c[name] for name in _NEWEST]
        wanted = self._conditions() + ([paging.past(order, after)] if after else [])
        newest = [name.desc() for name in order]
        alone = self == Filter(min_probability=self.min_probability, limit=self.limit)
        if alone and self.min_probability is not None and self.limit:
            # Probabilities are in no order of time. Bounded on both sides, SQLite takes their index, finds the newest
            # in it alone, and reads no rows but those.
            wanted.append(RESULTS.c.probability <= 1)
            wanted = [RESULTS.c.id.in_(select(RESULTS.c.id).where(*wanted).order_by(*newest).limit(self.limit))]
        return select(RESULTS).where(*wanted).order_by(*newest).limit(self.limit)

    def _conditions(self) -> list[ColumnElement[bool]]:
        c = RESULTS.c
        conditions = (
            (c.prediction, operator.eq, self.prediction),
            (c.completed_at, operator.ge, self.since),
            (c.completed_at, operator.lt, self.until),
            (c.patient_id, operator.eq, self.patient),
            (c.probability, operator.ge, self.min_probability),
            (c.status, operator.eq, self.status),
        )
        wanted = [compare(name, value) for name, compare, value in conditions if value is not None]
        if self.study and self.study.startswith("sha256:"):
            # A picture without UIDs is a study of its own, named by its content.
            wanted += [c.sha256 == self.study.removeprefix("sha256:"), c.study_uid.is_(None)]
        elif self.study is not None:
            wanted.append(c.study_uid == self.study)
        return wanted


@dataclass(frozen=True, slots=True)
class StudyFilter:
    """Which studies; ``None`` asks for any. ``since`` and ``until`` are compared with ``last_result_at``."""

    prediction: str | None = None
    since: str | None = None
    until: str | None = None
    patient: str | None = None
    min_probability: float | None = None

    def statement(self) -> Select[Any]:
        """The query, in no order."""
        c = STUDIES.c
        conditions = (
            (c.prediction, operator.eq, self.prediction),
            (c.last_result_at, operator.ge, self.since),
            (c.last_result_at, operator.lt, self.until),
            (c.patient_id, operator.eq, self.patient),
            (c.max_probability, operator.ge, self.min_probability),
        )
        return select(STUDIES).where(
            *[compare(name, value) for name, compare, value in conditions if value is not None]
        )


def results(database: Database, wanted: Filter) -> Iterator[dict[str, Any]]:
    """Stream the matching rows as dictionaries with the view's columns, newest first."""
    with database.reading() as connection:
        for row in connection.execution_options(yield_per=500).execute(wanted.statement()):
            yield dict(row._mapping)


def page(database: Database, wanted: Filter, after: str | None = None, limit: int = 100) -> Page:
    """A page of results, newest first. What arrives between two pages is in neither.

    Parameters
    ----------
    wanted : Filter
        Its own limit does not count.
    after : str, optional
        The ``next_cursor`` of the page before.

    Raises
    ------
    InvalidCursor
        If ``after`` is none that was given out for this filter.
    """
    question = repr(replace(wanted, limit=None))
    position = None if after is None else cursors.decode(question, after, (str, int))
    statement = replace(wanted, limit=limit + 1).statement(position)
    with database.reading() as connection:
        rows = [dict(row) for row in connection.execute(statement).mappings()]
    return paging.cut(rows, limit, question, _NEWEST)


def one(database: Database, file_id: int) -> dict[str, Any] | None:
    """The row with this id."""
    if not 0 <= file_id < 2**63:
        return None
    with database.reading() as connection:
        row = connection.execute(select(RESULTS).where(RESULTS.c.id == file_id)).mappings().first()
    return dict(row) if row else None


def study(database: Database, uid: str) -> dict[str, Any] | None:
    """The study's row and, as ``results``, those of its files, newest first: at most 1,000."""
    with database.reading() as connection:
        row = connection.execute(select(STUDIES).where(STUDIES.c.study_uid == uid)).mappings().first()
        if row is None:
            return None
        files = connection.execute(Filter(study=uid, limit=_MOST_OF_A_STUDY).statement()).mappings()
        return dict(row) | {"results": [dict(file) for file in files]}


def studies(database: Database, wanted: StudyFilter, after: str | None = None, limit: int = 100) -> Page:
    """A page of studies, the most urgent first.

    Fractured ones, then the others, then those with nothing classified; in each part the highest probability first,
    then the latest result. A study that moves up between two pages is in neither.

    Raises
    ------
    InvalidCursor
        If ``after`` is none that was given out for this filter.
    """
    question = repr(wanted)
    position = paging.urgency(question, after)
    with database.reading() as connection:
        rows = paging.most_urgent(
            connection,
            wanted.statement(),
            prediction=wanted.prediction,
            position=position,
            limit=limit + 1,
        )
    return paging.cut(rows, limit, question, paging.URGENCY)
