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


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)


def test_torchvision_and_timm_import_whatever_build_of_torch_there_is():
    done = python(
        "from fracture_watch.model.torchvision_ops import import_torchvision\n"
        "import_torchvision(); import_torchvision()\n"
        "import timm, torchvision.transforms.v2, torchvision.models\n"
        "print(torchvision.models.get_model('resnet18', weights=None) is not None)"
    )
    assert done.stdout.strip() == "True", done.stderr


def test_torchvision_with_its_operators_is_left_as_it_is():
    # The matched build: its operators are declared before its Python part looks for them.
    done = python(
        "import torch\n"
        "library = torch.library.Library('torchvision', 'DEF')\n"
        "for name in ('nms', 'qnms'):\n"
        "    library.define(name + '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')\n"
        "from fracture_watch.model import torchvision_ops\n"
        "torchvision_ops.import_torchvision()\n"
        "print(torchvision_ops._library)"
    )
    assert done.stdout.strip() == "[]", done.stderr
