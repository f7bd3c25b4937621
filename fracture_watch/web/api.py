"""The routes that programs use."""

import threading
from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response, jsonify, request

from fracture_watch.errors import NotAnImage
from fracture_watch.pipeline import no_picture
from fracture_watch.records import DISCLAIMER, Classified, Outcome, Upload
from fracture_watch.web.site import Site, problem

_AT_ONCE = 8  # predictions under way; more are told to come back

Answer = Response | tuple[Response, int]


def api(site: Site) -> Blueprint:
    """``/predict`` and the probes."""
    blueprint = Blueprint("api", __name__)
    slots = threading.BoundedSemaphore(_AT_ONCE)

    @blueprint.post("/predict")
    def predict() -> Answer:
        upload = request.files.get("file")
        if upload is None or not upload.filename:
            return problem(400, "no_file", "send a radiograph as the multipart field 'file'")
        if not slots.acquire(blocking=False):
            response, status = problem(503, "busy", f"{_AT_ONCE} predictions are under way; try again in a second")
            response.headers["Retry-After"] = "1"
            return response, status
        try:
            wanted = request.args.get("heatmap", "0") not in ("0", "false", "")
            source = Upload(upload.filename, upload.read())
            [outcome] = site.pipeline.run([source], draw=site.illustrate if wanted else no_picture)
        finally:
            slots.release()
        return _answer(outcome)

    @blueprint.get("/healthz")
    def healthz() -> Answer:
        return jsonify({"status": "ok"})

    @blueprint.get("/readyz")
    def readyz() -> Answer:
        watcher = site.status()
        if watcher is None:
            return jsonify({"ready": True, "watching": None})
        reasons = [watcher.paused] if watcher.paused else [] if watcher.running else ["the watcher is not running"]
        body = {
            "ready": not reasons,
            "reasons": reasons,
            "watching": watcher.mode,
            "waiting": watcher.waiting,
            "oldest_seconds": round(watcher.oldest_seconds, 1),
        }
        return jsonify(body), 503 if reasons else 200

    @blueprint.get("/metrics")
    def metrics() -> Response:
        return Response(site.metrics(), content_type="text/plain; version=0.0.4; charset=utf-8")

    return blueprint


def _answer(outcome: Outcome) -> Answer:
    if not isinstance(outcome, Classified):
        code = outcome.code if hasattr(outcome, "code") else str(outcome.status)
        detail = outcome.detail if hasattr(outcome, "detail") else ""
        return problem(415 if code == NotAnImage.code else 422, code, detail)
    prediction = outcome.prediction
    body: dict[str, Any] = {
        "prediction": str(prediction.label),
        "probability": prediction.probability,
        "threshold": prediction.threshold,
        "frame": prediction.frame,
        "model": asdict(prediction.model),
        "notes": list(outcome.notes),
        "disclaimer": DISCLAIMER,
    }
    if outcome.heatmap is not None:
        body["heatmap"] = outcome.heatmap
    return jsonify(body)
