"""The worklist: studies in the order in which somebody should look at them, what stands for each, and what failed."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    exists,
    func,
    literal_column,
    or_,
    select,
    text,
    union_all,
)
from sqlalchemy.orm import InstrumentedAttribute

from fracture_watch.records import Status
from fracture_watch.results import cursors, paging
from fracture_watch.results.database import Database
from fracture_watch.results.paging import Page
from fracture_watch.results.schema import PROBLEM, START, STARTS, FileRow, ModelRow, StudyRow
from fracture_watch.results.types import TEXT

PROBLEMS = (Status.FAILED, Status.REJECTED, Status.STALLED)
_STUDY, _FILE = StudyRow.__table__, FileRow.__table__
_START = literal_column(START, TEXT)
_RARE = 20_000  # files with a value, up to which their studies are looked up first; else it is met soon on the way
_FEW = 5000  # studies of some days, up to which they are looked up and sorted
_MOST_CHOICES = 100


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which studies; ``None`` asks for any.

    ``since`` and ``until`` are ISO 8601, compared with ``last_result_at``. A study has a modality or a body part if
    one of its files has. ``text`` is the beginning of a PatientID, an accession number, a Study Instance UID, or a
    path below ``inbox``; ``patient`` is what rows hold for it where PatientIDs are hashed, and ``names`` what they hold
    where the others are.
    """

    prediction: str | None = None
    modality: str | None = None
    body_part: str | None = None
    since: str | None = None
    until: str | None = None
    text: str | None = None
    patient: str | None = None
    inbox: str = ""
    names: tuple[str, ...] = ()


def page(database: Database, wanted: Wanted, after: str | None = None, limit: int = 50) -> Page:
    """A page of studies, the most urgent first: fractured, then the others, then those with nothing classified.

    In each part the highest probability comes first, then the latest result.

    Raises
    ------
    InvalidCursor
        If ``after`` is none that was given out for this question.
    """
    position = paging.urgency(repr(wanted), after)
    with database.reading() as connection:
        rows = _walk(connection, wanted, position, limit + 1)
    return paging.cut(rows, limit, repr(wanted), paging.URGENCY)


def beside(database: Database, wanted: Wanted, study: dict[str, Any]) -> tuple[str | None, str | None]:
    """The studies before and after one in the worklist, by ``study_uid``."""
    position = [study[name] for name in paging.URGENCY]
    with database.reading() as connection:
        before = _walk(connection, wanted, position, 1, forwards=False)
        after = _walk(connection, wanted, position, 1)
    return before[0]["study_uid"] if before else None, after[0]["study_uid"] if after else None


def faces(database: Database, keys: Collection[str], model_id: str) -> dict[str, dict[str, Any]]:
    """The file that stands for each study: of the model in force the highest probability, else the latest."""
    place = func.row_number().over(
        partition_by=FileRow.study_key,
        order_by=(
            (FileRow.model_id == model_id).desc().nulls_last(),
            FileRow.probability.desc().nulls_last(),
            FileRow.id.desc(),
        ),
    )
    ranked = (
        select(FileRow.__table__, place.label("place"))
        .where(FileRow.study_key.in_(list(keys)), FileRow.status != str(Status.DUPLICATE))
        .subquery()
    )
    names = ModelRow.name.label("model_name"), ModelRow.version.label("model_version")
    first = select(ranked, *names).outerjoin(ModelRow, ModelRow.id == ranked.c.model_id).where(ranked.c.place == 1)
    with database.reading() as connection:
        return {row["study_key"]: dict(row) for row in connection.execute(first).mappings()}


def counts(database: Database) -> dict[str, int]:
    """How many studies are fractured, not fractured and without a result; how many files are a problem, by status."""
    studies = select(_STUDY.c.prediction, func.count()).group_by(_STUDY.c.prediction)
    problems = select(FileRow.status, func.count()).where(text(PROBLEM)).group_by(FileRow.status)
    with database.reading() as connection:
        found = {name or "unclassified": count for name, count in connection.execute(studies)}
        found |= {str(status): count for status, count in connection.execute(problems)}
    names = [str(name or "unclassified") for name in (*paging.PARTS, *PROBLEMS)]
    return {name: found.get(name, 0) for name in names}


def problems(database: Database, status: Status, after: str | None = None, limit: int = 50) -> Page:
    """A page of files that came to nothing, newest first.

    Raises
    ------
    InvalidCursor
        If ``after`` is none that was given out for this status.
    """
    newest = _FILE.c.completed_at, _FILE.c.id
    statement = select(_FILE).where(text(PROBLEM), _FILE.c.status == str(status))
    if after is not None:
        statement = statement.where(paging.past(newest, cursors.decode(str(status), after, (str, int))))
    with database.reading() as connection:
        found = connection.execute(statement.order_by(*[name.desc() for name in newest]).limit(limit + 1)).mappings()
        rows = [dict(row) for row in found]
    return paging.cut(rows, limit, str(status), ("completed_at", "id"))


