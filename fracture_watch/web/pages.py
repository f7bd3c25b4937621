"""The pages that people look at: what they share."""

import time
from typing import Any

from flask import Blueprint, Response, render_template, request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from fracture_watch.errors import WrongUse
from fracture_watch.records import DISCLAIMER
from fracture_watch.results import worklist
from fracture_watch.web.accuracy import add_accuracy
from fracture_watch.web.answering import PRIVATE, wants_json
from fracture_watch.web.asking import Question, asked
from fracture_watch.web.detail import add_detail
from fracture_watch.web.failures import failure
from fracture_watch.web.site import Site, problem
from fracture_watch.web.worklist import add_worklist

_COUNTED_FOR = 2.0  # seconds for which counts of everything are taken as they are


class Counts:
    """Counts of studies and problems; however many look, they are counted every other second at most."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._counted = -_COUNTED_FOR
        self._found: dict[str, int] = {}

    def __call__(self) -> dict[str, int]:
        """As they are, or were a moment ago."""
        if time.monotonic() - self._counted >= _COUNTED_FOR:
            self._found = worklist.counts(self._site.database)
            self._counted = time.monotonic()
        return self._found


def pages(site: Site) -> Blueprint:
    """The worklist and what failed, one result, accuracy, and the page to try a file."""
    blueprint, counts = Blueprint("pages", __name__), Counts(site)
    for add in (add_worklist, add_detail, add_accuracy):
        add(blueprint, site)

    @blueprint.get("/try")
    def trial() -> str:
        asked(Question)
        return render_template("try.html")

    @blueprint.context_processor
    def _shared() -> dict[str, Any]:
        found = counts()
        return {
            "disclaimer": DISCLAIMER,
            "watcher": site.status(),
            "inbox": site.inbox,
            "model": site.model,
            "threshold": site.threshold,
            "counts": found,
            "problems": sum(found[str(status)] for status in worklist.PROBLEMS),
        }

    @blueprint.after_request
    def _kept(response: Response) -> AnyResponse:
        """Pages are asked about again and again; most times nothing is new."""
        if request.method not in ("GET", "HEAD") or response.status_code != 200:
            return response
        response.headers["Cache-Control"] = PRIVATE
        response.add_etag()
        return response.make_conditional(request)

    @blueprint.errorhandler(HTTPException)
    def _http_error(error: HTTPException) -> tuple[Response | str, int]:
        if wants_json():
            return failure(error)
        return render_template("error.html", title=error.name, detail=error.description), error.code or 500

    @blueprint.errorhandler(WrongUse)  # a cursor that was not given out is one
    def _wrong(error: WrongUse) -> tuple[Response | str, int]:
        if wants_json():
            return problem(400, error.code, error.detail)
        return render_template("error.html", title="This cannot be done", detail=error.detail), 400

    return blueprint
