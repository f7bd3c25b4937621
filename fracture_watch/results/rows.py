"""Outcomes -> rows, and back as far as filing needs them."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fracture_watch.outcomes import Classified, Duplicate, Failed, Outcome, Recorded, Rejected
from fracture_watch.records import Facts, Label, ModelFacts, Prediction, SourceFile, Status
from fracture_watch.times import now

NOT_CLASSIFIED = (Status.FAILED, Status.REJECTED)
_FACTS = (
    "patient_id study_uid series_uid sop_instance_uid accession_number modality body_part laterality view_position "
    "study_date rows columns manufacturer"
).split()


def row_of(
    source: SourceFile, outcome: Outcome, filed_path: Path | None, originals: Mapping[str, int], model: ModelFacts
) -> dict[str, Any]:
    """Every column of a file's row; ``originals`` are the rows of contents that ``model`` classified before."""
    row = source_row(source) | {
        "filed_path": place_text(source, filed_path),
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
    row |= {"notes": notes, "model_id": model.id}
    if isinstance(outcome, Classified):
        prediction = outcome.prediction
        row |= {
            "frame": prediction.frame,
            "prediction": str(prediction.label),
            "probability": prediction.probability,
            "threshold": prediction.threshold,
            "heatmap_path": outcome.heatmap,
            "completed_at": outcome.at or row["completed_at"],
        }
    return row


def source_row(source: SourceFile) -> dict[str, Any]:
    """The columns that say which file it is and when it came."""
    return {
        "received_at": source.seen_at,
        "completed_at": now(),
        "source_path": source_text(source),
        "source_size": source.size,
        "source_modified_ns": source.modified_ns,
        "source_inode": source.inode,
    }


def recorded_of(row: Any, attempts: int) -> Recorded:
    """A row that is not filed yet, as far as filing needs it."""
    place = row["source_path"]
    source = SourceFile(
        as_path(place),
        row["source_size"],
        row["source_modified_ns"],
        row["source_inode"],
        row["received_at"],
        alias=None if Path(place).is_absolute() else place,
    )
    status, sha256 = Status(row["status"]), row["sha256"]
    outcome: Outcome
    if status in NOT_CLASSIFIED:
        kind = Failed if status is Status.FAILED else Rejected
        outcome = kind(row["code"], row["detail"], sha256)
    elif status is Status.CLASSIFIED:
        model = ModelFacts(row["name"], row["version"], row["model_id"])
        prediction = Prediction(Label(row["prediction"]), row["probability"], row["threshold"], model, row["frame"])
        outcome = Classified(sha256, Facts(), prediction, heatmap=row["heatmap_path"])
    else:
        outcome = Duplicate(sha256, Facts())
    return Recorded(row["id"], source, outcome, row["filed_path"] and as_path(row["filed_path"]), attempts)


def source_text(source: SourceFile) -> str:
    """Where a file was found, as the database holds it: its path, or the alias that stands for it."""
    return source.alias or as_text(source.path)


def place_text(source: SourceFile, filed_path: Path | None) -> str | None:
    """Where a file lies, as the database holds it; one that stays where it was goes by the same name."""
    if filed_path is None:
        return None
    return source_text(source) if filed_path == source.path else as_text(filed_path)


def as_text(path: Path) -> str:
    """A path as the database holds it; bytes that are no UTF-8 are spelled out."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def as_path(text: str) -> Path:
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


def _study_key(outcome: Outcome) -> str | None:
    """A file without StudyInstanceUID is a study of its own, once it is known to be an image."""
    if outcome.facts.study_uid:
        return str(_clean(outcome.facts.study_uid))
    return f"sha256:{outcome.sha256}" if isinstance(outcome, Classified | Duplicate) else None
