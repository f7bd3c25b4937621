"""``python -m benchmarks.runtimes FOLDER LABELS.csv``: the torch and the OpenVINO runtime on the same pictures.

Prints whether they decide alike, the largest difference of probability, and the milliseconds of one prediction from
the small tensor, one picture at a time, both runtimes by turns.
"""

import argparse
import csv
import os
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fracture_watch import load_classifier
from fracture_watch.allocator import keep_freed_memory
from fracture_watch.imaging.limits import Limits, Scope
from fracture_watch.imaging.workers import Plan, prepare
from fracture_watch.model.preprocess import Small
from fracture_watch.records import Prediction, Prepared, SourceFile

if TYPE_CHECKING:
    from fracture_watch.model.classifier import Classifier

_WARM_UP = 10  # predictions that are not counted


def main() -> None:
    """Compare, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("labels", type=Path, help="CSV with the columns image and split")
    parser.add_argument("--split", default="val")
    parser.add_argument("--weights", type=Path, default=Path("saved_models/fracture_best_model.pth"))
    parser.add_argument("--limit", type=int, help="so many pictures; all by default")
    options = parser.parse_args()
    # As in serving.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_freed_memory()
    with options.labels.open(newline="", encoding="utf-8") as file:
        paths = [options.folder / row["image"] for row in csv.DictReader(file) if row["split"] == options.split]
    paths = paths[: options.limit]
    torch_model = load_classifier(options.weights, device="cpu")
    began = time.perf_counter()
    openvino_model = load_classifier(options.weights, runtime="openvino")
    print(f"loading and converting for OpenVINO: {time.perf_counter() - began:.1f} s")
    plan = Plan(Small(torch_model.card.preprocessor), Limits(), Scope())
    pictures = [prepare(SourceFile(path, 0, 0, 0, ""), plan) for path in paths]
    pairs = [(_timed(torch_model, picture), _timed(openvino_model, picture)) for picture in pictures]
    _report([(one, other) for (one, _), (other, _) in pairs])
    for name, side in (("torch", 0), ("openvino", 1)):
        taken = [pair[side][1] for pair in pairs[_WARM_UP:]]
        low, median, high = np.percentile(taken, [5, 50, 95])
        print(f"{name}: median {median:.1f} ms a prediction (5 % {low:.1f}, 95 % {high:.1f}), n = {len(taken)}")
    ratio = statistics.median(one / other for (_, one), (_, other) in pairs[_WARM_UP:])
    print(f"openvino is {ratio:.1f} times as fast (median of the pairs)")


def _timed(model: "Classifier", picture: Prepared) -> tuple[Prediction, float]:
    began = time.perf_counter()
    [prediction] = model.classify([picture])
    return prediction, (time.perf_counter() - began) * 1000


def _report(pairs: list[tuple[Prediction, Prediction]]) -> None:
    same = sum(one.label is other.label for one, other in pairs)
    apart = max(abs(one.probability - other.probability) for one, other in pairs)
    print(f"{same} of {len(pairs)} decisions alike; the largest difference of probability is {apart:.2g}")


if __name__ == "__main__":
    main()
