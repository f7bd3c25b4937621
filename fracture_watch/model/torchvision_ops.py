"""Imports torchvision and timm beside a torch that torchvision was not built for, and without torch's compiler.

PyPI's torchvision is built for the CUDA build of torch. Beside a CPU-only torch its operators do not load,
and its import then fails with "operator torchvision::nms does not exist". Only its pure-Python parts are
used here, so declaring the two schemas that the import looks for is enough.

Both packages also import torch's compiler, to mark functions that are not to be compiled and to ask whether others
can be. Nothing is compiled here, and the compiler is half of what starting costs.
"""

import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

_SCHEMAS = ("nms", "qnms")
_COMPILER = ("torch._dynamo", "torch._dynamo.utils")
_library: list[torch.library.Library] = []  # a declaration lives as long as its Library object
_one_at_a_time = threading.RLock()


def import_torchvision() -> None:
    """Import torchvision, declaring its missing operators first where the import needs them."""
    try:
        _lean("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        _declare_missing()
        _forget("torchvision")
        _lean("torchvision")


def import_timm() -> Any:
    """Import timm, and torchvision before it."""
    import_torchvision()
    return _lean("timm")


def _lean(package: str) -> ModuleType:
    if package in sys.modules:
        return importlib.import_module(package)
    try:
        with _one_at_a_time, _compiler_left_out():
            return importlib.import_module(package)
    except (ImportError, AttributeError):  # another version, which asks the compiler for more
        _forget(package)
        return importlib.import_module(package)


@contextmanager
def _compiler_left_out() -> Iterator[None]:
    """Stand-ins with what the two packages ask of the compiler, unless it is loaded."""
    if _COMPILER[0] in sys.modules:
        yield
        return
    compiler, utils = (ModuleType(name) for name in _COMPILER)
    vars(compiler)["disable"] = _unchanged
    vars(utils)["is_compile_supported"] = _asked
    sys.modules |= dict(zip(_COMPILER, (compiler, utils), strict=True))
    try:
        yield
    finally:
        for name in _COMPILER:
            sys.modules.pop(name, None)


def _asked(device: str) -> bool:
    """What torchvision's detectors ask once they run: the compiler itself answers."""
    return bool(importlib.import_module(_COMPILER[1]).is_compile_supported(device))


def _unchanged(function: Callable[..., Any], *_: object, **__: object) -> Callable[..., Any]:
    return function


def _declare_missing() -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in _SCHEMAS:
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _library.append(library)


def _forget(package: str) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        del sys.modules[name]
