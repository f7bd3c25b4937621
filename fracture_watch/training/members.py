"""A network of several that look side by side <-> its members. Each is fitted by itself, so that they err apart."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import nn

from fracture_watch.model.network import Network, SeveralBodies
from fracture_watch.training.data import Example, Reader, Track
from fracture_watch.training.fit import Recipe, fit, pretrained


def pretrained_members(architecture: str, size: int, seed: int, say: Callable[[str], None]) -> Network:
    """As ``pretrained``, of one network or of several; each has its own seed.

    Raises
    ------
    InvalidModel
        If they do not go together: they would be joined hours later.
    WrongUse
        If the package of the weights is missing.
    """
    Network(architecture).check_runs(size)
    names = names_of(architecture)
    return joined([pretrained(name, seed + number, say) for number, name in enumerate(names)], architecture)


def fit_members(
    examples: Sequence[Example],
    tune: Sequence[Example],
    recipe: Recipe,
    network: Network,
    read: Reader,
    checkpoint: Path,
    track: Track,
    say: Callable[[str], None],
) -> Network:
    """As ``fit``, of one network or of several; each has its own seed and checkpoint."""
    names, members = names_of(recipe.architecture), []
    parts = zip(names, apart(network, recipe.architecture), checkpoints(recipe, checkpoint), strict=True)
    for number, (name, member, own) in enumerate(parts):
        its = replace(recipe, architecture=name, seed=recipe.seed + number)
        said = say if len(names) == 1 else named(name, say)
        members.append(fit(examples, tune, its, member, read, own, track, said))
    return joined(members, recipe.architecture)


def named(name: str, say: Callable[[str], None]) -> Callable[[str], None]:
    """``say``, with who says it before every line."""
    return lambda text: say(f"{name}: {text}")


def checkpoints(recipe: Recipe, checkpoint: Path) -> list[Path]:
    """Where the members' checkpoints lie: the one named, or numbered ones in its place."""
    count = len(names_of(recipe.architecture))
    return [checkpoint.with_name(f"{checkpoint.name}-{n}") for n in range(1, count + 1)] if count > 1 else [checkpoint]


def remove_checkpoints(recipe: Recipe, checkpoint: Path) -> None:
    """Where there are any."""
    for file in checkpoints(recipe, checkpoint):
        file.unlink(missing_ok=True)


def names_of(architecture: str) -> list[str]:
    """The architecture of each member; of one network by itself, its own."""
    library, _, names = architecture.partition(":")
    return [f"{library}:{name}" for name in names.split("+")]


def joined(members: Sequence[Network], architecture: str) -> Network:
    """One network, whose logits are the mean of the members' logits."""
    if len(members) == 1:
        return members[0]
    network = Network(architecture)
    heads = [member.head for member in members]
    state = {
        "weight": torch.cat([head.weight for head in heads], dim=1) / len(members),
        "bias": torch.stack([head.bias for head in heads]).mean(dim=0),
    }
    network.head.load_state_dict(state)
    for backbone, member in zip(_backbones(network), members, strict=True):
        own = member.body.state_dict()
        backbone.load_state_dict({name: own[name] for name in own if not name.startswith(f"{member.head_name}.")})
    return network.train(members[0].training)


def apart(network: Network, architecture: str) -> list[Network]:
    """The members that ``joined`` makes this network of."""
    names = names_of(architecture)
    if len(names) == 1:
        return [network]
    members, first = [], 0
    for backbone, name in zip(_backbones(network), names, strict=True):
        member = Network(name)
        channels = slice(first, first := first + member.head.in_features)
        member.head.load_state_dict(
            {"weight": network.head.weight[:, channels] * len(names), "bias": network.head.bias}
        )
        member.body.load_state_dict(backbone.state_dict(), strict=False)  # which has no head
        members.append(member.train(network.training))
    return members


def _backbones(network: Network) -> nn.ModuleList:
    return cast(SeveralBodies, network.body).members
