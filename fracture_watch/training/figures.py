"""Truth and probabilities -> figures with 95 % intervals, bootstrapped by group."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from sklearn.metrics import confusion_matrix, roc_curve

from fracture_watch.errors import WrongUse
from fracture_watch.model.card import Threshold
from fracture_watch.training import bootstrap, thresholds
from fracture_watch.training.bootstrap import BINS, Sample, Values, Weights

Quantity: TypeAlias = Literal["sensitivity", "specificity"]

FEWEST = 5  # of each class, below which a subgroup gets counts and no figures
MOST_VALUES = 12  # a column with more different values (a width, a date) makes no subgroups


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts at the threshold; positive is *fractured*."""

    true_positive: int
    false_negative: int
    false_positive: int
    true_negative: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What a set of images says of the model; ``ece`` is over ten bins of equal count."""

    images: int
    fractured: int
    groups: int
    confusion: Confusion
    auroc: Interval
    average_precision: Interval
    sensitivity: Interval
    specificity: Interval
    brier: Interval
    ece: Interval


@dataclass(frozen=True, slots=True)
class Subgroup:
    """A property's value; without figures where it has fewer than five images of a class."""

    name: str
    value: str
    images: int
    fractured: int
    figures: Figures | None


@dataclass(frozen=True, slots=True)
class Aim:
    """A wanted sensitivity or specificity, at least."""

    quantity: Quantity
    at_least: float

    def __str__(self) -> str:
        return f"{self.quantity} >= {self.at_least:g}"


AIMS = tuple(
    Aim(quantity, at_least) for quantity in ("sensitivity", "specificity") for at_least in (0.8, 0.9, 0.95, 0.98)
)


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """The threshold that reaches an aim on these images, and the other rate there."""

    aim: str
    threshold: float
    sensitivity: Interval
    specificity: Interval


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How intervals are made: ``resamples`` draws of whole groups."""

    seed: int = 20
    resamples: int = 1000
    digits: int = 4

    def interval(
        self, sample: Sample, figure: Callable[[Sample, Weights], Values], value: float | None = None
    ) -> Interval:
        """The figure of the sample, or ``value``, with the middle 95 % of the draws' figures."""
        middle = bootstrap.whole(sample, figure) if value is None else value
        low, high = np.percentile(bootstrap.drawn(sample, self.seed, self.resamples, figure), [2.5, 97.5])
        return Interval(*(round(float(end), self.digits) for end in (middle, low, high)))


def parse_wish(text: str, because: str | None) -> float | Aim:
    """A threshold, or an aim such as ``sensitivity>=0.90`` that chooses one.

    Raises
    ------
    WrongUse
        If it is neither, or a bare threshold comes without a reason.
    """
    found = re.fullmatch(r"(sensitivity|specificity)\s*>=\s*(0?\.\d+|1(?:\.0*)?)", text.strip())
    if found and float(found[2]) > 0:
        return Aim("sensitivity" if found[1] == "sensitivity" else "specificity", float(found[2]))
    decimal = re.fullmatch(r"0?\.\d+", text.strip())
    if not decimal or not 0 < float(decimal[0]) < 1:  # digits beyond a float64's make it 0 or 1
        raise WrongUse(
            f"--set-threshold {text}: is neither a probability such as 0.31 nor an aim such as 'sensitivity>=0.90'"
        )
    if not because:
        raise WrongUse(f"--set-threshold {text} needs --because TEXT: the card says how its threshold was chosen")
    return float(text)


def measure(sample: Sample, threshold: float, how: Bootstrap) -> Figures:
    """Every figure of a sample that has both classes, at ``threshold``."""
    truth, probability = sample.truth, sample.probability
    [[tn, fp], [fn, tp]] = confusion_matrix(truth, probability >= threshold).tolist()

    def sensitivities(part: Sample, weights: Weights) -> Values:
        return bootstrap.share(part.probability >= threshold, weights * part.truth)

    def specificities(part: Sample, weights: Weights) -> Values:
        return bootstrap.share(part.probability < threshold, weights * ~part.truth)

    return Figures(
        images=len(truth),
        fractured=int(truth.sum()),
        groups=len(np.unique(sample.group)),
        confusion=Confusion(tp, fn, fp, tn),
        auroc=how.interval(sample, bootstrap.auroc),
        average_precision=how.interval(sample, bootstrap.average_precision),
        sensitivity=how.interval(sample, sensitivities),
        specificity=how.interval(sample, specificities),
        brier=how.interval(sample, bootstrap.brier),
        ece=how.interval(sample, bootstrap.calibration_error),
    )