def choices(database: Database, name: str) -> list[str]:
    """The values of ``modality`` or ``body_part`` that there are, jumping from one to the next in their index."""
    chosen = FileRow.__table__.c[name]
    first = select(func.min(chosen).label("value")).where(chosen.is_not(None)).cte("there", recursive=True)
    following = select(func.min(chosen)).where(chosen > first.c.value, chosen.is_not(None)).scalar_subquery()
    there = first.union_all(select(following).where(first.c.value.is_not(None)))
    with database.reading() as connection:
        found = connection.scalars(select(there.c.value).where(there.c.value.is_not(None)).limit(_MOST_CHOICES))
        return [str(value) for value in found]


def _walk(
    connection: Connection, wanted: Wanted, position: cursors.Position | None, limit: int, *, forwards: bool = True
) -> list[dict[str, Any]]:
    return paging.most_urgent(
        connection,
        _narrowed(connection, wanted),
        prediction=wanted.prediction,
        position=position,
        limit=limit,
        forwards=forwards,
    )


def _narrowed(connection: Connection, wanted: Wanted) -> Select[Any]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.since or wanted.until:
        conditions.append(_within(connection, wanted.since, wanted.until))
    for name, value in ((FileRow.modality, wanted.modality), (FileRow.body_part, wanted.body_part)):
        if value:
            conditions.append(_with_files(connection, name, value))
    if wanted.text:
        conditions.append(_found(connection, _meant(wanted, wanted.text)))
    return select(_STUDY).where(*conditions)


def _within(connection: Connection, since: str | None, until: str | None) -> ColumnElement[bool]:
    """That a study's latest result lies there. A few such studies are looked up; of many, some are met soon."""
    latest = _STUDY.alias("dated").c

    def within(at: ColumnElement[str]) -> ColumnElement[bool]:
        return and_(*([at >= since] if since else []), *([at < until] if until else []))

    if _are_at_most(_FEW, connection, within(latest.last_result_at)):
        return _STUDY.c.study_uid.in_(select(latest.study_uid).where(within(latest.last_result_at)))
    return within(_STUDY.c.last_result_at)


def _with_files(connection: Connection, name: InstrumentedAttribute[str | None], value: str) -> ColumnElement[bool]:
    """That a study has such a file. Of a rare value the studies are looked up; a common one is met on the way."""
    having = select(FileRow.study_key).where(name == value, FileRow.study_key.is_not(None))
    if _are_at_most(_RARE, connection, name == value):
        return _STUDY.c.study_uid.in_(having)
    return exists().where(name == value, FileRow.study_key == _STUDY.c.study_uid)


def _meant(wanted: Wanted, typed: str) -> list[tuple[ColumnElement[Any], ColumnElement[bool]]]:
    """What a text may mean: conditions, each with the column that has the study's key."""
    study, file, below = _STUDY.c.study_uid, FileRow.study_key, f"{wanted.inbox}/"
    means: list[tuple[Any, ColumnElement[bool]]] = [
        (study, _STUDY.c.patient_id == (typed if wanted.patient is None else wanted.patient)),
        (study, _spelled(_STUDY.c.patient_id, typed)),
        (study, _spelled(study, typed)),
        (file, _spelled(FileRow.accession_number, typed)),
        # The start of a path is the same for PostgreSQL's index.
        (file, _spelled(FileRow.source_path, typed, below) & _spelled(_START, typed, below, STARTS)),
    ]
    if wanted.names:
        hashed = (study, study), (file, FileRow.accession_number), (file, FileRow.source_path)
        means += [(key, name.in_(wanted.names)) for key, name in hashed]
    return means


def _found(connection: Connection, means: list[tuple[Any, ColumnElement[bool]]]) -> ColumnElement[bool]:
    """That a study is one that a text may mean. What few begin with is looked up; what many do is met on the way."""
    study, file = _STUDY.c.study_uid, FileRow.study_key
    few, ways = [], []
    for key, meant in means:
        if _are_at_most(_RARE, connection, meant):
            found = select(key.label("key")).where(meant, key.is_not(None)).subquery()
            few.append(select(found.c.key))
        else:
            ways.append(meant if key is study else exists().where(file == study, meant))
    if few:
        ways.append(study.in_(select(union_all(*few).subquery().c.key)))
    return or_(*ways)


def _are_at_most(most: int, connection: Connection, condition: ColumnElement[bool]) -> bool:
    """Whether no more rows than these meet a condition; it counts no further."""
    some = select(literal_column("1")).where(condition).limit(most + 1).subquery()
    return (connection.scalar(select(func.count()).select_from(some)) or 0) <= most


def _spelled(name: Any, start: str, before: str = "", longest: int | None = None) -> ColumnElement[bool]:
    """That a text begins so, in capitals, in small letters, or as it was typed."""
    spellings = sorted({start, start.upper(), start.lower()})
    return or_(*[_begins(name, (before + spelling)[:longest]) for spelling in spellings])


def _begins(name: Any, start: str) -> ColumnElement[bool]:
    """A range, which an index answers; the last character of Unicode ends it."""
    return and_(name >= start, name < f"{start}\U0010ffff")
