"""What images truly show, from a file of labels: recorded beside what readers say, and counted like it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import ColumnElement, Connection, insert, or_, select

from fracture_watch.labels import SHA256, UID, Truth
from fracture_watch.records import Label, Status, now
from fracture_watch.results.database import Database
from fracture_watch.results.rows import as_text
from fracture_watch.results.schema import FileRow, VerdictRow
from fracture_watch.results.verdicts import Verdict, latest

_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Imported:
    """How many lines were read; of these ``recorded`` is new, ``known`` was said before, ``missing`` has no result."""

    lines: int
    recorded: int
    known: int
    missing: Sequence[Truth]


def import_truths(database: Database, truths: Sequence[Truth], source: str, inbox: Path) -> Imported:
    """Record what a file of labels says as verdicts on the latest prediction of each image it names.

    Parameters
    ----------
    database : Database
    truths : sequence of Truth
    source : str
        The name of the file.
    inbox : Path
        What relative paths are relative to.
    """
    found: dict[int, Verdict] = {}
    missing: list[Truth] = []
    with database.reading() as connection:
        for truth in truths:
            row = _latest_result(connection, truth, inbox)
            if row is None:
                missing.append(truth)
            else:
                number, prediction = row
                agrees = truth.fractured == (prediction == Label.FRACTURED)
                found[number] = Verdict.AGREE if agrees else Verdict.DISAGREE
    known = {number for number, verdict in _said(database, found).items() if found[number] == verdict}
    news = [
        {"file_id": number, "at": now(), "verdict": str(verdict), "source": source}
        for number, verdict in found.items()
        if number not in known
    ]
    if news:
        with database.writing() as connection:
            connection.execute(insert(VerdictRow), news)
    return Imported(len(truths), len(news), len(truths) - len(news) - len(missing), missing)


def _latest_result(connection: Connection, truth: Truth, inbox: Path) -> tuple[int, str | None] | None:
    wanted = select(FileRow.id, FileRow.prediction).where(
        FileRow.status == str(Status.CLASSIFIED), _names(truth, inbox)
    )
    row = connection.execute(wanted.order_by(FileRow.id.desc()).limit(1)).first()
    return None if row is None else (row[0], row[1])


def _names(truth: Truth, inbox: Path) -> ColumnElement[bool]:
    if truth.key == UID:
        return FileRow.sop_instance_uid == truth.name
    if truth.key == SHA256:
        return FileRow.sha256 == truth.name.lower()
    place = as_text(inbox / truth.name)  # an absolute path stays as it is
    return or_(FileRow.source_path == place, FileRow.filed_path == place)


def _said(database: Database, numbers: Collection[int]) -> dict[int, Verdict]:
    said: dict[int, Verdict] = {}
    asked = list(numbers)
    for start in range(0, len(asked), _AT_ONCE):
        said |= latest(database, asked[start : start + _AT_ONCE])
    return said
