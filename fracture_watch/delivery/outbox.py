"""What is recorded for a destination is delivered to it, oldest first, until it has it or is given up."""

import hashlib
import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from fracture_watch.delivery.metrics import Metrics
from fracture_watch.errors import SystemicError
from fracture_watch.outcomes import Delivery
from fracture_watch.times import as_utc

log = logging.getLogger(__name__)
_IDLE_SECONDS = 1.0  # between two looks for something new
_FAULT_SECONDS = 5.0  # until a database that cannot be used is tried again
_LONGEST_PAUSE = 60.0  # so soon it is noticed that a destination is back


class Queue(Protocol):
    """Where deliveries wait."""

    def turn(self, destination: str) -> AbstractContextManager[bool]:
        """Whether it is this process's turn to deliver there; nobody else does until the end."""

    def next_due(self, destination: str, at: str) -> Delivery | None:
        """What has been due for longest: what failed stands behind what was not tried yet."""

    def delivered(self, delivery: Delivery, at: str) -> None:
        """The destination has it."""

    def failed(self, delivery: Delivery, error: str, next_attempt_at: str | None) -> None:
        """An attempt was in vain; without a next one it is given up."""


class Channel(Protocol):
    """How something gets to a destination."""

    def send(self, delivery: Delivery) -> str | None:
        """Deliver it, in bounded time; gives back why that was in vain, for a person and without secrets."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait after an attempt that was in vain: twice as long each time, from ``first`` to ``longest``.

    ``give_up`` is the age at which something is tried for the last time. All in seconds.
    """

    first: float = 5.0
    longest: float = 900.0
    give_up: float = 3 * 86_400.0

    def pause(self, attempts: int, seed: str) -> float:
        """Seconds to wait after so many attempts, half of them by chance; the same ``seed`` gives the same chance."""
        whole = min(self.longest, self.first * 2.0 ** min(attempts - 1, 62))
        drawn = int.from_bytes(hashlib.sha256(f"{seed} {attempts}".encode()).digest()[:4]) / 2**32
        return whole * (0.5 + drawn / 2)

    def next_attempt(self, delivery: Delivery, now: datetime) -> datetime | None:
        """When to try again, after one more attempt that was in vain; ``None``: never."""
        if (now - datetime.fromisoformat(delivery.created_at)).total_seconds() >= self.give_up:
            return None
        return now + timedelta(seconds=self.pause(delivery.attempts + 1, delivery.id))


def wall_clock() -> datetime:
    """The time, as the database has it."""
    return datetime.now(UTC)


class Sender:
    """Delivers to one destination. Others have senders of their own, so that none waits for another.

    Parameters
    ----------
    destination : str
    queue : Queue
    channel : Channel
    patience : Patience
    metrics : Metrics
    clock : function
        The time.
    """

    def __init__(
        self,
        destination: str,
        queue: Queue,
        channel: Channel,
        patience: Patience,
        metrics: Metrics,
        clock: Callable[[], datetime] = wall_clock,
    ) -> None:
        self._destination = destination
        self._queue = queue
        self._channel = channel
        self._patience = patience
        self._metrics = metrics
        self._clock = clock
        metrics.deliver_to(destination)
        self._in_vain = 0  # attempts since the last one that was not
        self._owed: Callable[[], None] | None = None  # what the database could not be told yet

    def run(self, stop: threading.Event) -> None:
        """Deliver until ``stop`` is set; what is under way is finished."""
        told = False
        while not stop.is_set():
            try:
                pause = self.deliver_next()
                told = False
            except SystemicError as error:
                if not told:
                    log.warning("nothing is delivered to %s meanwhile: %s", self._destination, error)
                told, pause = True, _FAULT_SECONDS
            except Exception:  # a defect must not end the thread
                if not told:
                    log.exception("nothing is delivered to %s meanwhile", self._destination)
                told, pause = True, _FAULT_SECONDS
            stop.wait(pause)

    def deliver_next(self) -> float:
        """Try the delivery that has been due for longest; gives back for how many seconds to rest."""
        with self._queue.turn(self._destination) as ours:
            return self._deliver() if ours else _IDLE_SECONDS

    def _deliver(self) -> float:
        if self._owed:  # else the same would be sent again and again, to a receiver that has it
            self._note(self._owed)
        delivery = self._queue.next_due(self._destination, as_utc(self._clock()))
        if delivery is None:
            return _IDLE_SECONDS
        error = self._attempt(delivery)
        now = self._clock()
        if error is None:
            # Between the answer and this line lies what makes it at least once, and not exactly once.
            self._note(lambda: self._queue.delivered(delivery, as_utc(now)))
            self._metrics.delivered(self._destination)
            if self._in_vain:
                log.info("%s takes deliveries again", self._destination)
            self._in_vain = 0
            return 0.0
        return self._put_off(delivery, error, now)

    def _put_off(self, delivery: Delivery, error: str, now: datetime) -> float:
        again = self._patience.next_attempt(delivery, now)
        self._note(lambda: self._queue.failed(delivery, error, as_utc(again) if again else None))
        self._metrics.not_delivered(self._destination)
        if again is None:
            log.error("%s was not told of %s: given up, %s", self._destination, delivery.id, error)
        elif not self._in_vain:
            log.warning("%s: %s; what waits for it is tried again", self._destination, error)
        self._in_vain += 1
        # The others rest, too: a destination that is down is not asked once for each of them.
        return min(_LONGEST_PAUSE, self._patience.pause(self._in_vain, self._destination))

    def _note(self, note: Callable[[], None]) -> None:
        self._owed = note
        note()
        self._owed = None

    def _attempt(self, delivery: Delivery) -> str | None:
        try:
            return self._channel.send(delivery)
        except Exception:  # a defect must not hold up the others: the row steps back, and says it
            log.exception("delivery %s to %s", delivery.id, self._destination)
            return "an internal error; the log has the details"
