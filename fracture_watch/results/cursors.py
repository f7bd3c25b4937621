"""Where a page of an answer ended, as a string that fits into a URL.

Cursors carry no secret: whoever makes one up only starts elsewhere in what they may read anyway.
"""

import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence

from fracture_watch.errors import InvalidCursor

Position = Sequence[str | int | float | None]
_CHECK = 6  # bytes
_LONGEST = 2000  # characters; UIDs that break the standard's 64 are in it
_LARGEST = 2**63  # what a database's integer holds


def encode(question: str, position: Position) -> str:
    """The cursor of a row of this question's answer."""
    body = _body(position)
    return urlsafe_b64encode(_check(question, body) + body).decode("ascii").rstrip("=")


def decode(question: str, cursor: str, *shapes: tuple[type, ...]) -> Position:
    """The position that a cursor of this question names; ``shapes`` are the types that it may consist of.

    Raises
    ------
    InvalidCursor
        If it is not a cursor that was given out for this question.
    """
    wrong = InvalidCursor(
        "this cursor was not given out for this question; send the next_cursor of the page before unchanged, "
        "with the same filters, or none to begin anew"
    )
    try:
        raw = urlsafe_b64decode((cursor + "=" * (-len(cursor) % 4)).encode("ascii")) if len(cursor) <= _LONGEST else b""
        check, body = raw[:_CHECK], raw[_CHECK:]
        position: Position = json.loads(body) if check == _check(question, body) else ()
        sound = tuple(map(type, position)) in shapes and _body(position) == body
    except (ValueError, RecursionError) as error:
        raise wrong from error
    if not sound or any(isinstance(value, int) and abs(value) >= _LARGEST for value in position):
        raise wrong
    return position


def _body(position: Position) -> bytes:
    return json.dumps(list(position), ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def _check(question: str, body: bytes) -> bytes:
    return hashlib.sha256(question.encode("utf-8", "backslashreplace") + b"\0" + body).digest()[:_CHECK]
