"""Batches in this process."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from fracture_watch.outcomes import Outcome
from fracture_watch.pipeline import Draw, Known, Pipeline
from fracture_watch.records import SourceFile
from fracture_watch.stages import Measure


class LocalEngine:
    """Runs batches on this machine: decoding workers fill the cores while the batch before is classified.

    Parameters
    ----------
    pipeline : Pipeline
    known : function
        Which contents need no prediction, because the model in force has classified them.
    draw : function
        Makes the picture that explains a prediction.
    """

    ahead = 2  # one is decoded while the one before it is classified

    def __init__(self, pipeline: Pipeline, known: Known, draw: Draw) -> None:
        self._pipeline = pipeline
        self._known = known
        self._draw = draw
        # One thread: torch uses every core for a batch, so two at once would only be later with the first.
        self._classifying = ThreadPoolExecutor(1, "classify")

    def submit(self, batch: Sequence[SourceFile], measure: Measure) -> Future[list[Outcome]]:
        """Start decoding ``batch``; it is classified after those that came before it."""
        decodings = self._pipeline.start(batch)
        return self._classifying.submit(self._pipeline.finish, batch, decodings, self._known, self._draw, measure)
