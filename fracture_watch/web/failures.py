"""What went wrong with a request, for programs."""

from flask import Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from fracture_watch.web.site import problem

_CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    503: "busy",
}


def failure(error: HTTPException) -> tuple[Response, int]:
    """The error as JSON, with the headers that belong to it: Allow, Retry-After."""
    status = error.code or 500
    response, _ = problem(status, _CODES.get(status, "http_error"), _detail(error))
    for name, value in error.get_headers():
        if name not in ("Content-Type", "Content-Length"):
            response.headers[name] = value
    return response, status


def _detail(error: HTTPException) -> str:
    """What was said where it was raised; else what to do about it."""
    if error.description != type(error).description:
        return str(error.description)
    if isinstance(error, MethodNotAllowed):
        return f"{request.method} is not for this route; there are {', '.join(sorted(error.valid_methods or ()))}"
    return "there is no such route; /openapi.json lists them" if isinstance(error, NotFound) else str(error.description)
