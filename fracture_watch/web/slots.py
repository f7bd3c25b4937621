"""How many may be at something at once."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from werkzeug.exceptions import ServiceUnavailable


class Slots:
    """Bounds what goes on at once. Who finds no room is told so at once: a queue of unknown length is a hang.

    Parameters
    ----------
    count : int
    what : str
        What is counted, for the message.
    """

    def __init__(self, count: int, what: str) -> None:
        self._free = threading.BoundedSemaphore(count)
        self._detail = f"as many {what} as may be at once ({count}) are under way; try again in a second"

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold a place.

        Raises
        ------
        ServiceUnavailable
            If there is none.
        """
        if not self._free.acquire(blocking=False):
            raise ServiceUnavailable(self._detail, retry_after=1)
        try:
            yield
        finally:
            self._free.release()
