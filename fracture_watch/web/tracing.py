"""A name for every request, so that an answer and the log can be laid side by side."""

import logging
import re
import time
import uuid

from flask import Flask, Response, g, request

log = logging.getLogger(__name__)
_SANE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ROUTINE = ("/healthz", "/readyz", "/metrics", "/static/<path:filename>")  # asked every few seconds, or with a page


def request_id() -> str:
    """The client's ``X-Request-ID`` if it can stand in a log, else a new one."""
    if "request_id" not in g:
        given = request.headers.get("X-Request-ID", "")
        g.request_id = given if _SANE.fullmatch(given) else uuid.uuid4().hex
    return str(g.request_id)


def trace_requests(app: Flask) -> None:
    """Give every answer its ``X-Request-ID``, and the log a line about it."""

    @app.before_request
    def _begin() -> None:
        g.began = time.perf_counter()

    @app.after_request
    def _end(response: Response) -> Response:
        response.headers["X-Request-ID"] = request_id()
        # The route, not the path: a path may name a study, and a query string a patient.
        route = request.url_rule.rule if request.url_rule else "(no route)"
        milliseconds = (time.perf_counter() - g.pop("began", time.perf_counter())) * 1000
        level = logging.DEBUG if route in _ROUTINE else logging.INFO
        facts = {"request": request_id(), "route": route, "method": request.method, "status": response.status_code}
        log.log(
            level,
            "%s %s: %d in %.0f ms (request %s)",
            request.method,
            route,
            response.status_code,
            milliseconds,
            request_id(),
            extra={"facts": facts | {"milliseconds": round(milliseconds, 1)}},
        )
        return response
