"""The login form, for people: a browser cannot be told to send a header."""

from flask import Blueprint, Response, make_response, redirect, render_template, request

from fracture_watch.records import DISCLAIMER
from fracture_watch.web.access import COOKIE, SESSION_SECONDS, Guard, Refusal, safe_next

_LARGEST_FORM = 65536  # bytes


def login(guard: Guard) -> Blueprint:
    """``/login`` and ``/logout``."""
    blueprint = Blueprint("login", __name__)

    @blueprint.get("/login")
    def form() -> Response:
        wanted = safe_next(request.args.get("next"))
        if not guard.access.token or guard.session(request):
            return _to(wanted)
        return login_form(wanted, None)

    @blueprint.post("/login")
    def enter() -> Response:
        request.max_content_length = _LARGEST_FORM
        wanted = safe_next(request.form.get("next"))
        if not guard.access.token:
            return _to(wanted)
        refusal = guard.check_token(request, request.form.get("token", ""))
        if refusal:
            return login_form(wanted, refusal)
        guard.sessions.end(request.cookies.get(COOKIE))
        response = _to(wanted)
        # A proxy that speaks TLS says so; who lies here only keeps the own cookie off unencrypted connections.
        https = request.is_secure or request.headers.get("X-Forwarded-Proto") == "https"
        response.set_cookie(
            COOKIE, guard.sessions.start(), SESSION_SECONDS, httponly=True, samesite="Strict", secure=https
        )
        return response

    @blueprint.post("/logout")
    def leave() -> Response:
        guard.sessions.end(request.cookies.get(COOKIE))
        response = _to("/login" if guard.access.token else "/")
        response.delete_cookie(COOKIE, httponly=True, samesite="Strict")
        return response

    return blueprint


def _to(place: str) -> Response:
    return make_response(redirect(place, 303))


def login_form(wanted: str, refusal: Refusal | None) -> Response:
    """The form, with why somebody was not let in; from it one goes on to ``wanted``."""
    page = render_template("login.html", next=wanted, complaint=refusal and refusal.detail, disclaimer=DISCLAIMER)
    response = make_response(page, refusal.status if refusal else 200)
    if refusal and refusal.retry_after:
        response.headers["Retry-After"] = str(int(refusal.retry_after) + 1)
    return response
