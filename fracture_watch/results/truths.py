"""What images truly show, from a file of labels: recorded beside what readers say, and counted like it."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, insert, or_, select

from fracture_watch.labels import SHA256, UID, Truth
from fracture_watch.records import Label, Status
from fracture_watch.results.database import Database
from fracture_watch.results.schema import FileRow, VerdictRow, of_watcher
from fracture_watch.results.verdicts import Verdict, latest_of
from fracture_watch.times import now

_AT_ONCE = 500  # lines of a transaction, during which nothing else is recorded


@dataclass(frozen=True, slots=True)
class Imported:
    """How many lines were read; of these ``recorded`` is new, ``known`` was said before, ``missing`` has no result."""

    lines: int
    recorded: int
    known: int
    missing: Sequence[Truth]


def import_truths(
    database: Database,
    truths: Sequence[Truth],
    source: str,
    names: Callable[[str], Collection[str]],
    watcher: str | None = None,
) -> Imported:
    """Record what a file of labels says as verdicts on the latest prediction of each image it names.

    Parameters
    ----------
    database : Database
    truths : sequence of Truth
    source : str
        What the file is called.
    names : function
        All that rows may hold for a path.
    watcher : str, optional
        Whose paths they are, where several watchers have the database.
    """
    recorded, missing = 0, []
    for start in range(0, len(truths), _AT_ONCE):
        found: dict[int, Verdict] = {}
        with database.writing() as connection:
            for truth in truths[start : start + _AT_ONCE]:
                row = _latest_result(connection, _names(truth, names, watcher))
                if row is None:
                    missing.append(truth)
                    continue
                agrees = truth.fractured == (row[1] == Label.FRACTURED)
                found[row[0]] = Verdict.AGREE if agrees else Verdict.DISAGREE
            said = latest_of(connection, found)
            news = [
                {"file_id": number, "at": now(), "verdict": str(verdict), "source": source}
                for number, verdict in found.items()
                if said.get(number) != verdict
            ]
            if news:
                connection.execute(insert(VerdictRow), news)
        recorded += len(news)
    return Imported(len(truths), recorded, len(truths) - recorded - len(missing), missing)


def _latest_result(connection: Connection, named: ColumnElement[bool]) -> tuple[int, str | None] | None:
    """Of the contents of that name: a duplicate has no prediction of its own."""
    contents = select(FileRow.sha256).where(named, FileRow.sha256.is_not(None))
    results = select(FileRow.id, FileRow.prediction).where(
        FileRow.status == str(Status.CLASSIFIED), FileRow.sha256.in_(contents)
    )
    row = connection.execute(results.order_by(FileRow.id.desc()).limit(1)).first()
    return None if row is None else (row[0], row[1])


def _names(truth: Truth, names: Callable[[str], Collection[str]], watcher: str | None) -> ColumnElement[bool]:
    if truth.key == UID:
        return FileRow.sop_instance_uid == truth.name
    if truth.key == SHA256:
        return FileRow.sha256 == truth.name.lower()
    places = list(names(truth.name))
    return and_(or_(FileRow.source_path.in_(places), FileRow.filed_path.in_(places)), of_watcher(watcher))
