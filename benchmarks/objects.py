"""What it costs to build a result's DICOM objects, beside its classification.

    python -m benchmarks.objects

Processor time in one process, best of some: reading and decoding the file once more, the heat map of the shipped
card's views, the object. The files are drawn, 12 bit, uncompressed.
"""

import argparse
import hashlib
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np

from demo import phantoms
from fracture_watch.imaging.limits import Limits
from fracture_watch.model.card import Card
from fracture_watch.model.heatmap import Illustrator
from fracture_watch.objects import Order, build
from fracture_watch.records import Kind, Label, Prediction
from fracture_watch.times import now

WEIGHTS = Path(__file__).parents[1] / "saved_models" / "fracture_best_model.pth"
SHAPES = (1200, 800), (2500, 2048)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    times = parser.parse_args().times
    card = Card.load(WEIGHTS)
    views = len(card.preprocessor.boxes(*SHAPES[0]))
    evidence = np.random.default_rng(20).normal(size=(views, 7, 7)).astype(np.float32)
    prediction = Prediction(Label.FRACTURED, 0.9, card.threshold.value, card.facts, 0, evidence)
    illustrator = Illustrator(card.preprocessor, "all")
    print(f"{platform.machine()}, load {os.getloadavg()[0]:.1f}; {card.name} {card.version}, {views} views\n")
    print("| file | object | CPU ms | kB |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for rows, columns in SHAPES:
            path = Path(name) / f"{rows}.dcm"
            phantoms.dataset(9, True, phantoms.draw(9, True, rows, columns)).save_as(path, enforce_file_format=True)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            for kind in (Kind.SR, Kind.SC):
                order = Order(path, digest, prediction, now(), frozenset({kind}), "benchmark")
                build(order, Limits(), illustrator)  # imports
                spent = []
                for _ in range(times):
                    began = time.process_time()
                    made = build(order, Limits(), illustrator)
                    spent.append(time.process_time() - began)
                size = len(made[kind]) / 1000
                print(f"| {rows} x {columns} | {kind.upper()} | {min(spent) * 1000:.0f} | {size:,.0f} |")


if __name__ == "__main__":
    main()
