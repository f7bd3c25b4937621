"""Every labelled picture answered by a network that learned from neither it nor its neighbours."""

import functools
import json
from collections import ChainMap, Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from fracture_watch.disk import write_whole
from fracture_watch.errors import WrongUse
from fracture_watch.training.answers import Answers
from fracture_watch.training.data import Example, fingerprint
from fracture_watch.training.fit import Recipe
from fracture_watch.training.jobs import done
from fracture_watch.training.judging import truth_of
from fracture_watch.training.members import remove_checkpoints

_RUN = 50  # pictures; as long as the groups of a collection that was numbered as it was collected
Fold: TypeAlias = Callable[[list[Example], list[Example], Path], Answers]
Answer: TypeAlias = tuple[Any, bool | None]  # logits of the views, hit


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


def cross_validate(
    examples: Sequence[Example],
    folds: int,
    recipe: Recipe,
    checkpoint: Path,
    fold: Fold,
    then: Callable[[], None] = lambda: None,
    jobs: int = 1,
) -> Answers:
    """Answer every example by the fold that did not learn from it.

    Parameters
    ----------
    examples : sequence of Example
    folds : int
        How often a network is fitted; groups stay together.
    recipe : Recipe
        Its seed decides who goes where.
    checkpoint : Path
        Beside it the answers of each finished fold are kept, so that a repeated call goes on.
    fold : function
        Fits what it is given first, answers what it is given second; its checkpoint is the third.
    then : function
        What is done after the folds, or beside the last of them where ``jobs`` allows it.
    jobs : int
        How many of these to do at the same time, each in a process of its own; 1: here, one after another.

    Raises
    ------
    WrongUse
        If there are fewer groups of a class than folds, kept answers are of another recipe or other examples, or a
        process was killed.
    """
    fractured = truth_of(examples)
    for label in (True, False):
        groups = {e.group for e in examples if e.fractured is label}
        if len(groups) < folds:
            raise WrongUse(
                f"--folds {folds}: only {len(groups)} groups have pictures that are "
                f"{'fractured' if label else 'not fractured'}; every fold needs one. Use fewer folds"
            )
    split = StratifiedGroupKFold(folds, shuffle=True, random_state=recipe.seed).split(
        fractured, fractured, [e.group for e in examples]
    )
    parts = list(split)
    if any(len(set(fractured[others])) < 2 for others, _ in parts):  # where one group has most of a class
        raise WrongUse(f"--folds {folds}: a network would learn from one class alone; use more folds or smaller groups")

    def answered(number: int, others: NDArray[np.intp], these: NDArray[np.intp]) -> dict[Path, Answer]:
        kept, progress = (checkpoint.with_suffix(f".fold-{number}{suffix}") for suffix in (".json", ""))
        learned, asked = ([examples[i] for i in part] for part in (others, these))
        own = fingerprint(asdict(recipe), learned, asked)
        if not kept.exists():
            _write(kept, asked, fold(learned, asked, progress), own)
            remove_checkpoints(recipe, progress)
        return _read(kept, asked, own)

    tasks = [functools.partial(answered, number, *part) for number, part in enumerate(parts, start=1)]
    *found_by_fold, _ = done([*tasks, then], jobs)
    found = dict(ChainMap(*found_by_fold))
    return Answers([found[e.path][0] for e in examples], [found[e.path][1] for e in examples])


def forget(checkpoint: Path, folds: int) -> None:
    """Remove the kept answers."""
    for number in range(1, folds + 1):
        checkpoint.with_suffix(f".fold-{number}.json").unlink(missing_ok=True)


def _write(path: Path, examples: Sequence[Example], answers: Answers, own: str) -> None:
    rows = [
        {"image": example.path.name, "logits": logits.tolist(), "hit": hit}
        for example, logits, hit in zip(examples, answers.logits, answers.hits, strict=True)
    ]
    write_whole(path, json.dumps({"of": own, "answers": rows}).encode())


def _read(path: Path, examples: Sequence[Example], own: str) -> dict[Path, Answer]:
    kept = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(kept, dict) or kept.get("of") != own:
        raise WrongUse(
            f"{path}: holds answers of another recipe, or of other pictures, labels or boxes; delete it to start anew"
        )
    rows = kept["answers"]
    return {e.path: (np.array(row["logits"]), row["hit"]) for e, row in zip(examples, rows, strict=True)}
