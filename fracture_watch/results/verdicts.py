"""What readers say of results: appended, never changed; what the pictures show, as far as readers told."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Select, func, insert, select

from fracture_watch.errors import WrongUse
from fracture_watch.records import Label, Status
from fracture_watch.results.database import Database
from fracture_watch.results.schema import FileRow, ModelRow, VerdictRow
from fracture_watch.times import now

LABEL_COLUMNS = "path label group body_part laterality view_position manufacturer sop_instance_uid said_at".split()
_OTHER = {str(Label.FRACTURED): Label.NOT_FRACTURED, str(Label.NOT_FRACTURED): Label.FRACTURED}


class Verdict(StrEnum):
    """What a reader says of a prediction."""

    AGREE = "agree"
    DISAGREE = "disagree"
    UNSURE = "unsure"  # takes back what was said before


@dataclass(frozen=True, slots=True)
class Given:
    """A verdict, when it was given (UTC, ISO 8601), and the file of labels that it came from; none if by a reader."""

    verdict: Verdict
    at: str
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """A model's answer to a picture of which a reader told the truth."""

    fractured: bool
    predicted: bool
    probability: float
    model: str
    model_id: str
    body_part: str | None


def give(database: Database, file_id: int, verdict: Verdict) -> Given:
    """Append a verdict.

    Raises
    ------
    WrongUse
        If there is no prediction to have one of.
    """
    given = Given(verdict, now())
    with database.writing() as connection:
        status = connection.scalar(select(FileRow.status).where(FileRow.id == file_id))
        if status != str(Status.CLASSIFIED):
            raise WrongUse(
                f"result {file_id} has no prediction to agree or disagree with; it is {status or 'not there'}"
            )
        connection.execute(insert(VerdictRow).values(file_id=file_id, at=given.at, verdict=str(verdict)))
    return given


def history(database: Database, file_id: int) -> list[Given]:
    """All that was said of a result, oldest first."""
    columns = VerdictRow.verdict, VerdictRow.at, VerdictRow.source
    said = select(*columns).where(VerdictRow.file_id == file_id).order_by(VerdictRow.id)
    with database.reading() as connection:
        return [Given(Verdict(verdict), at, source) for verdict, at, source in connection.execute(said)]


def latest(database: Database, file_ids: Collection[int]) -> dict[int, Verdict]:
    """The verdict in force of each result that has one."""
    with database.reading() as connection:
        return latest_of(connection, file_ids)


def latest_of(connection: Connection, file_ids: Collection[int]) -> dict[int, Verdict]:
    """The same, in a transaction that is under way."""
    last = select(func.max(VerdictRow.id)).where(VerdictRow.file_id.in_(list(file_ids))).group_by(VerdictRow.file_id)
    said = select(VerdictRow.file_id, VerdictRow.verdict).where(VerdictRow.id.in_(last))
    return {file_id: Verdict(verdict) for file_id, verdict in connection.execute(said)}


def readings(database: Database) -> list[Reading]:
    """Every model's answer to every content that has a verdict: what one model was told is true for all."""
    truth = _truths().subquery()
    answers = (
        select(
            truth.c.verdict,
            truth.c.prediction.label("said_of"),
            FileRow.prediction,
            FileRow.probability,
            FileRow.body_part,
            ModelRow.id,
            ModelRow.name,
            ModelRow.version,
        )
        .join(FileRow, FileRow.sha256 == truth.c.sha256)
        .join(ModelRow, ModelRow.id == FileRow.model_id)
        .where(FileRow.status == str(Status.CLASSIFIED))
    )
    with database.reading() as connection:
        return [
            Reading(
                _label(row) == Label.FRACTURED,
                row["prediction"] == Label.FRACTURED,
                row["probability"],
                f"{row['name']} {row['version']}",
                row["id"],
                row["body_part"],
            )
            for row in connection.execute(answers).mappings()
        ]


def labels(database: Database) -> list[dict[str, Any]]:
    """What readers told, as ``model evaluate`` takes it: a row for each content whose file is kept."""
    with database.reading() as connection:
        return [
            {
                "path": row["filed_path"],
                "label": str(_label(row)),
                "group": row["patient_id"] or row["study_key"],
                "said_at": row["at"],
            }
            | {name: row[name] for name in LABEL_COLUMNS[3:-1]}
            for row in connection.execute(_truths()).mappings()
            if row["filed_path"]
        ]


def _truths() -> Select[Any]:
    """The latest verdict on each content, with the result that it was said of; being unsure is no truth."""
    place = func.row_number().over(partition_by=FileRow.sha256, order_by=VerdictRow.id.desc())
    ranked = (
        select(FileRow.__table__, VerdictRow.verdict, VerdictRow.at, VerdictRow.id.label("said"), place.label("place"))
        .join(FileRow, FileRow.id == VerdictRow.file_id)
        .subquery()
    )
    return select(ranked).where(ranked.c.place == 1, ranked.c.verdict != str(Verdict.UNSURE)).order_by(ranked.c.said)


def _label(row: Any) -> Label:
    said_of = row["said_of"] if "said_of" in row else row["prediction"]
    return Label(said_of) if row["verdict"] == str(Verdict.AGREE) else _OTHER[said_of]
