"""What a Dask worker does with a batch, and what it keeps for the next one."""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from distributed import Worker, WorkerPlugin, get_worker

from fracture_watch.outcomes import Outcome
from fracture_watch.records import SourceFile

_IDLE_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Computed:
    """What a worker returns of a batch: an outcome a file, in order, and the pictures that they name."""

    outcomes: list[Outcome]
    pictures: Mapping[Path, bytes]


Compute: TypeAlias = Callable[[Sequence[SourceFile]], Computed]
Opening: TypeAlias = Callable[[int], AbstractContextManager[Compute]]


class DeskMissing(Exception):
    """The worker knows nothing of this driver: its scheduler is not the one that the driver introduced itself to."""


@dataclass(frozen=True, slots=True)
class Task:
    """A batch for whichever worker gets it. Its text, which Dask shows and logs, names no file."""

    desk: str
    batch: Sequence[SourceFile] = field(repr=False)

    def __call__(self) -> Computed:
        """Runs on a worker."""
        desk = get_worker().plugins.get(self.desk)
        if not isinstance(desk, Desk):
            raise DeskMissing(self.desk)
        return desk.compute(self.batch)


class Desk(WorkerPlugin):
    """The loaded model and its decoding processes, in a worker process, from its first batch on.

    They are given back when the driver takes its leave, and after ten minutes without a batch: a driver that was
    killed says nothing.

    Parameters
    ----------
    opening : function
        Picklable. Makes, for so many threads, what computes batches.
    idle_seconds : float
    """

    def __init__(self, opening: Opening, idle_seconds: float = _IDLE_SECONDS) -> None:
        self._opening = opening
        self._idle_seconds = idle_seconds

    def setup(self, worker: Worker) -> None:
        """Be there; nothing is loaded yet."""
        self._threads = worker.state.nthreads
        self._lock = threading.Lock()
        self._held = ExitStack()
        self._compute: Compute | None = None
        self._busy = 0
        self._idle = threading.Timer(self._idle_seconds, self._release)

    def teardown(self, worker: Worker) -> None:
        """Give everything back; a batch that is at work fails here, and is computed elsewhere."""
        self._idle.cancel()
        self._held.close()

    def compute(self, batch: Sequence[SourceFile]) -> Computed:
        """The batch's outcomes."""
        with self._lock:
            self._idle.cancel()
            if self._compute is None:
                self._compute = self._held.enter_context(self._opening(self._threads))
            compute = self._compute
            self._busy += 1
        try:
            return compute(batch)
        finally:
            with self._lock:
                self._busy -= 1
                self._idle.cancel()  # of a batch that ended while this one was at work
                self._idle = threading.Timer(self._idle_seconds, self._release)
                self._idle.daemon = True
                self._idle.start()

    def _release(self) -> None:
        with self._lock:
            # One that fired while a batch began or ended waited for the lock, and is not the last any more.
            if not self._busy and self._idle is threading.current_thread():
                self._compute = None
                self._held.close()
