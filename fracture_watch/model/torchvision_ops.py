"""Makes ``import torchvision`` work when its compiled operators cannot load.

PyPI's torchvision is built for the CUDA build of torch. Beside a CPU-only torch its operators do not load,
and its import then fails with "operator torchvision::nms does not exist". Only its pure-Python parts are
used here, so declaring the two schemas that the import looks for is enough.
"""

import importlib
import sys

import torch

_SCHEMAS = ("nms", "qnms")
_library: list[torch.library.Library] = []  # a declaration lives as long as its Library object


def import_torchvision() -> None:
    """Import torchvision, declaring its missing operators first where the import needs them."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        _declare_missing()
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        importlib.import_module("torchvision")


def _declare_missing() -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in _SCHEMAS:
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _library.append(library)
