"""Labelled radiographs -> fitted weights, calibrated and measured, with their card."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from fracture_watch import golden
from fracture_watch.errors import WrongUse
from fracture_watch.imaging import read
from fracture_watch.model.card import Calibration, Card, Input, OneView, Threshold, Views, digest
from fracture_watch.model.classifier import Classifier
from fracture_watch.model.pooling import Logits, pooled
from fracture_watch.training.data import Example, Sources, Track
from fracture_watch.training.evaluate import (
    Scores,
    calibrate,
    calibrated,
    decide_out_of_fold,
    evaluate,
    truth_of,
    youden_threshold,
)
from fracture_watch.training.figures import Bootstrap
from fracture_watch.training.fit import Recipe, fit
from fracture_watch.training.pointing import hit_rate, pointing_game

_FOLDS = 5  # of val's groups, for figures at thresholds chosen on other groups


def train(
    sources: Sources,
    output: Path,
    recipe: Recipe,
    *,
    version: str,
    resamples: int = 1000,
    track: Track,
    say: Callable[[str], None],
) -> Card:
    """Train, calibrate, choose a threshold, measure, and write ``output`` and its card.

    The ``train`` split is fitted; a ``tune`` split, where there is one, chooses the epoch. Calibration and threshold
    are fitted on the ``val`` split; the sensitivity and specificity reported for it come from thresholds chosen on
    other groups only. An interrupted run goes on from ``<output>.checkpoint`` when it is repeated.

    Parameters
    ----------
    sources : Sources
        With boxes the network also learns on crops, and the card asks for tiles beside the whole picture.
    output : Path
        The ``.pth`` to write.
    recipe : Recipe
    version : str
    resamples : int
        Of the bootstrap that gives the intervals.
    track, say : function
        For progress.

    Raises
    ------
    WrongUse
        If the labels or boxes are unusable or the backbone's package is missing.
    """
    examples = sources.examples()
    fitted, tune, measured = ([e for e in examples if e.split == split] for split in ("train", "tune", "val"))
    for name, part in (("train", fitted), ("tune", tune), ("val", measured)):
        if {e.fractured for e in part} != {True, False} and (part or name != "tune"):
            raise WrongUse(f"{sources.labels}: the split {name} needs images of both labels")
    checkpoint = output.with_suffix(".checkpoint")
    network = fit(fitted, tune, recipe, checkpoint, track, say)
    torch.save(network.body.state_dict(), output)
    card = Card(
        name=output.stem.replace("_", "-"),
        version=version,
        architecture=recipe.architecture,
        input=Input(size=recipe.size, resize=recipe.resize, views=_views(recipe, fitted)),
        training={"images": len(fitted), "fractured": int(truth_of(fitted).sum()), "recipe": asdict(recipe)},
        sha256=digest(output),
    )
    card = _measured(Classifier(network, card), measured, Bootstrap(recipe.seed, resamples), track)
    card.save(output)
    checkpoint.unlink(missing_ok=True)
    return golden.write(output)


def _views(recipe: Recipe, examples: Sequence[Example]) -> Literal["whole"] | Views:
    """Tiles where tiles were learned: 3 x 2 cover a usual radiograph; a third column costs time and gained nothing."""
    if not recipe.crop_share or not any(e.boxes for e in examples):
        return "whole"
    return Views(tiles=(3, 2), long_side=recipe.long_side, pool="noisy-or")


def _measured(classifier: Classifier, examples: Sequence[Example], bootstrap: Bootstrap, track: Track) -> Card:
    """The card with calibration, threshold and figures on ``examples``."""
    card = classifier.card
    logits = view_logits(classifier, examples, track)
    scores = np.concatenate([pooled(views, card.pool) for views in logits])
    calibration, threshold, figures = _operating_point(examples, scores, bootstrap)
    update: dict[str, Any] = {"calibration": calibration, "threshold": threshold}
    metrics: dict[str, Any] = {"val": figures}
    if card.input.views != "whole":
        whole = np.concatenate([views[:, 0] for views in logits])
        alone, point, metrics["val_one_view"] = _operating_point(examples, whole, bootstrap)
        update["one_view"] = OneView(calibration=alone, threshold=point)
    boxed = [e for e in examples if e.boxes]
    if boxed:
        hits = pointing_game(classifier, track(boxed, "pointing"))
        metrics["val_pointing"] = hit_rate(boxed, hits, bootstrap.seed, bootstrap.resamples)
    return card.model_copy(update=update | {"metrics": metrics})


def view_logits(classifier: Classifier, examples: Sequence[Example], track: Track) -> list[Logits]:
    """Logits of *fractured* for every view of every example, made as serving makes them.

    Returns
    -------
    list of ndarray, each of shape (1, views)
        A narrow picture has fewer tiles than others.
    """
    preprocessor = classifier.card.preprocessor
    pictures = (preprocessor(read(example.path).pixels)[np.newaxis] for example in track(examples, "measuring"))
    return [classifier.view_logits(picture) for picture in pictures]


def _operating_point(
    examples: Sequence[Example], logits: Scores, bootstrap: Bootstrap
) -> tuple[Calibration, Threshold, dict[str, Any]]:
    calibration = calibrate(truth_of(examples), logits)
    value = youden_threshold(truth_of(examples), calibrated(calibration, logits))
    decided = decide_out_of_fold(examples, logits, _FOLDS, bootstrap.seed)
    threshold = Threshold(value=value, chosen="Youden's J (sensitivity + specificity - 1) on the val split")
    return calibration, threshold, evaluate(examples, logits, decided, bootstrap.seed, bootstrap.resamples)
