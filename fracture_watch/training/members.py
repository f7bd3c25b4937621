"""A network of several that look side by side <-> its members. Each is fitted by itself, so that they err apart."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from fracture_watch.model.network import Network
from fracture_watch.training.data import Example, Reader, Track
from fracture_watch.training.fit import Recipe, fit, pretrained

_WEIGHT, _BIAS = "classifier.weight", "classifier.bias"


def pretrained_members(architecture: str, seed: int, say: Callable[[str], None]) -> Network:
    """As ``pretrained``, of one network or of several."""
    return joined([pretrained(name, seed, say) for name in names_of(architecture)], architecture)


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
    members = []
    for number, (name, member, own) in enumerate(
        zip(
            names_of(recipe.architecture),
            apart(network, recipe.architecture),
            checkpoints(recipe, checkpoint),
            strict=True,
        )
    ):
        its = replace(recipe, architecture=name, seed=recipe.seed + number)
        members.append(fit(examples, tune, its, member, read, own, track, say))
    return joined(members, recipe.architecture)


def checkpoints(recipe: Recipe, checkpoint: Path) -> list[Path]:
    """Where the members' checkpoints lie: the one named, or numbered ones in its place."""
    count = len(names_of(recipe.architecture))
    return [checkpoint.with_name(f"{checkpoint.name}-{n}") for n in range(1, count + 1)] if count > 1 else [checkpoint]


def names_of(architecture: str) -> list[str]:
    """The architecture of each member; of one network by itself, its own."""
    library, _, names = architecture.partition(":")
    return [f"{library}:{name}" for name in names.split("+")]


def joined(members: Sequence[Network], architecture: str) -> Network:
    """One network, whose logits are the mean of the members' logits."""
    if len(members) == 1:
        return members[0]
    heads = [member.head for member in members]
    state = {
        _WEIGHT: torch.cat([head.weight for head in heads], dim=1) / len(members),
        _BIAS: torch.stack([head.bias for head in heads]).mean(dim=0),
    }
    for number, member in enumerate(members):
        own = member.body.state_dict()
        state |= {f"members.{number}.{name}": own[name] for name in own if name not in {_WEIGHT, _BIAS}}
    network = Network(architecture)
    network.body.load_state_dict(state)
    return network.train(members[0].training)


def apart(network: Network, architecture: str) -> list[Network]:
    """The members that ``joined`` makes this network of."""
    names = names_of(architecture)
    if len(names) == 1:
        return [network]
    state, members, first = network.body.state_dict(), [], 0
    for number, name in enumerate(names):
        member, prefix = Network(name), f"members.{number}."
        channels = slice(first, first := first + member.head.in_features)
        own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        own |= {_WEIGHT: state[_WEIGHT][:, channels] * len(names), _BIAS: state[_BIAS]}
        member.body.load_state_dict(own)
        members.append(member.train(network.training))
    return members
