"""How long each stage of the work takes."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeAlias

Measure: TypeAlias = Callable[[str], AbstractContextManager[None]]


def unmeasured(stage: str) -> AbstractContextManager[None]:
    """For work that nobody times."""
    return nullcontext()


class Stages:
    """Seconds spent in each stage since they were last asked for. For one thread."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Count what happens inside as ``stage``."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[stage] = self._seconds.get(stage, 0.0) + time.perf_counter() - began

    def lap(self) -> dict[str, float]:
        """Seconds by stage since the last call."""
        seconds, self._seconds = self._seconds, {}
        return seconds
