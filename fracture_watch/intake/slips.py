"""Slips: a JSON file beside a filed one says what came of it."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from fracture_watch.disk import write_whole
from fracture_watch.outcomes import Classified, Recorded
from fracture_watch.records import DISCLAIMER
from fracture_watch.texts import json_text
from fracture_watch.times import now


def slip_path(path: Path) -> Path:
    """Where a file's sidecar or receipt lies."""
    return path.with_name(path.name + ".json")


def write_slip(filed: Path, recorded: Recorded) -> None:
    """Write the slip of a filed file, whole or not at all."""
    write_whole(slip_path(filed), f"{json_text(_slip(recorded), indent=1)}\n".encode())


def _slip(recorded: Recorded) -> dict[str, Any]:
    """What a sidecar or receipt says."""
    outcome = recorded.outcome
    slip: dict[str, Any] = {
        "result": recorded.id,
        "status": str(outcome.status),
        "code": getattr(outcome, "code", None),
        "detail": getattr(outcome, "detail", None),
        "sha256": outcome.sha256,
        "source_path": recorded.source.name,
        "attempts": recorded.attempts,
        "when": now(),
    }
    if isinstance(outcome, Classified):
        prediction = outcome.prediction
        slip |= {
            "prediction": str(prediction.label),
            "probability": prediction.probability,
            "threshold": prediction.threshold,
            "model": asdict(prediction.model),
            "disclaimer": DISCLAIMER,
        }
    return slip
