"""Accuracy against time of a tiled model: the whole picture alone, and with more and more tiles, by every pool.

    python -m benchmarks.views --labels manifest.csv --data images --boxes boxes.csv

One forward pass over the val split serves all rows: the tiles of the smaller layouts are among those of 3 x 3. The
weights must not have learned from that split; the shipped ones have.
"""

import argparse
import os
import time
from pathlib import Path
from typing import cast, get_args

import numpy as np
from sklearn.metrics import roc_auc_score

from fracture_watch.imaging import read
from fracture_watch.model import load_classifier
from fracture_watch.model.card import Card, Views
from fracture_watch.model.classifier import Classifier
from fracture_watch.model.pooling import Logits, Pool, pooled
from fracture_watch.training.answers import view_logits
from fracture_watch.training.data import Example, Sources
from fracture_watch.training.judging import evaluate, judge, truth_of
from fracture_watch.training.pointing import hit_rate, pointing_game

ROOT = Path(__file__).parent.parent
LAYOUTS: dict[str, set[tuple[int, int]]] = {  # (along, across) of the tiles among 3 x 3
    "2 x 2": {(i, j) for i in (0, 2) for j in (0, 2)},
    "3 x 2": {(i, j) for i in range(3) for j in (0, 2)},
    "3 x 3": {(i, j) for i in range(3) for j in range(3)},
}
TILES = {"2 x 2": (2, 2), "3 x 2": (3, 2), "3 x 3": (3, 3)}
SEED, RESAMPLES = 20, 500


def main() -> None:
    """Print the tables."""
    arguments = _arguments()
    sources = Sources(arguments.labels, arguments.data, arguments.boxes)
    examples = [e for e in sources.examples() if e.split == "val"]
    model = load_classifier(arguments.weights, device="cpu")
    if model.card.input.views == "whole":
        raise SystemExit("needs a model whose card asks for tiles")
    model = Classifier(model.network, _with_tiles(model.card, "3 x 3"), "cpu")
    tall = [_tall(example) for example in examples]
    logits = view_logits(model, examples, lambda items, _: items)
    print(
        "| views | pool | AUROC | average precision | AUROC without hardware | less whole alone |\n" + "|---" * 6 + "|"
    )
    whole = np.array([row[0, 0] for row in logits])
    _row("whole", "", examples, whole, whole)
    for layout in LAYOUTS:
        chosen = [row[:, _kept(layout, up, row.shape[1])] for row, up in zip(logits, tall, strict=True)]
        for pool in get_args(Pool):
            scores = np.concatenate([pooled(row, pool) for row in chosen])
            _row(f"whole + {layout}", pool, examples, scores, whole)
    print()
    _costs(model, [e for e in examples if e.boxes], arguments.repeats)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--boxes", type=Path, required=True)
    parser.add_argument("--weights", type=Path, default=ROOT / "saved_models" / "fracture_best_model.pth")
    parser.add_argument("--repeats", type=int, default=15, help="of each timing")
    return parser.parse_args()


def _tall(example: Example) -> bool:
    rows, columns = read(example.path).pixels.shape[:2]
    return bool(rows >= columns)


def _kept(layout: str, tall: bool, views: int) -> list[int]:
    """Which views of whole + 3 x 3 (or, in a narrow picture, whole + 3) are those of a smaller layout."""
    if views < 10:
        return [0, *(1 + i for i in sorted({along for along, _ in LAYOUTS[layout]}))]
    return [0, *sorted(1 + (3 * i + j if tall else 3 * j + i) for i, j in LAYOUTS[layout])]


def _row(views: str, pool: str, examples: list[Example], scores: Logits, whole: Logits) -> None:
    report = evaluate(examples, scores, judge(examples, scores, 5, SEED), SEED, RESAMPLES)
    figures = [report["all"]["auroc"], report["all"]["average_precision"], report["no hardware"]["auroc"]]
    cells = [f"{f['value']:.3f} ({f['low']:.3f} to {f['high']:.3f})" for f in cast(list[dict[str, float]], figures)]
    gain = roc_auc_score(truth_of(examples), scores) - roc_auc_score(truth_of(examples), whole)
    print(f"| {views} | {pool} | {' | '.join(cells)} | {gain:+.3f} |", flush=True)


def _costs(model: Classifier, boxed: list[Example], repeats: int) -> None:
    """Time of one file from its small tensors, and how well its heat map points, for every layout."""
    print(f"| views | ms a file (median of {repeats}, load {os.getloadavg()[0]:.1f}) | heat map hits a fracture |")
    print("|---|---|---|")
    radiograph = read(boxed[0].path)
    for name in ("whole", *TILES):
        card = _with_tiles(model.card, name)
        one = Classifier(model.network, card, "cpu")
        tensor = card.preprocessor(radiograph.pixels)[np.newaxis]
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            one.view_logits(tensor)
            times.append((time.perf_counter() - began) * 1000)
        rate = hit_rate(boxed, pointing_game(one, boxed), SEED, RESAMPLES)
        figures = f"{rate['value']:.2f} ({rate['low']:.2f} to {rate['high']:.2f}) of {rate['images']}"
        print(f"| {tensor.shape[1]}: {name} | {np.median(times):.0f} | {figures} |", flush=True)


def _with_tiles(card: Card, layout: str) -> Card:
    views = card.input.views
    if layout == "whole" or views == "whole":
        return card.with_one_view()
    update = {"views": Views(tiles=TILES[layout], long_side=views.long_side, pool=views.pool)}
    return card.model_copy(update={"input": card.input.model_copy(update=update)})


if __name__ == "__main__":
    main()
