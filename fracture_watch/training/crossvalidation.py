"""Every labelled picture answered by a network that learned from neither it nor its neighbours."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from fracture_watch.errors import WrongUse
from fracture_watch.training.answers import Answers
from fracture_watch.training.data import Example
from fracture_watch.training.evaluate import truth_of

_RUN = 50  # pictures; as long as the groups of a collection that was numbered as it was collected
Fold: TypeAlias = Callable[[list[Example], list[Example], Path], Answers]


def cut_large_groups(examples: Sequence[Example], folds: int) -> list[Example]:
    """Groups that fit into no fold are cut into runs of fifty pictures that follow one another by name.

    Pictures of one patient are numbered in a row, so a run keeps most of them together; what a cut parts is a leak
    that a patient id would close.
    """
    sizes = Counter(example.group for example in examples)
    seen: Counter[str] = Counter()
    cut = {}
    for example in sorted(examples, key=lambda e: e.path.name):
        group = example.group
        if sizes[group] > len(examples) / folds:
            cut[example.path] = f"{group}/{seen[group] // _RUN}"
            seen[group] += 1
    return [replace(example, group=cut.get(example.path, example.group)) for example in examples]


def cross_validate(examples: Sequence[Example], folds: int, seed: int, checkpoint: Path, fold: Fold) -> Answers:
    """Answer every example by the fold that did not learn from it.

    Parameters
    ----------
    examples : sequence of Example
    folds, seed : int
        How often a network is fitted, and the seed of who goes where; groups stay together.
    checkpoint : Path
        Beside it the answers of each finished fold are kept, so that a repeated call goes on.
    fold : function
        Fits what it is given first, answers what it is given second; its checkpoint is the third.

    Raises
    ------
    WrongUse
        If there are fewer groups of a class than folds, or kept answers are of other pictures.
    """
    fractured = truth_of(examples)
    for label in (True, False):
        groups = {e.group for e in examples if e.fractured is label}
        if len(groups) < folds:
            raise WrongUse(
                f"--folds {folds}: only {len(groups)} groups have pictures that are "
                f"{'fractured' if label else 'not fractured'}; every fold needs one. Use fewer folds"
            )
    parts = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(
        fractured, fractured, [e.group for e in examples]
    )
    found: dict[Path, Any] = defaultdict(dict)
    for number, (others, these) in enumerate(parts, start=1):
        kept = checkpoint.with_suffix(f".fold-{number}.json")
        asked = [examples[i] for i in these]
        if not kept.exists():
            answers = fold([examples[i] for i in others], asked, checkpoint.with_suffix(f".fold-{number}"))
            _write(kept, asked, answers)
        found |= _read(kept, asked)
    return Answers([found[e.path][0] for e in examples], [found[e.path][1] for e in examples])


def forget(checkpoint: Path, folds: int) -> None:
    """Remove the kept answers."""
    for number in range(1, folds + 1):
        checkpoint.with_suffix(f".fold-{number}.json").unlink(missing_ok=True)


def _write(path: Path, examples: Sequence[Example], answers: Answers) -> None:
    rows = [
        {"image": example.path.name, "logits": logits.tolist(), "hit": hit}
        for example, logits, hit in zip(examples, answers.logits, answers.hits, strict=True)
    ]
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(rows), encoding="utf-8")
    part.replace(path)


def _read(path: Path, examples: Sequence[Example]) -> dict[Path, tuple[Any, bool | None]]:
    rows = json.loads(path.read_text(encoding="utf-8"))
    if [row["image"] for row in rows] != [example.path.name for example in examples]:
        raise WrongUse(f"{path}: holds the answers for other pictures; delete it to start anew")
    return {e.path: (np.array(row["logits"]), row["hit"]) for e, row in zip(examples, rows, strict=True)}
