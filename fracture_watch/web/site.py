"""What the routes talk to, and the one shape of an error."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask import Response, jsonify

from fracture_watch.daemon import DaemonStatus
from fracture_watch.model.card import Card
from fracture_watch.pipeline import Draw, Pipeline
from fracture_watch.receive.door import Look
from fracture_watch.records import ModelFacts
from fracture_watch.results.database import Database
from fracture_watch.service import PutBack
from fracture_watch.timeline import Step
from fracture_watch.viewing import Viewer


def _nobody() -> None:
    return None


def _nothing(_wanted: object) -> list[Any]:
    return []


@dataclass(frozen=True, slots=True)
class Site:
    """What the routes talk to.

    ``model`` is the one in force, *fractured* at or over ``threshold``; ``history`` tells what happened to a result,
    ``retry`` puts results' files back from quarantine into the inbox.
    ``receiver`` tells of what receives DICOM objects, where something does.
    ``patient`` tells what rows hold for a PatientID that somebody asks for, ``aliases`` what else they may hold for a
    path, an accession number or a UID; ``watcher`` is whose paths these are, and ``quoting`` whether names that others
    gave may be recorded.
    """

    pipeline: Pipeline
    illustrate: Draw
    viewer: Viewer
    status: Callable[[], DaemonStatus | None]
    metrics: Callable[[], bytes]
    database: Database
    model: ModelFacts
    threshold: float
    inbox: Path
    patient: Callable[[str | None], str | None]
    card: Card | None = None
    aliases: Callable[[str], Iterable[str]] = _nothing
    watcher: str | None = None
    quoting: bool = True
    receiver: Look = _nobody
    history: Callable[[int], list[Step]] = _nothing
    retry: Callable[[Iterable[int]], list[PutBack]] = _nothing


def problem(status: int, code: str, detail: str) -> tuple[Response, int]:
    """The one shape of an error."""
    return jsonify({"error": {"code": code, "detail": detail}}), status
