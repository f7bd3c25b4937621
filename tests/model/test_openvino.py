"""The OpenVINO runtime answers as torch does, and tells nobody that it was used."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

from fracture_watch import golden, load_classifier
from fracture_watch.errors import InvalidModel
from fracture_watch.imaging.limits import Limits, Scope
from fracture_watch.imaging.workers import Plan, prepare
from fracture_watch.model.card import Calibration
from fracture_watch.model.preprocess import Small
from fracture_watch.records import Upload
from tests.conftest import make_weights, png
from tests.dicoms import dicom

needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="the openvino extra is not installed"
)


@pytest.fixture(scope="module")
def steep(tmp_path_factory):
    """Weights whose steep calibration magnifies any difference between runtimes."""
    weights = make_weights(tmp_path_factory.mktemp("model") / "steep.pth", calibration=Calibration(slope=60.0))
    golden.write(weights)
    return weights


def pictures(model, count):
    """By turns a picture, and three frames of a DICOM file."""
    plan = Plan(Small(model.card.preprocessor), Limits(), Scope())
    frames = np.random.default_rng(4).integers(0, 256, (3, 80, 60), np.uint8)
    contents = [dicom(frames, seed=n) if n % 2 else png(n) for n in range(count)]
    return [prepare(Upload("x", content), plan) for content in contents]


@needs_openvino
def test_it_answers_as_torch_does_whatever_the_batch(steep):
    reference, other = load_classifier(steep, device="cpu"), load_classifier(steep, runtime="openvino", batch_size=4)
    for count in (1, 7):
        for one, two in zip(
            reference.classify(pictures(reference, count)), other.classify(pictures(other, count)), strict=True
        ):
            assert two.probability == pytest.approx(one.probability, abs=1e-4)
            assert (two.label, two.frame, two.model) == (one.label, one.frame, one.model)
            assert two.evidence == pytest.approx(one.evidence, abs=1e-4)
    assert golden.require(other)


@needs_openvino
def test_it_is_for_the_cpu(steep):
    with pytest.raises(InvalidModel, match=r"set model\.device to auto or cpu"):
        load_classifier(steep, runtime="openvino", device="cuda")


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@needs_openvino
def test_it_does_not_report_its_use(steep, tmp_path):
    done = python(
        "import sys, fracture_watch\n"
        f"fracture_watch.load_classifier({str(steep)!r}, runtime='openvino')\n"
        "print([name for name, module in sys.modules.items() if name.startswith('openvino_telemetry') and module])",
        HOME=str(tmp_path),
        CI="false",
    )
    assert done.stdout.strip() == "[]", done.stderr
    assert list(tmp_path.iterdir()) == []  # the reporting keeps its identity in the home folder


def test_without_the_package_it_says_what_to_install(steep):
    done = python(
        "import sys; sys.modules['openvino'] = None\n"
        "import fracture_watch\n"
        f"fracture_watch.load_classifier({str(steep)!r}, runtime='openvino')"
    )
    assert "pip install 'fracture-watch[openvino]'" in done.stderr
