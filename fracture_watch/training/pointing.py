"""How often the hottest point of the heat map lies on the fracture."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from fracture_watch.model.classifier import Classifier
from fracture_watch.model.heatmap import aligned
from fracture_watch.training.data import Example, displayed

_SIDE = 256  # pixels of the heat map's long side: a few times finer than the evidence


def pointing_game(classifier: Classifier, examples: Iterable[Example]) -> NDArray[np.bool_]:
    """Whether the hottest point lies in a fracture box, for each example, all of them with boxes."""
    return np.array([_hit(classifier, example) for example in examples])


def hit_rate(examples: Sequence[Example], hits: NDArray[np.bool_], seed: int, resamples: int) -> dict[str, float | int]:
    """The share of hits with its 95 % interval, bootstrapped by group."""
    _, codes = np.unique([example.group for example in examples], return_inverse=True)
    found, seen = np.bincount(codes, hits), np.bincount(codes)
    chosen = np.random.default_rng(seed).integers(len(seen), size=(resamples, len(seen)))
    low, high = np.percentile(found[chosen].sum(axis=1) / seen[chosen].sum(axis=1), [2.5, 97.5])
    figures = {"value": hits.mean(), "low": low, "high": high}
    return {"images": len(hits)} | {name: round(float(figure), 3) for name, figure in figures.items()}


def _hit(classifier: Classifier, example: Example) -> bool:
    radiograph = displayed(example)
    [prediction] = classifier.predict([radiograph])
    if prediction.evidence is None:
        return False
    rows, columns = radiograph.pixels.shape[:2]
    scale = _SIDE / max(rows, columns)
    height, width = max(1, round(rows * scale)), max(1, round(columns * scale))
    heat = aligned(prediction.evidence, classifier.card.preprocessor, (rows, columns), height, width)
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    y, x = (row + 0.5) / height, (column + 0.5) / width
    return any(left <= x <= right and top <= y <= bottom for left, top, right, bottom in example.boxes)
