"""What a network says of labelled pictures, view by view, made as serving makes it."""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from fracture_watch.delivery.exports import write_csv
from fracture_watch.disk import write_whole
from fracture_watch.model.card import Card
from fracture_watch.model.classifier import Classifier
from fracture_watch.model.pooling import Logits, Pool, pooled
from fracture_watch.records import Label
from fracture_watch.training.data import Example, Track, displayed
from fracture_watch.training.judging import calibrated
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


def write_answers(path: Path, examples: Sequence[Example], answers: Answers, card: Card, pictures: Path) -> None:
    """Write a CSV with a line a picture: the columns of an evaluation's answers, the hit, and what the card pooled.

    Parameters
    ----------
    path : Path
    examples : sequence of Example
    answers : Answers
        To ``examples``.
    card : Card
        With the calibration and threshold that follow from them.
    pictures : Path
        The folder that files are named from.
    """
    logits = answers.pooled(card.pool)
    tiles = max(views.shape[1] for views in answers.logits) - 1
    names = ["logit", "whole", *(f"tile_{number}" for number in range(1, tiles + 1))]
    rows = [
        {
            "file": os.path.relpath(example.path, pictures),
            "label": _label(example.fractured),
            "prediction": _label(probability >= card.threshold.value),
            "probability": probability,
            "group": example.group,
            "hit": hit,
        }
        | dict(zip_longest(names, (logit, *views[0])))  # a narrow picture leaves its last ones empty
        for example, views, hit, logit, probability in zip(
            examples, answers.logits, answers.hits, logits, calibrated(card.calibration, logits), strict=True
        )
    ]
    text = io.StringIO()
    write_csv(rows, rows[0], text)
    write_whole(path, text.getvalue().encode())


def _label(fractured: bool) -> Label:
    return Label.FRACTURED if fractured else Label.NOT_FRACTURED


def view_logits(classifier: Classifier, examples: Sequence[Example], track: Track) -> list[Logits]:
    """Logits of *fractured* for every view of every example: each of shape (1, views)."""
    preprocessor = classifier.card.preprocessor
    pictures = (preprocessor(displayed(example).pixels)[np.newaxis] for example in track(examples, "measuring"))
    return [classifier.view_logits(picture) for picture in pictures]
