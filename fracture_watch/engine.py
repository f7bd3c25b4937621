"""Where pipelines run: here, in this process."""

from collections.abc import Sequence
from typing import Protocol

from fracture_watch.pipeline import Draw, Known, Pipeline
from fracture_watch.records import Outcome, SourceFile


class Engine(Protocol):
    """Runs a batch somewhere and brings its outcomes back, in order."""

    def run(self, batch: Sequence[SourceFile], known: Known, draw: Draw) -> list[Outcome]:
        """Run ``batch``."""


class LocalEngine:
    """Runs batches in this process, on this machine's decoding workers.

    Parameters
    ----------
    pipeline : Pipeline
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def run(self, batch: Sequence[SourceFile], known: Known, draw: Draw) -> list[Outcome]:
        """Run ``batch``."""
        return self._pipeline.run(batch, known, draw)
