"""What a network says of labelled pictures, view by view, made as serving makes it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fracture_watch.model.classifier import Classifier
from fracture_watch.model.pooling import Logits, Pool, pooled
from fracture_watch.training.data import Example, Track, displayed
from fracture_watch.training.pointing import pointing_game


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """One of each an example.

    Attributes
    ----------
    logits : list of ndarray, each of shape (1, views)
        Of *fractured*; a narrow picture has fewer tiles than others.
    hits : list of bool or None
        Whether the heat map's hottest point lies in a fracture box; ``None`` without boxes.
    """

    logits: list[Logits]
    hits: list[bool | None]

    def pooled(self, pool: Pool) -> Logits:
        """One logit a picture, shape (n,)."""
        return np.concatenate([pooled(views, pool) for views in self.logits])

    @property
    def whole(self) -> Logits:
        """The whole picture's logit, shape (n,)."""
        return np.concatenate([views[:, 0] for views in self.logits])


def ask(classifier: Classifier, examples: Sequence[Example], track: Track) -> Answers:
    """Show every example to the classifier."""
    logits = view_logits(classifier, examples, track)
    boxed = [example for example in examples if example.boxes]
    hits = dict(zip((e.path for e in boxed), pointing_game(classifier, track(boxed, "pointing")), strict=True))
    return Answers(logits, [bool(hits[e.path]) if e.path in hits else None for e in examples])


def view_logits(classifier: Classifier, examples: Sequence[Example], track: Track) -> list[Logits]:
    """Logits of *fractured* for every view of every example: each of shape (1, views)."""
    preprocessor = classifier.card.preprocessor
    pictures = (preprocessor(displayed(example).pixels)[np.newaxis] for example in track(examples, "measuring"))
    return [classifier.view_logits(picture) for picture in pictures]
