"""Telling a receiver over HTTP: one signed POST of JSON."""

import hashlib
import hmac
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from fracture_watch.outcomes import Delivery
from fracture_watch.records import DISCLAIMER, Kind

_SECONDS = 10.0  # for one attempt, from looking up the name to the answer
_STUDY = "study_uid study_date files classified fractured max_probability prediction last_result_at".split()
_ADVICE = {
    401: "does it have the same secret?",
    403: "does it have the same secret?",
    404: "is the path of its url right?",
    405: "does it take POST at its url?",
}


class Webhook:
    """A receiver.

    Parameters
    ----------
    url : str
        Never logged: it may be a secret itself.
    secret : str
        What deliveries are signed with.
    agent : str
        Who says it.
    seconds : float
        The most that one attempt may take.
    clock : function
        Unix time.
    """

    def __init__(
        self,
        url: str,
        secret: str,
        agent: str = "fracture-watch",
        seconds: float = _SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._url = urlsplit(url)
        self._secret = secret
        self._agent = agent
        self._seconds = seconds
        self._clock = clock
        self._tls = ssl.create_default_context() if self._url.scheme == "https" else None

    def send(self, delivery: Delivery) -> str | None:
        """POST it; ``None`` if the answer was 2xx, else what was wrong. Redirections are not followed."""
        content = body(delivery)
        timestamp = str(int(self._clock()))
        headers = {
            "Content-Type": "application/json",
            "Connection": "close",
            "User-Agent": self._agent,
            "X-Fracture-Watch-Delivery": delivery.id,
            "X-Fracture-Watch-Timestamp": timestamp,
            "X-Fracture-Watch-Signature": f"sha256={signature(self._secret, timestamp, content)}",
        }
        try:
            return _verdict(self._post(content, headers))
        except (OSError, http.client.HTTPException) as error:
            return self._reason(error)

    def _reason(self, error: Exception) -> str:
        """In our words: what the other side says may be long, hostile or confidential."""
        if isinstance(error, TimeoutError):
            return f"no answer within {self._seconds:g} s"
        if isinstance(error, ssl.SSLError):
            return f"its certificate or TLS is not accepted: {getattr(error, 'verify_message', '') or error.reason}"
        if isinstance(error, socket.gaierror):
            return "its host name is not known"
        if isinstance(error, http.client.RemoteDisconnected):
            return "it closed the connection without an answer"
        if isinstance(error, OSError):
            return f"cannot be reached: {error.strerror or type(error).__name__}"
        return "what answered there does not speak HTTP"

    def _post(self, content: bytes, headers: Mapping[str, str]) -> int:
        """The status of the answer; its text is not read, since it is nothing to us."""
        host = str(self._url.hostname)
        port = self._url.port or (443 if self._tls else 80)  # else http.client looks for one in an IPv6 address
        # A name may have several addresses: a dead one must leave time for the next.
        connection = (
            http.client.HTTPSConnection(host, port, timeout=self._seconds / 3, context=self._tls)
            if self._tls
            else http.client.HTTPConnection(host, port, timeout=self._seconds / 3)
        )
        path = (self._url.path or "/") + (f"?{self._url.query}" if self._url.query else "")
        with closing(connection), _ended_after(connection, self._seconds) as ended:
            http.client.HTTPConnection.connect(connection)  # also of HTTPS, whose own would shake hands in that time
            connection.sock.settimeout(self._seconds)
            if self._tls:
                connection.sock = self._tls.wrap_socket(connection.sock, server_hostname=host)
            if ended.is_set():  # what is sent now would be taken, and sent again
                raise TimeoutError
            connection.request("POST", path, content, headers)
            return connection.getresponse().status


def signature(secret: str, timestamp: str, content: bytes) -> str:
    """HMAC-SHA256 of the time, a full stop and the body: an old body cannot be sent again as a new one."""
    return hmac.new(secret.encode(), f"{timestamp}.".encode() + content, hashlib.sha256).hexdigest()


def body(delivery: Delivery) -> bytes:
    """What is sent: the JSON line of a file, or the row of a study, with what tells it from others."""
    row = delivery.subject
    facts = _of_result(row) if delivery.kind is Kind.RESULT else {name: row[name] for name in _STUDY}
    message = {"event": str(delivery.kind), "delivery": delivery.id} | facts | {"disclaimer": DISCLAIMER}
    return json.dumps(message, ensure_ascii=False).encode()


def _of_result(row: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of ``exports.file_record``, and the row's own."""
    model = {name: row[f"model_{name}"] for name in ("name", "version", "id")}
    return {
        "id": row["id"],
        "received_at": row["received_at"],
        "completed_at": row["completed_at"],
        "file": row["source_path"],
        "status": row["status"],
        "code": row["code"],
        "detail": row["detail"],
        "notes": json.loads(row["notes"] or "[]"),
        "sha256": row["sha256"],
        "duplicate_of": row["duplicate_of"],
        "prediction": row["prediction"],
        "probability": row["probability"],
        "threshold": row["threshold"],
        "frame": row["frame"],
        "study_uid": row["study_uid"],
        "sop_instance_uid": row["sop_instance_uid"],
        "model": model if row["prediction"] else None,
        "milliseconds": None,  # of a batch that is over
    }


def _verdict(status: int) -> str | None:
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return f"it answered {status}: redirections are not followed, its url must be where they lead"
    advice = _ADVICE.get(status)
    return f"it answered {status}" + (f": {advice}" if advice else "")


@contextmanager
def _ended_after(connection: http.client.HTTPConnection, seconds: float) -> Iterator[threading.Event]:
    """End a connection in time: the socket's own time-out begins anew with every byte that trickles in."""
    ended = threading.Event()

    def end() -> None:
        ended.set()
        if connection.sock:
            with suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield ended
    except (OSError, http.client.HTTPException):
        if not ended.is_set():
            raise
    finally:
        timer.cancel()
    if ended.is_set():  # headers that were cut off look like an answer
        raise TimeoutError
