"""Outcomes -> rows. Outcome, study and model are written in one transaction."""

import json
import os
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, distinct, func, insert, select, update
from sqlalchemy.sql import delete

from fracture_watch.records import (
    Classified,
    Duplicate,
    Facts,
    Failed,
    Label,
    ModelFacts,
    Outcome,
    Prediction,
    Recorded,
    Rejected,
    SourceFile,
    Stalled,
    Status,
    now,
)
from fracture_watch.results.database import Database
from fracture_watch.results.schema import FileRow, ModelRow, StudyRow

_CHUNK = 500  # SQLite bounds the number of parameters of one statement
_FACTS = (
    "patient_id study_uid series_uid sop_instance_uid accession_number modality body_part laterality view_position "
    "study_date rows columns"
).split()
_NOT_CLASSIFIED = (Status.FAILED, Status.REJECTED)


class Store:
    """Writes results, and answers what has been recorded.

    Parameters
    ----------
    database : Database
    model : ModelFacts
        The model in force.
    """

    def __init__(self, database: Database, model: ModelFacts) -> None:
        self._database = database
        self._model = model

    def known(self, digests: Collection[str]) -> set[str]:
        """Which of these contents the model in force has classified."""
        with self._database.reading() as connection:
            return set(self._classified(connection, digests))

    def unchanged(self, sources: Sequence[SourceFile]) -> set[SourceFile]:
        """Which of these files, by path, size, mtime and inode, the model in force has dealt with where they are."""
        found: set[SourceFile] = set()
        columns = FileRow.source_path, FileRow.source_size, FileRow.source_modified_ns, FileRow.source_inode
        by_key = {(as_text(s.path), s.size, s.modified_ns, s.inode): s for s in sources}
        with self._database.reading() as connection:
            for chunk in _chunks([key[0] for key in by_key]):
                rows = connection.execute(
                    select(*columns).where(
                        FileRow.source_path.in_(chunk),
                        FileRow.filed_path == FileRow.source_path,
                        FileRow.model_id == self._model.id,
                    )
                )
                found |= {by_key[key] for key in map(tuple, rows) if key in by_key}
        return found

    def record(self, entries: Sequence[tuple[SourceFile, Outcome, Path | None]]) -> list[Recorded]:
        """Commit outcomes with the place where each file will be filed.

        A content that was classified meanwhile, by this process or another, becomes a duplicate.

        Raises
        ------
        DatabaseUnavailable
            Nothing was committed.
        """
        with self._database.writing() as connection:
            self._name_model(connection)
            originals = self._classified(connection, {o.sha256 for _, o, _ in entries if o.sha256})
            recorded: list[Recorded] = []
            studies: set[str] = set()
            for source, proposed, filed_path in entries:
                outcome = _settled(proposed, originals)
                row = self._row(source, outcome, filed_path, originals)
                if row["study_key"]:
                    studies.add(row["study_key"])
                    _ensure_study(connection, row)
                _forget_stalled(connection, row)
                file_id = connection.execute(insert(FileRow).values(row).returning(FileRow.id)).scalar_one()
                if isinstance(outcome, Classified):
                    originals.setdefault(outcome.sha256, file_id)
                attempts = _attempts(connection, row) if isinstance(outcome, Failed | Rejected) else 1
                recorded.append(Recorded(file_id, source, outcome, filed_path, attempts))
            for key in studies:
                self._update_study(connection, key)
        return recorded

    def record_stalled(self, source: SourceFile, stalled: Stalled) -> None:
        """Make a file that keeps growing visible; its row gives way to its outcome."""
        row = _source_row(source) | {"filed": True, "status": str(stalled.status), "detail": stalled.detail}
        with self._database.writing() as connection:
            _forget_stalled(connection, row)
            connection.execute(insert(FileRow).values(row))

    def filed(self, places: Sequence[tuple[Recorded, Path | None]]) -> None:
        """Note that files are where they now are."""
        with self._database.writing() as connection:
            for recorded, path in places:
                values = {"filed": True, "filed_path": path and as_text(path)}
                connection.execute(update(FileRow).where(FileRow.id == recorded.id).values(values))

    def unfiled(self, inbox: Path) -> list[Recorded]:
        """What a crash or a fault left committed but not put in its place, oldest first."""
        with self._database.reading() as connection:
            rows = connection.execute(
                select(FileRow.__table__, ModelRow.name, ModelRow.version)
                .outerjoin(ModelRow, ModelRow.id == FileRow.model_id)
                .where(
                    FileRow.filed.is_(False), FileRow.source_path.startswith(as_text(inbox) + os.sep, autoescape=True)
                )
                .order_by(FileRow.id)
            )
            return [_recorded(row._mapping, _attempts(connection, row._mapping)) for row in rows.all()]

    def ping(self) -> None:
        """Raise ``DatabaseUnavailable`` if the database cannot be written."""
        with self._database.writing():
            pass

    def _classified(self, connection: Connection, digests: Collection[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for chunk in _chunks(list(digests)):
            rows = connection.execute(
                select(FileRow.sha256, FileRow.id).where(
                    FileRow.sha256.in_(chunk),
                    FileRow.model_id == self._model.id,
                    FileRow.status == str(Status.CLASSIFIED),
                )
            )
            found |= {sha256: file_id for sha256, file_id in rows if sha256}
        return found

    def _name_model(self, connection: Connection) -> None:
        if connection.scalar(select(ModelRow.id).where(ModelRow.id == self._model.id)) is None:
            connection.execute(insert(ModelRow).values(**asdict(self._model), first_used_at=now()))

    def _row(
        self, source: SourceFile, outcome: Outcome, filed_path: Path | None, originals: dict[str, int]
    ) -> dict[str, Any]:
        """Every column of a file's row."""
        row = _source_row(source) | {
            "filed_path": filed_path and as_text(filed_path),
            "filed": filed_path == source.path,
            "status": str(outcome.status),
            "sha256": outcome.sha256,
            "duplicate_of": originals.get(outcome.sha256) if isinstance(outcome, Duplicate) else None,
            "study_key": _study_key(outcome),
        }
        facts = asdict(outcome.facts)
        row |= {name: _clean(facts[name]) for name in _FACTS}
        if isinstance(outcome, Failed | Rejected):
            return row | {"code": outcome.code, "detail": _clean(outcome.detail)}
        notes = json.dumps([_clean(note) for note in outcome.notes], ensure_ascii=False) if outcome.notes else None
        row |= {"notes": notes, "model_id": self._model.id}
        if isinstance(outcome, Classified):
            prediction = outcome.prediction
            row |= {
                "frame": prediction.frame,
                "prediction": str(prediction.label),
                "probability": prediction.probability,
                "threshold": prediction.threshold,
                "heatmap_path": outcome.heatmap,
            }
        return row

    def _update_study(self, connection: Connection, key: str) -> None:
        """Count the study anew: every content once, predictions of the model in force only."""
        current = FileRow.model_id == self._model.id
        classified = (FileRow.status == str(Status.CLASSIFIED)) & current
        fractured = classified & (FileRow.prediction == str(Label.FRACTURED))
        counts = connection.execute(
            select(
                func.count(distinct(func.coalesce(FileRow.sha256, FileRow.source_path))),
                func.count().filter(classified),
                func.count().filter(fractured),
                func.max(FileRow.probability).filter(classified),
                func.max(FileRow.completed_at),
            ).where(FileRow.study_key == key, FileRow.status != str(Status.DUPLICATE))
        ).one()
        files, count, positives, highest, last = counts
        label = None if not count else Label.FRACTURED if positives else Label.NOT_FRACTURED
        values = {
            "files": files,
            "classified": count,
            "fractured": positives,
            "max_probability": highest,
            "prediction": label and str(label),
            "last_result_at": last or now(),
        }
        connection.execute(update(StudyRow).where(StudyRow.study_uid == key).values(values))


def as_text(path: Path) -> str:
    """A path as the database holds it; bytes that are no UTF-8 are spelled out."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _as_path(text: str) -> Path:
    r"""The path that ``as_text`` made this text of; where ``\xff`` may be meant either way, the one that exists."""
    path = Path(text)
    if os.path.lexists(path) or "\\x" not in text:
        return path
    spelled = re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes.fromhex(match[1].decode()), text.encode())
    other = Path(os.fsdecode(spelled))
    return other if os.path.lexists(other) else path


def _clean(value: Any) -> Any:
    """Text without NUL or lone surrogates, which databases refuse."""
    if not isinstance(value, str):
        return value
    return value.replace("\0", "").encode("utf-8", "backslashreplace").decode("utf-8")


def _settled(outcome: Outcome, originals: dict[str, int]) -> Outcome:
    """What was classified by somebody else since this process asked is a duplicate now."""
    if isinstance(outcome, Classified) and outcome.sha256 in originals:
        return Duplicate(outcome.sha256, outcome.facts, outcome.notes)
    return outcome


def _forget_stalled(connection: Connection, row: dict[str, Any]) -> None:
    same = FileRow.source_path == row["source_path"], FileRow.status == str(Status.STALLED)
    connection.execute(delete(FileRow).where(*same))


def _study_key(outcome: Outcome) -> str | None:
    """A file without StudyInstanceUID is a study of its own, once it is known to be an image."""
    if outcome.facts.study_uid:
        return str(_clean(outcome.facts.study_uid))
    return f"sha256:{outcome.sha256}" if isinstance(outcome, Classified | Duplicate) else None


def _source_row(source: SourceFile) -> dict[str, Any]:
    return {
        "received_at": source.seen_at,
        "completed_at": now(),
        "source_path": as_text(source.path),
        "source_size": source.size,
        "source_modified_ns": source.modified_ns,
        "source_inode": source.inode,
    }


def _ensure_study(connection: Connection, row: dict[str, Any]) -> None:
    key = row["study_key"]
    if connection.scalar(select(StudyRow.study_uid).where(StudyRow.study_uid == key)) is None:
        empty = {"files": 0, "classified": 0, "fractured": 0, "last_result_at": row["completed_at"]}
        identity = {"study_uid": key, "patient_id": row["patient_id"], "study_date": row["study_date"]}
        connection.execute(insert(StudyRow).values(identity | empty))


def _attempts(connection: Connection, row: Any) -> int:
    same = FileRow.sha256 == row["sha256"] if row["sha256"] else FileRow.source_path == row["source_path"]
    statuses = [str(status) for status in _NOT_CLASSIFIED]
    return connection.scalar(select(func.count()).where(same, FileRow.status.in_(statuses))) or 1


def _recorded(row: Any, attempts: int) -> Recorded:
    """A row that is not filed yet, as far as filing needs it."""
    source = SourceFile(
        _as_path(row["source_path"]),
        row["source_size"],
        row["source_modified_ns"],
        row["source_inode"],
        row["received_at"],
    )
    status, sha256 = Status(row["status"]), row["sha256"]
    outcome: Outcome
    if status in _NOT_CLASSIFIED:
        kind = Failed if status is Status.FAILED else Rejected
        outcome = kind(row["code"], row["detail"], sha256)
    elif status is Status.CLASSIFIED:
        model = ModelFacts(row["name"], row["version"], row["model_id"])
        prediction = Prediction(Label(row["prediction"]), row["probability"], row["threshold"], model, row["frame"])
        outcome = Classified(sha256, Facts(), prediction, heatmap=row["heatmap_path"])
    else:
        outcome = Duplicate(sha256, Facts())
    return Recorded(row["id"], source, outcome, row["filed_path"] and Path(row["filed_path"]), attempts)


def _chunks(items: Sequence[str]) -> Iterable[Sequence[str]]:
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))
