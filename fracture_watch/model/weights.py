"""A weights file and its card -> a network that is ready to run. No pickle is ever executed."""

import copy
import itertools
import pickle
import re
import threading
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fracture_watch.errors import InvalidModel
from fracture_watch.model.card import Card, card_path, digest
from fracture_watch.model.torchvision_ops import import_timm, import_torchvision

# Names that a library knows by itself: timm fetches hf-hub:OWNER/NAME from the Internet, and torchvision the backbone
# of a segmenter such as fcn_resnet50.
_NAMES = {"timm": re.compile(r"[A-Za-z0-9_.]+"), "torchvision": re.compile(r"(wide_)?(resnet|resnext)\w*")}
_LFS = b"version https://git-lfs"


class Answer(NamedTuple):
    """Logits, shape (n, classes), and the feature maps that were averaged for them, shape (n, c, h, w)."""

    logits: Tensor
    features: Tensor


class Network(nn.Module):
    """A convolutional classifier whose last steps are global average pooling and one linear layer.

    That shape makes the class activation map exact: the mean of the map is the logit (less the bias).

    Parameters
    ----------
    architecture : str
        ``timm:NAME`` or ``torchvision:NAME``.
    body : Module, optional
        The network itself; built from ``architecture`` unless given.
    """

    def __init__(self, architecture: str, body: nn.Module | None = None) -> None:
        super().__init__()
        self.body = body or _build(architecture)
        self._features: dict[int, Tensor] = {}  # of each thread's pass
        pool = getattr(self.body, "global_pool", None) or getattr(self.body, "avgpool", None)
        head = getattr(self.body, "classifier", None) or getattr(self.body, "fc", None)
        if not isinstance(pool, nn.Module) or not isinstance(head, nn.Linear):
            raise InvalidModel(
                f"{architecture}: only networks that end in average pooling and one linear layer are supported "
                "(ResNet, EfficientNet and their kin in timm, ResNet in torchvision)"
            )
        self.head = head
        pool.register_forward_pre_hook(self._keep_features)

    def _keep_features(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._features[threading.get_ident()] = inputs[0]

    def forward(self, images: Tensor) -> Answer:
        """``images``: float32, shape (n, 3, size, size), normalised."""
        logits = self.body(images)
        features = self._features.pop(threading.get_ident(), None)
        if features is None:
            raise InvalidModel("the network gave an answer without running its pooling layer")
        return Answer(logits, features)


def load_network(weights: Path, card: Card) -> Network:
    """The network that answers: ``load_trainable``, made ready to serve.

    Raises
    ------
    InvalidModel
        If the weights do not match the card's sha256 or architecture, or are not a plain ``state_dict``.
    """
    return serving(load_trainable(weights, card).eval())


def load_trainable(weights: Path, card: Card) -> Network:
    """Load a ``state_dict`` with ``weights_only=True`` into the architecture that the card names.

    Raises
    ------
    InvalidModel
        If the weights do not match the card's sha256 or architecture, or are not a plain ``state_dict``.
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
    return network


def check_is_weights(path: Path) -> None:
    """Tell what ``torch.save`` writes (a ZIP file, once a pickle) from text, which torch takes for a pickle.

    Raises
    ------
    InvalidModel
        If it is neither.
    """
    with path.open("rb") as file:
        start = file.read(len(_LFS))
    if start == _LFS:
        raise InvalidModel(f"{path}: is a pointer of Git LFS, not the weights themselves; run `git lfs pull`")
    if not start.startswith((b"PK", b"\x80")):
        raise InvalidModel(f"{path}: is not a file of PyTorch weights; torch.save() writes them")


def serving(network: Network) -> Network:
    """Fold batch normalisations into the convolutions before them, which saves about a quarter of a forward pass.

    Layers that follow one another in a module's list are taken to follow one another in its forward pass; a network
    where that is not so answers otherwise afterwards, and stays as it was.
    """
    fused = copy.deepcopy(network)
    _fuse(fused.body)
    image = torch.rand((1, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        alike = torch.allclose(network(image).logits, fused(image).logits, rtol=1e-4, atol=1e-4)
    return fused if alike else network


def _fuse(module: nn.Module) -> None:
    layers = list(module.named_children())
    for (name, layer), (next_name, after) in itertools.pairwise(layers):
        if isinstance(layer, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(layer, after))
            setattr(module, next_name, getattr(after, "act", nn.Identity()))  # timm's has its activation in it
    for _, layer in layers:
        _fuse(layer)


def _build(architecture: str) -> nn.Module:
    library, colon, name = architecture.partition(":")
    if library not in _NAMES:
        advice = "" if colon else f"; write timm:{architecture} or torchvision:{architecture}, whichever it is from"
        raise InvalidModel(f"{architecture}: an architecture is timm:NAME or torchvision:NAME{advice}")
    if not _NAMES[library].fullmatch(name):
        which = "torchvision's ResNets alone are" if library == "torchvision" else "names of timm's own alone are"
        raise InvalidModel(f"{architecture}: {which} supported, such as {library}:resnet18")
    try:
        if library == "timm":
            made: nn.Module = import_timm().create_model(name, pretrained=False, num_classes=2)
            return made
        import_torchvision()
        from torchvision.models import get_model

        built: nn.Module = get_model(name, weights=None, num_classes=2)
        return built
    except (RuntimeError, ValueError) as error:
        raise InvalidModel(f"{architecture}: there is no such network in {library}: {error}") from error
