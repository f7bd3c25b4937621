"""What answers: a convolutional network, or several side by side, by the name of its architecture."""

import re
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fracture_watch.errors import InvalidModel
from fracture_watch.model.torchvision_ops import import_timm, import_torchvision

# Names that a library knows by itself: timm fetches hf-hub:OWNER/NAME from the Internet, and torchvision the backbone
# of a segmenter such as fcn_resnet50.
_NAMES = {"timm": re.compile(r"[A-Za-z0-9_.]+"), "torchvision": re.compile(r"(wide_)?(resnet|resnext)\w*")}

_ONLY = (
    "only networks that end in average pooling and one linear layer are supported (ResNet, EfficientNet and their kin "
    "in timm, ResNet in torchvision)"
)


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
        ``timm:NAME``, ``timm:NAME+NAME`` or ``torchvision:NAME``.
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
            raise InvalidModel(f"{architecture}: {_ONLY}")
        self.head = head
        self._architecture = architecture
        pool.register_forward_pre_hook(self._keep_features)

    @property
    def head_name(self) -> str:
        """What ``body`` calls its head."""
        name: str = next(name for name, module in self.body.named_modules() if module is self.head)
        return name

    def check_runs(self, size: int) -> None:
        """Some networks that can be built are not of a kind that is supported, which only shows when they run.

        Raises
        ------
        InvalidModel
            If it does not run on images of ``size`` pixels, or is none.
        """
        with torch.inference_mode():
            try:
                self.eval()(torch.zeros((1, 3, size, size)))
            except (AssertionError, RuntimeError) as error:
                raise InvalidModel(
                    f"{self._architecture}: does not run on images of {size} x {size} pixels: {error}"
                ) from error

    def _keep_features(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0].shape[1] != self.head.in_features:  # MobileNetV3: a convolution stands between the two
            raise InvalidModel(f"{self._architecture}: {_ONLY}")
        self._features[threading.get_ident()] = inputs[0]

    def forward(self, images: Tensor) -> Answer:
        """``images``: float32, shape (n, 3, size, size), normalised."""
        logits = self.body(images)
        features = self._features.pop(threading.get_ident(), None)
        if features is None:
            raise InvalidModel("the network gave an answer without running its pooling layer")
        return Answer(logits, features)


class SeveralBodies(nn.Module):
    """Backbones that look at the same images. Their feature maps, channels one after another, have one head.

    So the logits are a sum of what each backbone has to say, and the class activation map stays exact.

    Parameters
    ----------
    timm : module
    names : sequence of str
        timm's, of networks whose last feature maps are equally large.
    """

    def __init__(self, timm: Any, names: Sequence[str]) -> None:
        super().__init__()
        backbones = [timm.create_model(name, pretrained=False, num_classes=0, global_pool="") for name in names]
        self.members = nn.ModuleList(backbones)
        self._names = " and ".join(names)
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(sum(member.num_features for member in backbones), 2)

    def forward(self, images: Tensor) -> Tensor:
        """``images``: float32, shape (n, 3, size, size), normalised."""
        maps = [member(images) for member in self.members]
        if any(each.shape[2:] != maps[0].shape[2:] for each in maps):
            sizes = ", ".join(f"{each.shape[2]} x {each.shape[3]}" for each in maps)
            raise InvalidModel(
                f"{self._names}: side by side their last feature maps must be of one size; these: {sizes}"
            )
        answer: Tensor = self.classifier(self.global_pool(torch.cat(maps, dim=1)).flatten(1))
        return answer


def _build(architecture: str) -> nn.Module:
    library, colon, name = architecture.partition(":")
    if library not in _NAMES:
        advice = "" if colon else f"; write timm:{architecture} or torchvision:{architecture}, whichever it is from"
        raise InvalidModel(f"{architecture}: an architecture is timm:NAME or torchvision:NAME{advice}")
    names = name.split("+")
    if len(names) > 1 and (library != "timm" or ":" in name):
        raise InvalidModel(f"{architecture}: several side by side are written timm:NAME+NAME, and all are timm's")
    if not all(_NAMES[library].fullmatch(each) for each in names):
        which = "torchvision's ResNets alone are" if library == "torchvision" else "names of timm's own alone are"
        raise InvalidModel(f"{architecture}: {which} supported, such as {library}:resnet18")
    try:
        if library == "timm":
            timm = import_timm()
            if len(names) > 1:
                with torch.device("meta"):  # without their weights, to know that each is of a kind that is supported
                    for each in names:
                        Network(f"timm:{each}")
                return SeveralBodies(timm, names)
            made: nn.Module = timm.create_model(name, pretrained=False, num_classes=2)
            return made
        import_torchvision()
        from torchvision.models import get_model

        built: nn.Module = get_model(name, weights=None, num_classes=2)
        return built
    except (RuntimeError, ValueError) as error:
        raise InvalidModel(f"{architecture}: there is no such network in {library}: {error}") from error
