"""Ad-hoc questions: radiographs come in, predictions go out, nothing is recorded."""

from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response, jsonify, request
from werkzeug.datastructures import FileStorage

from fracture_watch.delivery.exports import file_record
from fracture_watch.errors import NotAnImage
from fracture_watch.outcomes import Classified, Outcome
from fracture_watch.pipeline import Draw, batches, no_picture
from fracture_watch.records import DISCLAIMER, Upload
from fracture_watch.web.answering import Answer
from fracture_watch.web.asking import PredictionQuestion, asked
from fracture_watch.web.site import Site, problem
from fracture_watch.web.slots import Slots

MOST_FILES = 64  # of one request
_AT_ONCE = 8  # requests; those that work and those that wait for a worker
_TOGETHER = 4  # files of one request, so that it holds few of them in memory and others get in between


def add_predictions(blueprint: Blueprint, site: Site) -> None:
    """``/predict`` and its form for many files."""
    slots = Slots(_AT_ONCE, "predictions")

    @blueprint.post("/predict")
    def predict() -> Answer:
        draw = _draw(site)
        uploads = _uploads()
        if not uploads:
            return _no_file()
        if len(uploads) > 1:
            return problem(400, "too_many_files", f"{len(uploads)} files; send one, or all to /api/predictions")
        with slots.taken():
            [outcome] = site.pipeline.run([_read(uploads[0])], draw=draw)
        return _answer(outcome)

    @blueprint.post("/api/predictions")
    def predictions() -> Answer:
        draw = _draw(site)
        uploads = _uploads()
        if not uploads:
            return _no_file()
        if len(uploads) > MOST_FILES:
            return problem(400, "too_many_files", f"{len(uploads)} files; send at most {MOST_FILES} in one request")
        answers: list[dict[str, Any]] = []
        with slots.taken():
            for batch in batches(uploads, _TOGETHER):
                outcomes = site.pipeline.run([_read(upload) for upload in batch], draw=draw)
                answers += [_entry(upload, outcome) for upload, outcome in zip(batch, outcomes, strict=True)]
        return jsonify(answers)


def _draw(site: Site) -> Draw:
    return site.illustrate if asked(PredictionQuestion).heatmap else no_picture


def _uploads() -> list[FileStorage]:
    return [upload for upload in request.files.getlist("file") if upload.filename]


def _read(upload: FileStorage) -> Upload:
    return Upload(upload.filename or "", upload.read())


def _no_file() -> Answer:
    return problem(400, "no_file", "send a radiograph as the multipart field 'file'")


def _answer(outcome: Outcome) -> Answer:
    if not isinstance(outcome, Classified):
        return refused(getattr(outcome, "code", str(outcome.status)), getattr(outcome, "detail", ""))
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
    return jsonify(body | _heatmap(outcome))


def _entry(upload: FileStorage, outcome: Outcome) -> dict[str, Any]:
    """One file's JSON line, as the command line prints it."""
    return file_record(upload.filename or "", outcome) | {"disclaimer": DISCLAIMER} | _heatmap(outcome)


def _heatmap(outcome: Outcome) -> dict[str, str]:
    heatmap = outcome.heatmap if isinstance(outcome, Classified) else None
    return {} if heatmap is None else {"heatmap": heatmap}


def refused(code: str, detail: str) -> tuple[Response, int]:
    """A file that cannot be looked at, and why."""
    return problem(415 if code == NotAnImage.code else 422, code, detail)
