"""Where pipelines run: here (``local``), or on the workers of a Dask scheduler (``dask``)."""

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol

from fracture_watch.outcomes import Outcome
from fracture_watch.records import SourceFile
from fracture_watch.stages import Measure


class Engine(Protocol):
    """Runs batches somewhere and brings their outcomes back, each batch's in its order."""

    @property
    def ahead(self) -> int:
        """How many batches it wants under way while one is recorded."""

    def submit(self, batch: Sequence[SourceFile], measure: Measure) -> Future[list[Outcome]]:
        """Start on ``batch``; returns at once."""
