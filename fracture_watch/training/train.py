"""Labelled radiographs -> fitted weights, calibrated and measured, with their card."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch

from fracture_watch import golden
from fracture_watch.disk import digest
from fracture_watch.errors import WrongUse
from fracture_watch.model.card import Calibration, Card, Input, OneView, Threshold, Views
from fracture_watch.model.classifier import Classifier
from fracture_watch.model.network import Network
from fracture_watch.model.preprocess import Preprocessor
from fracture_watch.model.weights import load_trainable
from fracture_watch.training.answers import Answers, ask, write_answers
from fracture_watch.training.crossvalidation import cross_validate, cut_large_groups, forget
from fracture_watch.training.data import Example, Reader, Sources, Track, displayed
from fracture_watch.training.figures import Bootstrap
from fracture_watch.training.fit import Recipe
from fracture_watch.training.judging import (
    Scores,
    calibrate,
    calibrated,
    evaluate,
    folds_of,
    judge,
    truth_of,
    youden_threshold,
)
from fracture_watch.training.members import fit_members, named, pretrained_members, remove_checkpoints
from fracture_watch.training.pointing import hit_rate

State: TypeAlias = dict[str, torch.Tensor]
_FOLDS = 5  # of the groups, for figures at calibrations and thresholds chosen on other groups


class _Measured(NamedTuple):
    """Pictures with the answers of networks that did not learn from them, and what the card calls them."""

    examples: Sequence[Example]
    answers: Answers
    name: str


def train(  # noqa: PLR0913  by name, one an option of the command
    sources: Sources,
    output: Path,
    recipe: Recipe,
    *,
    version: str,
    folds: int | None = None,
    initial: Path | None = None,
    jobs: int = 1,
    resamples: int = 1000,
    track: Track,
    say: Callable[[str], None],
) -> Card:
    """Train, calibrate, choose a threshold, measure, and write ``output`` and its card.

    The ``train`` split is fitted; a ``tune`` split, where there is one, chooses the epoch. Calibration, threshold and
    figures come from the ``val`` split; what is reported of calibration and threshold themselves comes from those
    chosen on other groups only. With ``folds`` every picture is fitted, whatever its split, and cross-validation
    takes the place of ``val``. The answers that the figures come from lie beside ``output``, as ``.answers.csv``. An
    interrupted run goes on from ``<output>.checkpoint`` and from finished folds when it is repeated.

    Parameters
    ----------
    sources : Sources
        With boxes the network also learns on crops, and the card asks for tiles beside the whole picture.
    output : Path
        The ``.pth`` to write.
    recipe : Recipe
    version : str
    folds : int, optional
        Networks of the cross-validation; each starts where the final one starts.
    initial : Path, optional
        Weights with a card to go on from, in the architecture and with the input that it states; without them it
        starts from ImageNet's. Figures hold for pictures that these did not learn from either.
    jobs : int
        With ``folds``: networks to fit at the same time, each in a process of its own.
    resamples : int
        Of the bootstrap that gives the intervals.
    track, say : function
        For progress.

    Raises
    ------
    WrongUse
        If the labels or boxes are unusable or too few, ``version`` is empty, the backbone's package is missing, or
        what came out is no better than chance.
    """
    _check(output, version, folds, jobs)
    examples, checkpoint = sources.examples(), output.with_suffix(".checkpoint")
    fresh = output.with_suffix(".pth.part")  # what lies at output serves until these are measured
    start, recipe = _start(recipe, initial, say)
    read = Reader(Preprocessor(recipe.long_side, recipe.resize), track)
    shown: Track = track if jobs == 1 else _unseen  # bars of several processes would write over one another

    def fitted(
        learned: Sequence[Example], tune: Sequence[Example], own: Path, said: Callable[[str], None] = say
    ) -> Network:
        # Built here: a process of its own cannot unpickle what is timm's before it has imported it in its own way.
        network = Network(recipe.architecture)
        network.load_state_dict(start)
        network = fit_members(learned, tune, recipe, network, read, own, shown, said)
        if initial:
            _mix(network, start, recipe.initial_share)
        return network

    def card_of(learned: Sequence[Example], sha256: str = "0" * 64) -> Card:
        return _card(output, version, recipe, learned, sha256)

    def answered(learned: Sequence[Example], asked: Sequence[Example], own: Path) -> Answers:
        network = fitted(learned, (), own, named(f"{own.suffix[1:]} of {folds}", say))
        return ask(Classifier(network, card_of(learned)), asked, shown)

    if folds:
        learned = cut_large_groups(examples, folds)
        folds_of(learned, _FOLDS, recipe.seed)  # what cannot be measured or read is said before hours of fitting
        read(learned)

        def finally_fitted() -> None:
            network = fitted(learned, (), checkpoint, named("all pictures", say))
            torch.save(network.body.state_dict(), fresh)

        answers = cross_validate(learned, folds, recipe, checkpoint, answered, finally_fitted, jobs)
        measured = _Measured(learned, answers, f"{folds}-fold cross-validation")
    else:
        learned, tune, val = (_split(examples, name, sources.labels) for name in ("train", "tune", "val"))
        folds_of(val, _FOLDS, recipe.seed)
        read(learned)
        for example in track([*tune, *val], "reading pictures"):
            displayed(example)
        network = fitted(learned, tune, checkpoint)
        torch.save(network.body.state_dict(), fresh)
        measured = _Measured(val, ask(Classifier(network, card_of(learned)), val, track), "val")
    card = _judged(card_of(learned, digest(fresh)), measured, Bootstrap(recipe.seed, resamples))
    write_answers(output.with_suffix(".answers.csv"), measured.examples, measured.answers, card, sources.pictures)
    fresh.replace(output)
    card.save(output)
    remove_checkpoints(recipe, checkpoint)
    forget(checkpoint, folds or 0)
    return golden.write(output)


def _check(output: Path, version: str, folds: int | None, jobs: int) -> None:
    if jobs > 1 and not folds:
        raise WrongUse(f"--jobs {jobs}: without --folds there is one network to fit")
    if not version:  # a card must have one, and is written hours later
        raise WrongUse("--version: the new model needs one, such as 1.0.0")
    if not output.parent.is_dir() or not os.access(output.parent, os.W_OK):
        raise WrongUse(f"--output {output}: {output.parent} is no folder that can be written to")


def _unseen(items: Iterable[Any], _: str) -> Iterable[Any]:
    return items


def _split(examples: Sequence[Example], name: str, labels: Path) -> list[Example]:
    part = [example for example in examples if example.split == name]
    if {example.fractured for example in part} != {True, False} and (part or name != "tune"):
        raise WrongUse(f"{labels}: the split {name} needs images of both labels")
    return part


def _start(recipe: Recipe, initial: Path | None, say: Callable[[str], None]) -> tuple[State, Recipe]:
    """The weights that training begins with, and the recipe that names them."""
    if initial is None:
        return pretrained_members(recipe.architecture, recipe.size, recipe.seed, say).state_dict(), recipe
    card = Card.load(initial)
    shown = card.input
    return load_trainable(initial, card).state_dict(), replace(
        recipe,
        architecture=card.architecture,
        size=shown.size,
        resize=shown.resize,
        mean=shown.mean,
        std=shown.std,
        initial=card.sha256,
    )


def _mix(network: Network, start: State, share: float) -> None:
    """Draw the weights towards those it started from: as good as the two together, at the price of one."""
    mixed = {
        name: torch.lerp(value, start[name], share) if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    network.load_state_dict(mixed)


def _card(output: Path, version: str, recipe: Recipe, learned: Sequence[Example], sha256: str) -> Card:
    """The card, for ``output``, of weights that were not measured yet."""
    return Card(
        name=output.stem.replace("_", "-"),
        version=version,
        architecture=recipe.architecture,
        input=Input(
            size=recipe.size, resize=recipe.resize, views=_views(recipe, learned), mean=recipe.mean, std=recipe.std
        ),
        training={"images": len(learned), "fractured": int(truth_of(learned).sum()), "recipe": asdict(recipe)},
        sha256=sha256,
    )


def _views(recipe: Recipe, examples: Sequence[Example]) -> Literal["whole"] | Views:
    """Tiles where tiles were learned: 3 x 2 cover a usual radiograph; a third column costs time and gained nothing."""
    if not recipe.crop_share or not any(e.boxes for e in examples):
        return "whole"
    return Views(tiles=(3, 2), long_side=recipe.long_side, pool="noisy-or")


def _judged(card: Card, measured: _Measured, bootstrap: Bootstrap) -> Card:
    """The card with calibration, threshold and figures."""
    name, answers = measured.name.replace("-", "_").replace(" ", "_"), measured.answers
    point = _operating_point(measured, answers.pooled(card.pool), bootstrap)
    update: dict[str, Any] = {"calibration": point.calibration, "threshold": point.threshold}
    metrics: dict[str, Any] = {name: point.figures}
    if card.input.views != "whole":
        alone = _operating_point(measured, answers.whole, bootstrap)
        update["one_view"] = OneView(calibration=alone.calibration, threshold=alone.threshold)
        metrics[f"{name}_one_view"] = alone.figures
    boxed = [example for example in measured.examples if example.boxes]
    if boxed:
        hits = np.array([hit for hit in answers.hits if hit is not None])
        metrics[f"{name}_pointing"] = hit_rate(boxed, hits, bootstrap.seed, bootstrap.resamples)
    return card.model_copy(update=update | {"metrics": metrics})


class _OperatingPoint(NamedTuple):
    calibration: Calibration
    threshold: Threshold
    figures: dict[str, Any]


def _operating_point(measured: _Measured, logits: Scores, bootstrap: Bootstrap) -> _OperatingPoint:
    truth = truth_of(measured.examples)
    calibration = calibrate(truth, logits)
    value = youden_threshold(truth, calibrated(calibration, logits))
    chosen = f"Youden's J (sensitivity + specificity - 1) on the pictures of {measured.name}"
    judged = judge(measured.examples, logits, _FOLDS, bootstrap.seed)
    return _OperatingPoint(
        calibration,
        Threshold(value=value, chosen=chosen),
        evaluate(measured.examples, logits, judged, bootstrap.seed, bootstrap.resamples),
    )
