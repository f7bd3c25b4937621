"""The tables. People query the views ``results`` and ``studies`` (docs/contract.md); the migrations make both."""

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, ForeignKey, Index, func, or_, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fracture_watch.results.types import NUMBER, TEXT


def _where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


# A file that came to nothing and is still where it was put, or still growing: somebody may want to do something.
PROBLEM = "status IN ('failed', 'rejected', 'stalled') AND (status = 'stalled' OR filed_path IS NOT NULL)"


STARTS = 256  # characters of a path that PostgreSQL has in order
START = f"substr(source_path, 1, {STARTS})"


class Base(DeclarativeBase):
    """Everything that the migrations create. Timestamps are UTC ISO 8601 text on every database."""

    type_annotation_map = {str: TEXT}  # noqa: RUF012  SQLAlchemy's own idiom


class ModelRow(Base):
    """A model that was in force at some time."""

    __tablename__ = "model"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    version: Mapped[str]
    first_used_at: Mapped[str]


class FileRow(Base):
    """One received file and what came of it."""

    __tablename__ = "file"

    id: Mapped[int] = mapped_column(NUMBER, primary_key=True)
    received_at: Mapped[str]
    completed_at: Mapped[str]
    source_path: Mapped[str]
    source_size: Mapped[int] = mapped_column(BigInteger)
    source_modified_ns: Mapped[int] = mapped_column(BigInteger)
    source_inode: Mapped[int] = mapped_column(BigInteger)
    filed_path: Mapped[str | None]
    filed: Mapped[bool] = mapped_column(comment="whether the file is where filed_path says")
    status: Mapped[str]
    code: Mapped[str | None]
    detail: Mapped[str | None]
    notes: Mapped[str | None] = mapped_column(comment="JSON array")
    sha256: Mapped[str | None] = mapped_column(index=True)
    duplicate_of: Mapped[int | None] = mapped_column(NUMBER, ForeignKey("file.id"))
    patient_id: Mapped[str | None]
    study_uid: Mapped[str | None]
    study_key: Mapped[str | None] = mapped_column(
        ForeignKey("study.study_uid"), index=True, comment="study_uid, or sha256:... for a file without one"
    )
    series_uid: Mapped[str | None]
    sop_instance_uid: Mapped[str | None] = mapped_column(index=True)
    accession_number: Mapped[str | None]
    modality: Mapped[str | None]
    body_part: Mapped[str | None]
    laterality: Mapped[str | None]
    view_position: Mapped[str | None]
    study_date: Mapped[str | None]
    rows: Mapped[int | None]
    columns: Mapped[int | None]
    frame: Mapped[int | None]
    prediction: Mapped[str | None]
    probability: Mapped[float | None]
    threshold: Mapped[float | None]
    model_id: Mapped[str | None] = mapped_column(ForeignKey("model.id"))
    heatmap_path: Mapped[str | None]
    manufacturer: Mapped[str | None]
    watcher: Mapped[str | None] = mapped_column(
        comment="whose inbox it came to, where several watchers have one database: its paths are of that machine"
    )

    __table_args__ = (
        # One result per content and model, whatever crashes or races: the database itself refuses a second.
        Index(
            "one_result_per_content_and_model",
            "sha256",
            "model_id",
            unique=True,
            **_where("status = 'classified'"),
        ),
        # Paths may be longer than what a B-tree of PostgreSQL takes, so that it has their hashes.
        Index("file_source", "source_path", postgresql_using="hash"),
        Index("file_source_start", text(START)).ddl_if(dialect="postgresql"),
        Index("file_filed", "filed_path", postgresql_using="hash"),
        Index("file_study_uid", "study_uid"),
        Index("file_series_uid", "series_uid"),
        Index("file_accession_number", "accession_number"),
        Index("file_duplicate_of", "duplicate_of"),
        # The documented filters, newest first: each index ends with that order, so that a page is read off its end.
        # prediction and probability leave out what was not classified; their last column lets a minimal probability
        # be judged in the index. A study's files are few: they are sorted.
        Index("file_completed", "completed_at", "id", "probability"),
        Index("file_patient", "patient_id", "completed_at", "id"),
        Index("file_status", "status", "completed_at", "id"),
        Index("file_prediction", "prediction", "completed_at", "id", "probability", **_where("prediction IS NOT NULL")),
        Index("file_probability", "probability", "completed_at", **_where("probability IS NOT NULL")),
        # The worklist's filters, and what needs attention.
        Index("file_modality", "modality", "study_key", **_where("modality IS NOT NULL")),
        Index("file_body_part", "body_part", "study_key", **_where("body_part IS NOT NULL")),
        Index("file_problem", "status", "completed_at", "id", **_where(PROBLEM)),
    )


