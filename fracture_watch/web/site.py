"""What the routes talk to, and the one shape of an error."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask import Response, jsonify

from fracture_watch.daemon import DaemonStatus
from fracture_watch.pipeline import Draw, Pipeline
from fracture_watch.records import ModelFacts
from fracture_watch.results.database import Database
from fracture_watch.viewing import Viewer


@dataclass(frozen=True, slots=True)
class Site:
    """What the routes talk to. ``model`` is the one in force, *fractured* at or over ``threshold``."""

    pipeline: Pipeline
    illustrate: Draw
    viewer: Viewer
    status: Callable[[], DaemonStatus | None]
    metrics: Callable[[], bytes]
    recent: Callable[[], list[dict[str, Any]]]
    database: Database
    model: ModelFacts
    threshold: float
    inbox: Path


def problem(status: int, code: str, detail: str) -> tuple[Response, int]:
    """The one shape of an error."""
    return jsonify({"error": {"code": code, "detail": detail}}), status
