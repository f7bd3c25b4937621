"""Answers that a program may keep and ask about again."""

from typing import Any

from flask import Response, jsonify, request
from werkzeug.wrappers import Response as AnyResponse

from fracture_watch.records import DISCLAIMER

Answer = AnyResponse | tuple[Response, int]
# A copy may be kept by who asked, and is asked about every time: what was erased here is not shown from it.
PRIVATE = "private, no-cache"


def wants_json() -> bool:
    """Whether a program asks for a page's answer."""
    return request.accept_mimetypes.best == "application/json"


def answered(body: dict[str, Any]) -> AnyResponse:
    """JSON with the disclaimer; 304 if it is what the client has.

    The tag is the digest of the answer itself: rows change without a new one, when files move or are erased.
    """
    response = jsonify(body | {"disclaimer": DISCLAIMER})
    response.headers["Cache-Control"] = PRIVATE
    response.add_etag()
    return response.make_conditional(request)
