"""The curves of an evaluation, as SVG data URLs for a page that needs no other file."""

import io
from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from fracture_watch.model.heatmap import data_url
from fracture_watch.training.bootstrap import Sample
from fracture_watch.training.figures import calibration_bins, rates

_MODEL, _CHANCE = "#1f5fa8", "#888888"


def plots(sample: Sample, threshold: float) -> dict[str, str]:
    """ROC curve, precision and recall, reliability, and the distribution of probabilities, by title."""
    drawings: dict[str, Callable[[Axes], None]] = {
        "ROC curve": lambda axes: _roc(axes, sample, threshold),
        "Precision and recall": lambda axes: _precision_recall(axes, sample),
        "Reliability": lambda axes: _reliability(axes, sample),
        "Probabilities": lambda axes: _distribution(axes, sample, threshold),
    }
    return {title: _drawn(draw) for title, draw in drawings.items()}


def _roc(axes: Axes, sample: Sample, threshold: float) -> None:
    false_positive, true_positive, _ = roc_curve(sample.truth, sample.probability)
    axes.plot([0, 1], [0, 1], "--", color=_CHANCE, linewidth=1)
    axes.plot(false_positive, true_positive, color=_MODEL)
    sensitivity, specificity = rates(sample, threshold)
    axes.plot([1 - specificity], [sensitivity], "o", color=_MODEL, label=f"threshold {threshold:.3g}")
    axes.set(xlabel="1 - specificity", ylabel="sensitivity")
    axes.legend(loc="lower right")


def _precision_recall(axes: Axes, sample: Sample) -> None:
    precision, recall, _ = precision_recall_curve(sample.truth, sample.probability)
    share = float(sample.truth.mean())
    axes.plot([0, 1], [share, share], "--", color=_CHANCE, linewidth=1)
    axes.plot(recall, precision, color=_MODEL, drawstyle="steps-post")
    axes.set(xlabel="sensitivity (recall)", ylabel="precision", ylim=(0, 1.02))


def _reliability(axes: Axes, sample: Sample) -> None:
    means, shares, _ = zip(*calibration_bins(sample), strict=True)
    axes.plot([0, 1], [0, 1], "--", color=_CHANCE, linewidth=1)
    axes.plot(means, shares, "o-", color=_MODEL)
    axes.set(xlabel="mean probability (ten bins of equal count)", ylabel="share fractured", ylim=(-0.02, 1.02))


def _distribution(axes: Axes, sample: Sample, threshold: float) -> None:
    edges = np.linspace(0, 1, 26).tolist()
    parts = sample.probability[~sample.truth], sample.probability[sample.truth]
    axes.hist(parts, edges, label=("not fractured", "fractured"), color=(_CHANCE, _MODEL), stacked=True)
    axes.axvline(threshold, color="black", linewidth=1)
    axes.set(xlabel="probability", ylabel="images")
    axes.legend()


def _drawn(draw: Callable[[Axes], None]) -> str:
    figure = Figure(figsize=(4.6, 3.8), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(alpha=0.25)
    draw(axes)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return data_url(buffer.getvalue(), "image/svg+xml")
