"""What machines ask the service about itself."""

from importlib.resources import files
from typing import Any

import yaml
from flask import Blueprint, Response, jsonify

from fracture_watch import __version__
from fracture_watch.errors import DatabaseUnavailable
from fracture_watch.results import queries
from fracture_watch.texts import printable
from fracture_watch.web.answering import Answer
from fracture_watch.web.site import Site


def add_probes(blueprint: Blueprint, site: Site) -> None:
    """Liveness, readiness, metrics, and the description of the interface."""
    described = description()

    @blueprint.get("/healthz")
    def healthz() -> Answer:
        return jsonify({"status": "ok"})

    @blueprint.get("/readyz")
    def readyz() -> Answer:
        watcher = site.status()
        if watcher is None:
            return _alone(site)
        reasons = [watcher.paused] if watcher.paused else [] if watcher.running else ["the watcher is not running"]
        receiver = site.receiver()
        if receiver and receiver.refusing:
            reasons.append(f"DICOM objects are refused: {receiver.refusing}")
        elif receiver and not receiver.running:
            reasons.append("the DICOM receiver is not running")
        body = {
            "ready": not reasons,
            "reasons": reasons,
            "watching": watcher.mode,
            "waiting": watcher.waiting,
            "oldest_seconds": round(watcher.oldest_seconds, 1),
        }
        if receiver:
            names = "ae_title", "address", "associations"
            body["receiving"] = {name: getattr(receiver, name) for name in names}
        return jsonify(body) if body["ready"] else _unready(body)

    @blueprint.get("/metrics")
    def metrics() -> Response:
        return Response(site.metrics(), content_type="text/plain; version=0.0.4; charset=utf-8")

    @blueprint.get("/openapi.json")
    def openapi() -> Answer:
        return jsonify(described)


def _alone(site: Site) -> Response:
    """Where nobody watches, so that nobody else notices whether the database can be read."""
    try:
        queries.one(site.database, 0)
    except DatabaseUnavailable as error:
        return _unready({"ready": False, "reasons": [printable(f"{error.code}: {error.detail}")], "watching": None})
    return jsonify({"ready": True, "watching": None})


def _unready(body: dict[str, Any]) -> Response:
    response = jsonify(body)
    response.status_code = 503
    response.headers["Retry-After"] = "5"
    return response


def description() -> dict[str, Any]:
    """The OpenAPI document, which is written by hand in ``openapi.yaml``."""
    document: dict[str, Any] = yaml.safe_load(files(__package__).joinpath("openapi.yaml").read_text("utf-8"))
    document["info"]["version"] = __version__
    return document
