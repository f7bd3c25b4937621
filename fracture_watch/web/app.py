"""The Flask application: who may ask, and how errors look. Routes are in ``api`` and ``pages``."""

import time
from dataclasses import replace

from flask import Flask, Response, make_response, redirect, request, url_for
from werkzeug.exceptions import HTTPException

from fracture_watch.errors import SystemicError
from fracture_watch.web.access import Access, Clock, Guard, Refusal, is_browser, safe_next
from fracture_watch.web.api import api
from fracture_watch.web.failures import failure
from fracture_watch.web.login import login, login_form
from fracture_watch.web.pages import pages
from fracture_watch.web.site import Site, problem
from fracture_watch.web.tracing import request_id, trace_requests

__all__ = ["Access", "create_app"]

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer: a browser then sends the forms of our own pages with Origin: null, as from nowhere.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}


def create_app(site: Site, access: Access, clock: Clock = time.monotonic) -> Flask:
    """Build the application. ``clock`` tells when logins end and when who guesses tokens is heard again."""
    guard = Guard(access, clock)
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = access.max_upload_bytes
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.url_map.merge_slashes = False  # a study's UID may hold anything; nothing is answered with a redirect
    trace_requests(app)
    app.register_blueprint(api(site))
    app.register_blueprint(pages(site))
    app.register_blueprint(login(guard))

    @app.before_request
    def _admit() -> Response | None:
        refusal = guard.refusal(request)
        return None if refusal is None else _refuse(refusal)

    @app.context_processor
    def _login() -> dict[str, str | None]:
        session = guard.session(request) if access.token else None
        return {"csrf_token": session.csrf if session else None}

    @app.errorhandler(HTTPException)
    def _http_error(error: HTTPException) -> tuple[Response, int]:
        return _too_much(access) if error.code == 413 else failure(error)

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
        response.headers.update(_HEADERS)
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    return app


def _too_much(access: Access) -> tuple[Response, int]:
    """More bytes than there may be; or, where it is not that, too many in fields that are no files, or of parts."""
    sent, most = request.content_length, request.max_content_length
    if sent and most and sent <= most:
        return problem(
            400,
            "no_file",
            "a form holds at most 500 kB of text and 1,000 parts; send a radiograph as a file: curl -F file=@NAME",
        )
    limit = access.max_upload_bytes >> 20
    return problem(413, "too_large", f"the upload is larger than {limit} MiB (web.max_upload_mb)")


def _refuse(refusal: Refusal) -> Response:
    """JSON for programs; browsers are shown where to log in. The query stays out of that URL: it may name a patient."""
    if refusal.status == 401 and is_browser(request):
        if request.method in ("GET", "HEAD"):
            return make_response(redirect(url_for("login.form", next=safe_next(request.path)), 303))
        ended = "there is no login, or it has ended; what was sent is lost: log in, and send it again"
        response = login_form("/", replace(refusal, detail=ended))
    else:
        response, _ = problem(refusal.status, refusal.code, refusal.detail)
        response.status_code = refusal.status
    if refusal.status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="fracture_watch"'
    if refusal.retry_after:
        response.headers["Retry-After"] = str(int(refusal.retry_after) + 1)
    return response
