"""A file that has a result -> the pictures of it that people look at."""

import threading
from functools import partial

from fracture_watch.model.heatmap import layer, painted, plain
from fracture_watch.model.preprocess import Preprocessor
from fracture_watch.pipeline import Classifier, Workers
from fracture_watch.records import Filed, SourceFile
from fracture_watch.times import now


class Viewer:
    """Draws filed radiographs anew, as PNG. One at a time, so that a large one never keeps all workers busy.

    Parameters
    ----------
    workers : Workers
        At least two.
    classifier : Classifier
    preprocessor : Preprocessor
        The classifier's.
    """

    def __init__(self, workers: Workers, classifier: Classifier, preprocessor: Preprocessor) -> None:
        self._workers = workers
        self._classifier = classifier
        self._preprocessor = preprocessor
        self._one = threading.Lock()

    def image(self, filed: Filed, side: int | None) -> bytes | None:
        """The radiograph as displayed, in full or with its long side at most ``side`` pixels.

        Returns
        -------
        bytes
            PNG; ``None`` if another file is at its place.

        Raises
        ------
        FractureWatchError
            If it cannot be decoded.
        """
        with self._one:
            return self._workers.draw(filed, partial(plain, side=side)).result()

    def heatmap(self, filed: Filed, side: int | None, *, alone: bool = False) -> bytes | None:
        """Like ``image``, under the heat map of the model in force; ``alone``: only that, on a transparent ground."""
        # Two passes, because the network is here and the pixels are there: the full picture never crosses over.
        with self._one:
            prepared = self._workers.submit(SourceFile(filed.path, 0, 0, 0, now())).result()
            if prepared.sha256 != filed.sha256:
                return None
            [prediction] = self._classifier.classify([prepared])
            drawn = layer if alone else painted
            finish = partial(drawn, side=side, evidence=prediction.evidence, preprocessor=self._preprocessor)
            return self._workers.draw(Filed(filed.path, filed.sha256, prediction.frame), finish).result()