def calibration_bins(sample: Sample) -> list[tuple[float, float, int]]:
    """Ten bins of equal count, from the lowest probability up: mean probability, share fractured, count."""
    order = np.argsort(sample.probability, kind="stable")
    number = np.arange(len(order)) * BINS // len(order)
    bins = [order[number == n] for n in np.unique(number)]
    return [(float(sample.probability[b].mean()), float(sample.truth[b].mean()), len(b)) for b in bins]


def threshold_for(sample: Sample, aim: Aim) -> float:
    """The threshold that reaches the aim and is best for the other rate, short and inside (0, 1)."""
    false_positive, true_positive, scores = roc_curve(sample.truth, sample.probability, drop_intermediate=False)
    if aim.quantity == "sensitivity":
        chosen = np.argmax(true_positive >= aim.at_least)
    else:
        chosen = np.flatnonzero(false_positive <= 1 - aim.at_least + 1e-12)[-1]
    return thresholds.short(float(scores[chosen]), sample.probability)


def rates(sample: Sample, threshold: float) -> tuple[float, float]:
    """Sensitivity and specificity at a threshold."""
    called = sample.probability >= threshold
    return float(called[sample.truth].mean()), float((~called[~sample.truth]).mean())


def operating_point(sample: Sample, aim: Aim, how: Bootstrap) -> OperatingPoint:
    """The aim's threshold and both rates there; for the intervals each draw chooses its threshold anew."""
    threshold = threshold_for(sample, aim)
    sensitivity, specificity = rates(sample, threshold)

    def drawn(part: Sample, weights: Weights) -> tuple[Values, Values]:
        found = bootstrap.curves(part, weights)
        positive, negative = found.sensitivity, 1 - found.fall_out
        reached = positive >= aim.at_least if aim.quantity == "sensitivity" else negative < aim.at_least - 1e-12
        first = np.argmax(reached, axis=1)  # sensitivity: the first that reaches it; specificity: one past the last
        rows = np.arange(len(first))
        if aim.quantity == "sensitivity":
            return positive[rows, first], negative[rows, first]
        none = np.zeros(len(first))
        at = first - 1
        return np.where(at < 0, none, positive[rows, at]), np.where(at < 0, none + 1, negative[rows, at])

    return OperatingPoint(
        str(aim),
        threshold,
        how.interval(sample, lambda part, weights: drawn(part, weights)[0], sensitivity),
        how.interval(sample, lambda part, weights: drawn(part, weights)[1], specificity),
    )


def choose_threshold(wish: float | Aim, because: str | None, sample: Sample, labels: str) -> Threshold:
    """An operating point for the card, with how it was chosen and what it gives on these images, called ``labels``."""
    aimed = isinstance(wish, Aim)
    value = threshold_for(sample, wish) if isinstance(wish, Aim) else wish
    sensitivity, specificity = rates(sample, value)
    reason = ", ".join(filter(None, (str(wish) if aimed else None, because)))
    where = f"{labels} ({len(sample.truth)} images, {int(sample.truth.sum())} fractured)"
    there = f"sensitivity {sensitivity:.3f}, specificity {specificity:.3f} there"
    return Threshold(value=value, chosen=f"{reason}; {'chosen' if aimed else 'measured'} on {where}: {there}")


def subgroups(
    sample: Sample, properties: Sequence[Mapping[str, str]], threshold: float, how: Bootstrap
) -> list[Subgroup]:
    """Figures for every value of every property that tells the images apart and has at most twelve of them."""
    found = []
    for name in sorted({name for each in properties for name in each}):
        values = np.array([each.get(name, "") for each in properties])
        different = sorted(set(values.tolist()))
        if 1 < len(different) <= MOST_VALUES:
            found += [_subgroup(sample.part(values == value), name, value, threshold, how) for value in different]
    return found


def _subgroup(part: Sample, name: str, value: str, threshold: float, how: Bootstrap) -> Subgroup:
    images, fractured = len(part.truth), int(part.truth.sum())
    enough = min(fractured, images - fractured) >= FEWEST
    return Subgroup(name, value, images, fractured, measure(part, threshold, how) if enough else None)
