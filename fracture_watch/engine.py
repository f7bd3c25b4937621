"""Where pipelines run: here, in this process."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from fracture_watch.pipeline import Draw, Known, Pipeline
from fracture_watch.records import Outcome, SourceFile
from fracture_watch.stages import Measure


class Engine(Protocol):
    """Runs batches somewhere and brings their outcomes back, each in order."""

    def submit(self, batch: Sequence[SourceFile], known: Known, draw: Draw, measure: Measure) -> Future[list[Outcome]]:
        """Start on ``batch``; returns at once."""


class LocalEngine:
    """Runs batches on this machine: decoding workers fill the cores while the batch before is classified.

    Parameters
    ----------
    pipeline : Pipeline
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        # One thread: torch uses every core for a batch, so two at once would only be later with the first.
        self._classifying = ThreadPoolExecutor(1, "classify")

    def submit(self, batch: Sequence[SourceFile], known: Known, draw: Draw, measure: Measure) -> Future[list[Outcome]]:
        """Start decoding ``batch``; it is classified after those that came before it."""
        decodings = self._pipeline.start(batch)
        return self._classifying.submit(self._pipeline.finish, batch, decodings, known, draw, measure)
