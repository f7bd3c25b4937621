"""Logits and labels -> calibration, an operating point, and figures with 95 % intervals bootstrapped by group."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_curve
from sklearn.model_selection import StratifiedGroupKFold

from fracture_watch.errors import WrongUse
from fracture_watch.model.card import Calibration
from fracture_watch.training import bootstrap, thresholds
from fracture_watch.training.bootstrap import Sample, Values, Weights
from fracture_watch.training.data import Example
from fracture_watch.training.figures import FEWEST, Bootstrap

Scores: TypeAlias = NDArray[np.float64]
Truth: TypeAlias = NDArray[np.bool_]
Indices: TypeAlias = NDArray[np.int64]
Figure: TypeAlias = dict[str, float]


def calibrate(fractured: Truth, logits: Scores) -> Calibration:
    """Platt scaling: one logistic regression on the logit, unregularised.

    Raises
    ------
    WrongUse
        If fractured pictures have no higher logits than others: there is nothing to calibrate.
    """
    fit = LogisticRegression(C=np.inf).fit(logits[:, None], fractured)
    slope = round(float(fit.coef_[0, 0]), 6)
    if not slope > 0:
        raise WrongUse(
            f"on {len(logits)} pictures that it did not learn from the network is no better than chance: its answers "
            "cannot be calibrated and no card is written; look at the labels, or train longer or on more pictures"
        )
    return Calibration(
        slope=slope,
        intercept=round(float(fit.intercept_[0]), 6),
        prevalence=round(float(fractured.mean()), 4),
    )


def calibrated(calibration: Calibration, logits: Scores) -> Scores:
    """Probabilities of *fractured*, shape (n,)."""
    return np.asarray(1 / (1 + np.exp(-(calibration.slope * logits + calibration.intercept))))


def youden_threshold(fractured: Truth, probability: Scores) -> float:
    """The probability that maximises sensitivity + specificity - 1 (Youden's J)."""
    false_positive, true_positive, scores = roc_curve(fractured, probability)
    return thresholds.short(float(scores[np.argmax(true_positive - false_positive)]), probability)


def folds_of(examples: Sequence[Example], folds: int, seed: int) -> list[tuple[Indices, Indices]]:
    """Every example once among *these* (second) with enough *others* (first) of other groups to calibrate on.

    Raises
    ------
    WrongUse
        If there are fewer than five examples of a class, or some fold leaves none of it to the others.
    """
    fractured = truth_of(examples)
    if min(fractured.sum(), (~fractured).sum()) < FEWEST:
        raise WrongUse(
            f"calibration and figures need {FEWEST} pictures of each label to measure on; there are "
            f"{fractured.sum()} fractured and {(~fractured).sum()} not"
        )
    groups = [e.group for e in examples]
    splits = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(fractured, fractured, groups)
    found = list(splits)
    if any(fractured[others].all() or not fractured[others].any() for others, _ in found):
        raise WrongUse(
            "calibration and threshold are measured on other groups than they were chosen on, and the pictures to "
            "measure on have too few groups of a label for that; spread both labels over more groups"
        )
    return found


class Judged(NamedTuple):
    """Calibrated probability of *fractured*, and whether it is called so, one of each an example: shape (n,)."""

    probability: Scores
    fractured: Truth


def judge(examples: Sequence[Example], logits: Scores, folds: int, seed: int) -> Judged:
    """Judge each example by a calibration and threshold that were chosen on other groups only.

    Raises
    ------
    WrongUse
        As ``folds_of`` and ``calibrate``.
    """
    fractured = truth_of(examples)
    probability, called = np.zeros(len(examples)), np.zeros(len(examples), bool)
    for others, these in folds_of(examples, folds, seed):
        fit = calibrate(fractured[others], logits[others])
        threshold = youden_threshold(fractured[others], calibrated(fit, logits[others]))
        probability[these] = calibrated(fit, logits[these])
        called[these] = probability[these] >= threshold
    return Judged(probability, called)


def truth_of(examples: Sequence[Example]) -> Truth:
    """Whether each example is fractured, shape (n,)."""
    return np.array([e.fractured for e in examples])


def evaluate(
    examples: Sequence[Example], scores: Scores, judged: Judged, seed: int, resamples: int = 1000
) -> dict[str, dict[str, Figure | int]]:
    """Figures over all examples, without visible hardware, and per flag with at least five of each class.

    Parameters
    ----------
    examples : sequence of Example
    scores : ndarray, shape (n,)
        Higher is more likely fractured.
    judged : Judged
    seed, resamples : int
        Of the bootstrap.

    Returns
    -------
    dict
        ``{subset: {"images", "fractured", "auroc": {"value", "low", "high"}, ...}}``
    """
    subsets = {"all": np.ones(len(examples), bool)}
    subsets["no hardware"] = np.array(["hardware" not in e.flags for e in examples])
    for flag in ("hand", "leg", "hip", "shoulder"):
        subsets[flag] = np.array([flag in e.flags for e in examples])
    truth = truth_of(examples)
    group = np.array([e.group for e in examples])
    report = {}
    for name, chosen in subsets.items():
        positives = int(truth[chosen].sum())
        if min(positives, int(chosen.sum()) - positives) >= FEWEST:
            scored, rated = (Sample(truth, values, group).part(chosen) for values in (scores, judged.probability))
            report[name] = _figures(scored, rated, judged.fractured[chosen], seed, resamples)
    return report


def _figures(scored: Sample, rated: Sample, called: Truth, seed: int, resamples: int) -> dict[str, Figure | int]:
    """Figures of one subset: of its scores, which only have an order, of its probabilities, and of what was called."""
    measures: dict[str, tuple[Sample, Callable[[Sample, Weights], Values]]] = {
        "auroc": (scored, bootstrap.auroc),
        "average_precision": (scored, bootstrap.average_precision),
        "sensitivity": (scored, lambda part, weights: bootstrap.share(called, weights * part.truth)),
        "specificity": (scored, lambda part, weights: bootstrap.share(~called, weights * ~part.truth)),
        "sensitivity_at_specificity_0.90": (scored, lambda part, weights: bootstrap.sensitivity_at(0.9, part, weights)),
        "ece": (rated, bootstrap.calibration_error),
    }
    how = Bootstrap(seed, resamples, digits=3)
    counts = {"images": len(scored.truth), "fractured": int(scored.truth.sum())}
    return counts | {name: asdict(how.interval(sample, measure)) for name, (sample, measure) in measures.items()}
