"""One row a study, kept in the transaction of each of its results."""

from collections.abc import Collection
from typing import Any, cast

from sqlalchemy import Connection, Table, case, distinct, func, select, update

from fracture_watch.records import Label, Status
from fracture_watch.results.database import chunks
from fracture_watch.results.schema import FileRow, StudyRow
from fracture_watch.results.types import insert_or_ignore

_COUNTED = "files classified fractured max_probability last_result_at".split()


def ensure_study(connection: Connection, row: dict[str, Any]) -> None:
    """Make the study of a file's row, unless it is there."""
    empty = {"files": 0, "classified": 0, "fractured": 0, "last_result_at": row["completed_at"]}
    identity = {"study_uid": row["study_key"], "patient_id": row["patient_id"], "study_date": row["study_date"]}
    connection.execute(insert_or_ignore(cast(Table, StudyRow.__table__), connection.dialect), identity | empty)


def count_studies(connection: Connection, model_id: str, keys: Collection[str] | None) -> None:
    """Count studies anew, ``None`` for all: every content once, predictions of the model that model only."""
    current = FileRow.model_id == model_id
    classified = (FileRow.status == str(Status.CLASSIFIED)) & current
    fractured = classified & (FileRow.prediction == str(Label.FRACTURED))
    counted = (
        select(
            FileRow.study_key,
            func.count(distinct(func.coalesce(FileRow.sha256, FileRow.source_path))).label("files"),
            func.count().filter(classified).label("classified"),
            func.count().filter(fractured).label("fractured"),
            func.max(FileRow.probability).filter(classified).label("max_probability"),
            func.max(FileRow.completed_at).label("last_result_at"),
        )
        .where(FileRow.study_key.is_not(None), FileRow.status != str(Status.DUPLICATE))
        .group_by(FileRow.study_key)
    )
    for chunk in [None] if keys is None else chunks(list(keys)):
        these = (counted if chunk is None else counted.where(FileRow.study_key.in_(chunk))).subquery()
        label = case((these.c.fractured > 0, str(Label.FRACTURED)), else_=str(Label.NOT_FRACTURED))
        values = {name: these.c[name] for name in _COUNTED} | {
            "prediction": case((these.c.classified > 0, label), else_=None)
        }
        connection.execute(update(StudyRow).where(StudyRow.study_uid == these.c.study_key).values(values))
