"""A trained network -> one with the same answers, sooner."""

import copy
import itertools
import math
from typing import ClassVar, TypeGuard, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fracture_watch.errors import InvalidModel
from fracture_watch.model.network import Network


def folded(network: Network) -> Network:
    """Fold batch normalisations into the convolutions before them, which saves about a quarter of a forward pass.

    Layers that follow one another in a module's list are taken to follow one another in its forward pass; a network
    where that is not so answers otherwise afterwards, and stays as it was.
    """
    changed = copy.deepcopy(network)
    _fold(changed.body)
    return changed if _alike(network, changed) else network


def packed(network: Network) -> Network:
    """Hand the convolutions to oneDNN, for the CPU, with the ReLU right after them where there is one.

    In a thread by itself, torch would leave convolutions of one pixel to another library; it would lay weights out
    anew in every pass, and go over each result once more for the ReLU. EfficientNet-Lite0 takes half the time.

    A network that answers otherwise afterwards, or not at all, stays as it was, and so does every network where torch
    has no oneDNN. What is packed cannot be copied or pickled.
    """
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):
        return network
    changed = copy.deepcopy(network)
    try:
        _pack(changed.body)
        return changed if _alike(network, changed) else network
    except (AttributeError, RuntimeError, TypeError, InvalidModel):  # torch promises nothing of these operators
        return network


class PackedConv2d(nn.Module):
    """Stands in for a convolution and the activation after it. Its images and its answer are float32, on the CPU.

    Parameters
    ----------
    convolution : Conv2d
        Or timm's ``Conv2dSame``.
    activation : Module, optional
        Its type is a key of ``ACTIVATIONS``.
    """

    ACTIVATIONS: ClassVar = {nn.ReLU: ("relu", []), nn.ReLU6: ("hardtanh", [0.0, 6.0])}

    def __init__(self, convolution: nn.Conv2d, activation: nn.Module | None = None) -> None:
        super().__init__()
        self._pads_as_tensorflow = type(convolution) is not nn.Conv2d
        self._padding = cast("tuple[int, ...]", convolution.padding)
        self._geometry = convolution.stride, convolution.dilation, convolution.groups
        self._kernel = convolution.kernel_size
        self._bias = None if convolution.bias is None else convolution.bias.detach()
        # A tuple, since torch takes tensors for parameters or buffers, and cannot move or name one of this layout.
        weight = convolution.weight.detach()
        self._weight = (torch.ops.mkldnn._reorder_convolution_weight(weight, self._padding, *self._geometry, None),)
        self._activation = ("none", []) if activation is None else self.ACTIVATIONS[type(activation)]

    def forward(self, images: Tensor) -> Tensor:
        """``images``: shape (n, channels, height, width)."""
        if not self._pads_as_tensorflow:
            return self._convolve(images, self._padding)
        axes = zip(images.shape[2:], self._kernel, *self._geometry[:2], strict=True)
        (top, above, height), (left, before, width) = (_same(*axis) for axis in axes)
        answer = self._convolve(images, (top, left))[:, :, above : above + height, before : before + width]
        return answer.contiguous(memory_format=torch.channels_last)

    def _convolve(self, images: Tensor, padding: tuple[int, ...]) -> Tensor:
        name, scalars = self._activation
        answer: Tensor = torch.ops.mkldnn._convolution_pointwise(
            images, *self._weight, self._bias, padding, *self._geometry, name, scalars, ""
        )
        return answer


def _same(side: int, kernel: int, stride: int, dilation: int) -> tuple[int, int, int]:
    """TensorFlow's padding ``SAME`` along one axis: what to pad at both ends, and which answers to take of it.

    ``SAME`` may pad one pixel more at the end than at the start. Whole strides more at the start do not move the
    grid; they only put answers before it.

    Returns
    -------
    padding, skip, count : int
    """
    count = math.ceil(side / stride)
    total = max((count - 1) * stride + (kernel - 1) * dilation + 1 - side, 0)
    start, end = total // 2, total - total // 2
    skip = math.ceil((end - start) / stride)
    return start + skip * stride, skip, count


def _fold(module: nn.Module) -> None:
    layers = list(module.named_children())
    for (name, layer), (next_name, after) in itertools.pairwise(layers):
        if isinstance(layer, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(layer, after))
            setattr(module, next_name, getattr(after, "act", nn.Identity()))  # timm's has its activation in it
    for _, layer in layers:
        _fold(layer)


def _pack(module: nn.Module) -> None:
    nothing: tuple[str, nn.Module] = "", nn.Identity()  # after the last layer
    for (name, layer), (next_name, after) in itertools.pairwise([*module.named_children(), nothing]):
        if not _packable(layer):
            _pack(layer)
        elif type(after) in PackedConv2d.ACTIVATIONS:
            setattr(module, name, PackedConv2d(layer, after))
            setattr(module, next_name, nn.Identity())
        else:
            # Not across the place of a folded normalisation: ResNets name a ReLU after it that they use elsewhere.
            setattr(module, name, PackedConv2d(layer))


def _packable(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    known = type(layer) is nn.Conv2d or type(layer).__name__ == "Conv2dSame"  # by name, so that timm is not imported
    return known and isinstance(layer.padding, tuple) and layer.padding_mode == "zeros"


def _alike(one: Network, other: Network) -> bool:
    # Large enough for every layer to have something to say, and for what is not a number to be met.
    images = torch.randn((2, 3, 224, 224), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        pairs = zip(one(images), other(images), strict=True)
        return all(torch.allclose(*pair, rtol=1e-4, atol=1e-4) for pair in pairs)
