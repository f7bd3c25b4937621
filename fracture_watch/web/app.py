"""The Flask application: who may ask, and how errors look. Routes are in ``api`` and ``pages``."""

import hmac
from dataclasses import dataclass
from urllib.parse import urlsplit

from flask import Flask, Request, Response, request
from werkzeug.exceptions import HTTPException

from fracture_watch.errors import SystemicError
from fracture_watch.records import LOOPBACK
from fracture_watch.web.api import api
from fracture_watch.web.failures import failure
from fracture_watch.web.pages import pages
from fracture_watch.web.site import Site, problem
from fracture_watch.web.tracing import request_id, trace_requests

_OPEN = ("/healthz", "/readyz")  # probes carry no token


@dataclass(frozen=True, slots=True)
class Access:
    """Who may ask: anybody on this machine, or whoever has the token."""

    host: str
    token: str | None
    max_upload_bytes: int


def create_app(site: Site, access: Access) -> Flask:
    """Build the application."""
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = access.max_upload_bytes
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.url_map.merge_slashes = False  # a study's UID may hold anything; nothing is answered with a redirect
    trace_requests(app)
    app.register_blueprint(api(site))
    app.register_blueprint(pages(site))

    @app.before_request
    def _admit() -> tuple[Response, int] | None:
        refusal = _refusal(request, access)
        return None if refusal is None else problem(*refusal)

    @app.errorhandler(HTTPException)
    def _http_error(error: HTTPException) -> tuple[Response, int]:
        if error.code == 413:
            limit = access.max_upload_bytes >> 20
            return problem(
                413, "too_large", f"the upload is larger than {limit} MiB (web.max_upload_mb), or has over 1,000 parts"
            )
        return failure(error)

    @app.errorhandler(SystemicError)
    def _unavailable(error: SystemicError) -> tuple[Response, int]:
        response, status = problem(503, error.code, error.detail)
        response.headers["Retry-After"] = "5"
        return response, status

    @app.errorhandler(Exception)
    def _internal(error: Exception) -> tuple[Response, int]:
        app.logger.exception("internal error (request %s)", request_id(), exc_info=error)
        return problem(500, "internal", f"an internal error; the log has the details under request {request_id()}")

    @app.after_request
    def _headers(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = (
            "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
            "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        )
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    return app


def _refusal(asked: Request, access: Access) -> tuple[int, str, str] | None:
    """Why a request is not let in, if so: a foreign Host (DNS rebinding), another site's form, or no token."""
    host = _part(f"//{asked.host}", "hostname")
    if access.host in LOOPBACK and host not in LOOPBACK:
        return 403, "forbidden", f"this service answers on this machine only, not as {host!r}"
    origin = asked.headers.get("Origin")
    foreign_origin = origin is not None and _part(origin, "netloc") != asked.host
    cross_site = asked.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site")
    if asked.method not in ("GET", "HEAD", "OPTIONS") and (foreign_origin or cross_site):
        return 403, "forbidden", "requests from other web sites are refused"
    if access.token and asked.path not in _OPEN:
        given = asked.headers.get("Authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode("utf-8", "replace"), access.token.encode()):
            return 401, "unauthorized", "send the header Authorization: Bearer TOKEN (web.token)"
    return None


def _part(url: str, name: str) -> str:
    """A part of a URL; empty where it is none."""
    try:
        return getattr(urlsplit(url), name) or ""
    except ValueError:
        return ""
