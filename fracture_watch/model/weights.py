"""A weights file and its card -> a network that is ready to run. No pickle is ever executed."""

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from fracture_watch.disk import digest
from fracture_watch.errors import InvalidModel
from fracture_watch.model.card import Card, card_path
from fracture_watch.model.inference import folded
from fracture_watch.model.network import Network

_LFS = b"version https://git-lfs"


def load_network(weights: Path, card: Card) -> Network:
    """The network that answers: ``load_trainable``, made ready to serve.

    Raises
    ------
    InvalidModel
        If the weights do not match the card's sha256 or architecture, or are not a plain ``state_dict``.
    """
    return folded(load_trainable(weights, card).eval())


def load_trainable(weights: Path, card: Card) -> Network:
    """Load a ``state_dict`` with ``weights_only=True`` into the architecture that the card names.

    Raises
    ------
    InvalidModel
        If the weights do not match the card's sha256 or architecture, are not a plain ``state_dict``, or not all
        numbers.
    """
    check_is_weights(weights)
    found = digest(weights)
    if found != card.sha256:
        raise InvalidModel(
            f"{weights}: its sha256 is {found}, but {card_path(weights).name} describes {card.sha256}. The card is not "
            "the card of these weights; put the matching pair back"
        )
    network = Network(card.architecture)
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        network.body.load_state_dict(state, strict=True)
    except pickle.UnpicklingError as error:
        raise InvalidModel(
            f"{weights}: this is not a plain state_dict; loading it would run code from the file, which is refused. "
            "Save it again with torch.save(model.state_dict(), ...), or see `fracture-watch model import --help`"
        ) from error
    except (RuntimeError, TypeError, AttributeError, EOFError, LookupError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InvalidModel(f"{weights}: the weights do not fit {card.architecture} with 2 classes: {first}") from error
    check_are_numbers(network.body.state_dict(), weights)
    return network


def check_are_numbers(state: Mapping[str, Tensor], path: Path) -> None:
    """Not left to the answers: some layers make a number of what is none.

    Raises
    ------
    InvalidModel
        If a weight is not finite.
    """
    if not all(value.isfinite().all() for value in state.values()):
        raise InvalidModel(f"{path}: some weights are not finite numbers; the file or its training is damaged")


def check_is_weights(path: Path) -> None:
    """Tell what ``torch.save`` writes (a ZIP file, once a pickle) from text, which torch takes for a pickle.

    Raises
    ------
    InvalidModel
        If it is neither, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(_LFS))
    except OSError as error:
        raise InvalidModel(f"{path}: the model weights cannot be read: {error.strerror}") from error
    if start == _LFS:
        raise InvalidModel(f"{path}: is a pointer of Git LFS, not the weights themselves; run `git lfs pull`")
    if not start.startswith((b"PK", b"\x80")):
        raise InvalidModel(f"{path}: is not a file of PyTorch weights; torch.save() writes them")
