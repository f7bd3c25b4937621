"""Who may use the network next."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE = 32  # urgent turns in a row, until what waits behind them gets one: an inbox is never forgotten


class Turns:
    """A semaphore with two queues. The urgent one goes first; each is served in order of arrival.

    Parameters
    ----------
    at_once : int
        How many may have a turn at the same time.

    Attributes
    ----------
    contested : bool
        Whether anybody was ever urgent.
    """

    def __init__(self, at_once: int = 1) -> None:
        self.contested = False
        self._changed = threading.Condition()
        self._free = at_once
        self._urgent: deque[object] = deque()
        self._patient: deque[object] = deque()
        self._overtaken = 0  # urgent turns since somebody began to wait behind them

    @contextmanager
    def turn(self, *, urgent: bool) -> Iterator[None]:
        """Wait for a turn, and hold it."""
        ticket, queue = object(), self._urgent if urgent else self._patient
        with self._changed:
            self.contested = self.contested or urgent
            queue.append(ticket)
            self._changed.wait_for(lambda: self._free and self._next() is ticket)
            queue.popleft()
            self._free -= 1
            self._overtaken = self._overtaken + 1 if urgent and self._patient else 0
            self._changed.notify_all()  # there may be a turn for the next one, too
        try:
            yield
        finally:
            with self._changed:
                self._free += 1
                self._changed.notify_all()

    def _next(self) -> object:
        urgent_first = self._urgent and not (self._patient and self._overtaken >= PATIENCE)
        return (self._urgent if urgent_first else self._patient)[0]
