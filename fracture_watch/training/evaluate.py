"""Logits and labels -> calibration, an operating point, and figures with 95 % intervals bootstrapped by group."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from sklearn.model_selection import StratifiedGroupKFold

from fracture_watch.model.card import Calibration
from fracture_watch.training.data import Example

Scores: TypeAlias = NDArray[np.float64]
Truth: TypeAlias = NDArray[np.bool_]
Figure: TypeAlias = dict[str, float]


def calibrate(fractured: Truth, logits: Scores) -> Calibration:
    """Platt scaling: one logistic regression on the logit, unregularised."""
    fit = LogisticRegression(C=np.inf).fit(logits[:, None], fractured)
    return Calibration(
        slope=round(float(fit.coef_[0, 0]), 6),
        intercept=round(float(fit.intercept_[0]), 6),
        prevalence=round(float(fractured.mean()), 4),
    )


def calibrated(calibration: Calibration, logits: Scores) -> Scores:
    """Probabilities of *fractured*, shape (n,)."""
    return np.asarray(1 / (1 + np.exp(-(calibration.slope * logits + calibration.intercept))))


def youden_threshold(fractured: Truth, probability: Scores) -> float:
    """The probability that maximises sensitivity + specificity - 1 (Youden's J)."""
    false_positive, true_positive, thresholds = roc_curve(fractured, probability)
    best = int(np.argmax(true_positive - false_positive))
    return round(float(np.clip(thresholds[best], 1e-4, 1 - 1e-4)), 4)


def decide_out_of_fold(examples: Sequence[Example], logits: Scores, folds: int, seed: int) -> Truth:
    """Whether each example is called fractured by a calibration and threshold chosen on other groups only."""
    fractured, groups = truth_of(examples), [e.group for e in examples]
    decided = np.zeros(len(examples), bool)
    splits = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(logits[:, None], fractured, groups)
    for others, these in splits:
        fit = calibrate(fractured[others], logits[others])
        threshold = youden_threshold(fractured[others], calibrated(fit, logits[others]))
        decided[these] = calibrated(fit, logits[these]) >= threshold
    return decided


def truth_of(examples: Sequence[Example]) -> Truth:
    """Whether each example is fractured, shape (n,)."""
    return np.array([e.fractured for e in examples])


def evaluate(
    examples: Sequence[Example], scores: Scores, decided: Truth, seed: int, resamples: int = 1000
) -> dict[str, dict[str, Figure | int]]:
    """Figures over all examples, without visible hardware, and per flag with at least five of each class.

    Parameters
    ----------
    examples : sequence of Example
    scores : ndarray, shape (n,)
        Higher is more likely fractured.
    decided : ndarray of bool, shape (n,)
        Whether each was called fractured.
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
    truth, groups = truth_of(examples), np.array([e.group for e in examples])
    report = {}
    for name, chosen in subsets.items():
        positives = int(truth[chosen].sum())
        if min(positives, int(chosen.sum()) - positives) >= 5:
            samples = _resamples(truth[chosen], groups[chosen], seed, resamples)
            report[name] = _figures(truth[chosen], scores[chosen], decided[chosen], samples)
    return report


def _figures(
    truth: Truth, scores: Scores, decided: Truth, samples: Sequence[NDArray[np.int64]]
) -> dict[str, Figure | int]:
    measures: dict[str, Callable[[NDArray[np.int64]], float]] = {
        "auroc": lambda i: float(roc_auc_score(truth[i], scores[i])),
        "average_precision": lambda i: float(average_precision_score(truth[i], scores[i])),
        "sensitivity": lambda i: float(decided[i][truth[i]].mean()),
        "specificity": lambda i: float((~decided[i][~truth[i]]).mean()),
    }
    everything = np.arange(len(truth))
    report: dict[str, Figure | int] = {"images": len(truth), "fractured": int(truth.sum())}
    for name, measure in measures.items():
        low, high = np.percentile([measure(sample) for sample in samples], [2.5, 97.5])
        figures = {"value": measure(everything), "low": float(low), "high": float(high)}
        report[name] = {key: round(figure, 3) for key, figure in figures.items()}
    return report


def _resamples(truth: Truth, groups: NDArray[np.str_], seed: int, count: int) -> list[NDArray[np.int64]]:
    """Index arrays of resampled groups that hold both classes."""
    random = np.random.default_rng(seed)
    _, codes = np.unique(groups, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(codes))[:-1])
    samples: list[NDArray[np.int64]] = []
    while len(samples) < count:
        sample = np.concatenate([members[i] for i in random.integers(len(members), size=len(members))])
        if 0 < truth[sample].sum() < len(sample):
            samples.append(sample)
    return samples
