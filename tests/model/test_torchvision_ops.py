"""Importing torchvision and timm beside a torch that torchvision was not built for, and without torch's compiler."""

import subprocess
import sys

import pytest

LEAN = """
import sys
from fracture_watch.model.torchvision_ops import import_timm
timm = import_timm()
assert not [name for name in sys.modules if name.startswith("torch._dynamo")]
timm.create_model("resnet18")
import torch
assert torch.compiler.disable(print) is not print  # the compiler itself, from now on
from torchvision.ops import roi_align
asked = roi_align.__globals__["is_compile_supported"]
assert asked("cpu") == torch._dynamo.utils.is_compile_supported("cpu")
"""
LOADED = """
import torch._dynamo
loaded = torch._dynamo
from fracture_watch.model.torchvision_ops import import_timm
import_timm()
import sys
assert sys.modules["torch._dynamo"] is torch._dynamo is loaded
"""
WANTS_MORE = """
import sys
sys.path.insert(0, {folder!r})
from fracture_watch.model.torchvision_ops import import_timm
assert import_timm().there
"""


def ran(program: str) -> None:
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


@pytest.mark.parametrize("program", [LEAN, LOADED], ids=["not loaded", "loaded before"])
def test_torchs_compiler_is_neither_loaded_nor_replaced(program):
    ran(program)


def test_a_version_that_asks_the_compiler_for_more_gets_it(tmp_path):
    (tmp_path / "timm.py").write_text("import torch._dynamo\nthere = torch._dynamo.optimize\n")
    ran(WANTS_MORE.format(folder=str(tmp_path)))
