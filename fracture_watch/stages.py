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
    """Seconds spent in each stage of one batch."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Count what happens inside as ``stage``."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - began
