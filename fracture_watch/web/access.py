"""Who may ask: whoever is on this machine, sends the token, or has logged in with it; and never another web site."""

import hashlib
import hmac
import ipaddress
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from flask import Request

from fracture_watch.records import LOOPBACK

COOKIE = "fracture_watch_session"
SESSION_SECONDS = 12 * 3600
_MOST = 10_000  # sessions, and addresses that guess, that are remembered
_FREE_GUESSES = 5  # different wrong tokens from one address before it has to wait
_LONGEST_WAIT = 10.0  # seconds: several clients may share an address
_FORGOTTEN_AFTER = 900.0
_OPEN = ("/healthz", "/readyz", "/login")  # probes carry no token
_SAFE = ("GET", "HEAD", "OPTIONS")
_HOST = re.compile(r"[A-Za-z0-9._\[\]:-]{1,255}")

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Access:
    """Who may ask: anybody on this machine, or whoever has the token."""

    host: str
    token: str | None
    max_upload_bytes: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not let in; ``retry_after`` is in seconds."""

    status: int
    code: str
    detail: str
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """A login in force. ``csrf`` is what its own pages know and other sites do not."""

    ends: float
    csrf: str


class Sessions:
    """Logins, in memory: they end with the process, at logout and after half a day. A cookie is a random number."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def start(self) -> str:
        """A new session's cookie."""
        cookie = secrets.token_urlsafe(32)
        with self._lock:
            self._sessions[_digest(cookie)] = Session(self._clock() + SESSION_SECONDS, secrets.token_urlsafe(32))
            while len(self._sessions) > _MOST:
                self._sessions.popitem(last=False)
        return cookie

    def find(self, cookie: str | None) -> Session | None:
        """The session of a cookie, if it is in force."""
        with self._lock:
            found = self._sessions.get(_digest(cookie)) if cookie else None
        return found if found and self._clock() < found.ends else None

    def end(self, cookie: str | None) -> None:
        """Log out."""
        with self._lock:
            self._sessions.pop(_digest(cookie or ""), None)


@dataclass(slots=True)
class _Guesser:
    last: float
    wrong: set[str] = field(default_factory=set)
    failures: int = 0


class Throttle:
    """Makes an address wait that has tried several different wrong tokens; one wrong token again and again counts once.

    While it waits nothing that it sends is compared, so guessing gets no faster by not waiting.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._guessers: OrderedDict[str, _Guesser] = OrderedDict()

    def wait(self, address: str | None) -> float:
        """Seconds until an address is listened to; 0: now."""
        with self._lock:
            found = self._guessers.get(_network(address))
            if found is None or found.failures <= _FREE_GUESSES:
                return 0.0
            pause = min(_LONGEST_WAIT, 2.0 ** (found.failures - _FREE_GUESSES - 1))
            return max(0.0, found.last + pause - self._clock())

    def failed(self, address: str | None, token: str) -> None:
        """A wrong token came from an address."""
        time_now, network = self._clock(), _network(address)
        with self._lock:
            found = self._guessers.pop(network, None)
            if found is None or time_now - found.last > _FORGOTTEN_AFTER:
                found = _Guesser(time_now)
            self._guessers[network] = found
            if _digest(token) not in found.wrong:
                found.failures, found.last = found.failures + 1, time_now
                if len(found.wrong) <= _FREE_GUESSES:
                    found.wrong.add(_digest(token))
            while len(self._guessers) > _MOST:
                self._guessers.popitem(last=False)


class Guard:
    """Lets requests in or refuses them."""

    def __init__(self, access: Access, clock: Clock = time.monotonic) -> None:
        self.access = access
        self.sessions = Sessions(clock)
        self._throttle = Throttle(clock)

    def refusal(self, asked: Request) -> Refusal | None:
        """Why a request is not let in, if so."""
        return self._foreign(asked) or self._unknown(asked)

    def session(self, asked: Request) -> Session | None:
        """The login that a request belongs to."""
        return self.sessions.find(asked.cookies.get(COOKIE))

    def check_token(self, asked: Request, given: str) -> Refusal | None:
        """Compare a token, in constant time, unless its sender has to wait."""
        wait = self._throttle.wait(asked.remote_addr)
        if wait:
            detail = f"too many wrong tokens came from {asked.remote_addr}; try again in {wait:.0f} s"
            return Refusal(429, "too_many_attempts", detail, wait)
        expected = (self.access.token or "").encode()
        if expected and hmac.compare_digest(given.encode("utf-8", "replace"), expected):
            return None
        self._throttle.failed(asked.remote_addr, given)
        return Refusal(401, "unauthorized", "that is not the token (web.token)")

    def _foreign(self, asked: Request) -> Refusal | None:
        """A form or script of another web site; without a token also a foreign Host (DNS rebinding).

        With a token a proxy in front may pass on its own name; a rebound one has no cookie of ours, and gets no further
        than what is open without the token.
        """
        host = _part(f"//{asked.host}", "hostname")
        if not _HOST.fullmatch(asked.host):
            return Refusal(400, "bad_request", "the Host header is no host's name")
        if not self.access.token and self.access.host in LOOPBACK and host not in LOOPBACK:
            return Refusal(403, "forbidden", f"this service answers on this machine only, not as {host!r}")
        origin = asked.headers.get("Origin")
        foreign_origin = origin is not None and _part(origin, "netloc") != asked.host
        cross_site = asked.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site")
        if asked.method not in _SAFE and (foreign_origin or cross_site):
            return Refusal(403, "forbidden", "requests from other web sites are refused")
        return None

    def _unknown(self, asked: Request) -> Refusal | None:
        """Neither the token nor a login, or a login without the number that its own pages send along."""
        if not self.access.token or asked.path in _OPEN or asked.endpoint == "static":
            return None
        # Another scheme is somebody else's: a proxy in front that asks for a name and a password.
        scheme, _, given = asked.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.check_token(asked, given.strip())
        session = self.session(asked)
        if session is None:
            return Refusal(401, "unauthorized", "send the header Authorization: Bearer TOKEN (web.token), or log in")
        if asked.method in _SAFE:
            return None
        given = asked.headers.get("X-CSRF-Token") or asked.form.get("csrf_token", "")
        if not hmac.compare_digest(given.encode("utf-8", "replace"), session.csrf.encode()):
            return Refusal(403, "forbidden", "the request did not come from this service's own page; reload the page")
        return None


def safe_next(wanted: str | None) -> str:
    """A path of this service to go to after a login; whatever might lead elsewhere becomes ``/``."""
    if not wanted or not wanted.startswith("/") or wanted.startswith("//") or not wanted.isprintable():
        return "/"
    return "/" if "\\" in wanted or " " in wanted else wanted


def is_browser(asked: Request) -> bool:
    """Whether somebody looks at a page, rather than a program."""
    return "text/html" in asked.headers.get("Accept", "")


def _part(url: str, name: str) -> str:
    """A part of a URL; empty where it is none."""
    try:
        return getattr(urlsplit(url), name) or ""
    except ValueError:
        return ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _network(address: str | None) -> str:
    """An address, or of IPv6 the network that one customer has."""
    try:
        known = ipaddress.ip_address(address or "")
    except ValueError:
        return ""
    return str(ipaddress.ip_network((known, 64), strict=False)) if known.version == 6 else str(known)
