"""Does the model look at what it must not look at? Markers, borders and inversion, added to the val split's pictures.

    python -m benchmarks.shortcuts --labels manifest.csv --data images

Nothing that is added tells anything of a fracture, so the scores should stay as they are. The weights must not have
learned from the val split; the shipped ones have.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from sklearn.metrics import roc_auc_score

from fracture_watch.imaging import read
from fracture_watch.model import load_classifier
from fracture_watch.model.classifier import Classifier
from fracture_watch.model.heatmap import aligned
from fracture_watch.records import Label, Pixels
from fracture_watch.training.data import Example, Sources, grey
from fracture_watch.training.judging import truth_of

ROOT = Path(__file__).parent.parent
EDGE = 0.04  # of each side


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, default=ROOT / "saved_models" / "fracture_best_model.pth")
    parser.add_argument("--every", type=int, default=1, help="take every n-th picture of each label")
    arguments = parser.parse_args()
    val = [e for e in Sources(arguments.labels, arguments.data).examples() if e.split == "val"]
    chosen = [
        e for fractured in (True, False) for e in [e for e in val if e.fractured is fractured][:: arguments.every]
    ]
    model = load_classifier(arguments.weights, device="cpu")
    plain = _looked(model, chosen, "nothing")
    print(f"{len(chosen)} pictures\n")
    print("| added | AUROC | label changed | median change of the probability | positives that point at an edge |")
    print("|---|---|---|---|---|")
    for name in CHANGES:
        run = plain if name == "nothing" else _looked(model, chosen, name)
        auroc = roc_auc_score(truth_of(chosen), run.probability)
        moved = float(np.median(np.abs(run.probability - plain.probability)))
        changed = (run.positive != plain.positive).mean()
        print(f"| {name} | {auroc:.3f} | {changed:.1%} | {moved:.3f} | {run.at_edge:.1%} |", flush=True)


class _Looked(NamedTuple):
    probability: NDArray[np.float64]
    positive: NDArray[np.bool_]
    at_edge: float  # the share of positives whose hottest point lies within EDGE of the picture's edge


def _looked(model: Classifier, examples: list[Example], name: str) -> _Looked:
    probability, positive, at_edge = [], [], []
    for example in examples:
        radiograph = read(example.path)
        shown = replace(radiograph, pixels=CHANGES[name](grey(radiograph.pixels)))
        [found] = model.predict([shown])
        probability.append(found.probability)
        positive.append(found.label is Label.FRACTURED)
        if positive[-1] and found.evidence is not None:
            at_edge.append(
                _at_edge(aligned(found.evidence, model.card.preprocessor, shown.pixels.shape, *shown.pixels.shape))
            )
    return _Looked(np.array(probability), np.array(positive), float(np.mean(at_edge)))


def _at_edge(heat: NDArray[np.float32]) -> bool:
    point = np.array(np.unravel_index(int(heat.argmax()), heat.shape)) / heat.shape
    return bool((point < EDGE).any() or (point > 1 - EDGE).any())


def _marker(pixels: Pixels) -> Pixels:
    image = Image.fromarray(pixels)
    side = max(image.size)
    ImageDraw.Draw(image).text((side // 50, side // 50), "R", fill=255, font=ImageFont.load_default(side // 14))
    return np.asarray(image)


def _collimator(pixels: Pixels) -> Pixels:
    rows, columns = (round(length * EDGE) for length in pixels.shape)
    covered = np.zeros_like(pixels)
    covered[rows:-rows, columns:-columns] = pixels[rows:-rows, columns:-columns]
    return covered


def _border(pixels: Pixels) -> Pixels:
    rows, columns = (round(length * EDGE) for length in pixels.shape)
    return np.pad(pixels, ((rows, rows), (columns, columns)))


CHANGES: dict[str, Callable[[Pixels], Pixels]] = {
    "nothing": lambda pixels: pixels,
    "a marker R in a corner": _marker,
    "a collimator over the outer 4 %": _collimator,
    "a black border of 4 % around it": _border,
    "mirrored": lambda pixels: np.ascontiguousarray(pixels[:, ::-1]),
    "inverted": lambda pixels: 255 - pixels,
}

if __name__ == "__main__":
    main()