def has_status(*statuses: str) -> ColumnElement[bool]:
    """One of these, beside a condition that finds the rows: so written that no planner takes the index of status.

    A million rows share a status; where statistics are missing, SQLite may take its index before that of a UID.
    """
    return func.coalesce(FileRow.status, "").in_([str(status) for status in statuses])


def of_watcher(watcher: str | None) -> ColumnElement[bool]:
    """Rows whose paths mean something here: those of this inbox, and those that name none."""
    unnamed = FileRow.watcher.is_(None)
    return unnamed if watcher is None else or_(unnamed, FileRow.watcher == watcher)


class StudyRow(Base):
    """One study, kept up to date in the transaction of each of its results."""

    __tablename__ = "study"

    study_uid: Mapped[str] = mapped_column(primary_key=True)
    patient_id: Mapped[str | None]
    study_date: Mapped[str | None]
    files: Mapped[int]
    classified: Mapped[int]
    fractured: Mapped[int]
    max_probability: Mapped[float | None]
    prediction: Mapped[str | None]
    last_result_at: Mapped[str] = mapped_column(index=True)

    __table_args__ = (
        Index("study_worklist", "prediction", "max_probability", "last_result_at", "study_uid"),
        Index("study_patient", "patient_id"),
    )


class EventRow(Base):
    """What happened to a file beside its result; ``trace`` tells it in order."""

    __tablename__ = "event"

    id: Mapped[int] = mapped_column(NUMBER, primary_key=True)
    at: Mapped[str]
    file_id: Mapped[int | None] = mapped_column(NUMBER, ForeignKey("file.id", ondelete="CASCADE"), index=True)
    source_path: Mapped[str]
    what: Mapped[str]
    detail: Mapped[str]

    __table_args__ = (Index("ix_event_source_path", "source_path", postgresql_using="hash"),)


class OutboxRow(Base):
    """What a destination is told, at least once; ``delivery/outbox.py`` sends it."""

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(NUMBER, primary_key=True)
    delivery_id: Mapped[str] = mapped_column(unique=True, comment="the same at every attempt")
    kind: Mapped[str] = mapped_column(comment="result, study, sr or sc")
    destination: Mapped[str] = mapped_column(comment="webhook:NAME or dicom:NAME")
    file_id: Mapped[int] = mapped_column(
        NUMBER,
        ForeignKey("file.id", ondelete="CASCADE"),
        index=True,
        comment="the result it is about, or the latest of the study; what is sent is built when it is sent",
    )
    study_uid: Mapped[str | None] = mapped_column(
        ForeignKey("study.study_uid", ondelete="CASCADE"),
        index=True,
        comment="the study it is about, as the view studies names it; null for a result",
    )
    created_at: Mapped[str]
    attempts: Mapped[int]
    next_attempt_at: Mapped[str | None] = mapped_column(comment="null: delivered or given up")
    delivered_at: Mapped[str | None]
    last_error: Mapped[str | None]

    __table_args__ = (
        # Delivered rows stay, so what is asked every second looks at the others only.
        Index(
            "outbox_waiting",
            "destination",
            "next_attempt_at",
            sqlite_where=text("next_attempt_at IS NOT NULL"),
            postgresql_where=text("next_attempt_at IS NOT NULL"),
        ),
        Index(
            "outbox_given_up",
            "destination",
            sqlite_where=text("next_attempt_at IS NULL AND delivered_at IS NULL"),
            postgresql_where=text("next_attempt_at IS NULL AND delivered_at IS NULL"),
        ),
    )


class VerdictRow(Base):
    """What a reader, or an imported file of labels, said of a result; rows are only added, the latest counts."""

    __tablename__ = "verdict"

    id: Mapped[int] = mapped_column(NUMBER, primary_key=True)
    at: Mapped[str]
    file_id: Mapped[int] = mapped_column(NUMBER, ForeignKey("file.id", ondelete="CASCADE"), index=True)
    verdict: Mapped[str] = mapped_column(comment="agree, disagree or unsure; the latest of a file counts")
    source: Mapped[str | None] = mapped_column(comment="the imported file of labels that said it; null: a reader")
