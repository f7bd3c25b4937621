"""Shared parts: a tiny real model, a real configuration, drawn pictures."""

import io
import logging
import os
import shutil
import tempfile
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from fracture_watch.disk import digest
from fracture_watch.model.card import Calibration, Card, Input, Threshold
from fracture_watch.model.network import Network
from tests.databases import database, kind, postgresql, url  # noqa: F401  fixtures

REPOSITORY = Path(__file__).parent.parent
SHIPPED = REPOSITORY / "saved_models" / "fracture_best_model.pth"
SHARED = REPOSITORY.parent / "shared" / "data"
ARCHITECTURE = "timm:test_efficientnet"  # timm's smallest: the real code path, in milliseconds


# The same examples on every run of CI, new ones on every other.
hypothesis.settings.register_profile("ci", derandomize=True)
if os.environ.get("CI") == "true":
    hypothesis.settings.load_profile("ci")


@pytest.fixture(autouse=True)
def log_as_before():
    """A command that runs in this process sets the log up as it would in its own; the next test has it as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in set(root.handlers) - set(handlers):
        root.removeHandler(handler)
    root.setLevel(level)


def needs(*commands: str) -> None:
    """Skip a test whose system commands are missing; with CI=true, where ``make test`` installs them all, fail it."""
    missing = [command for command in commands if shutil.which(command) is None]
    if not missing:
        return
    reason = f"not installed: {', '.join(missing)} (as root on Debian, `make test` installs them)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small untrained network with its card."""
    return make_weights(tmp_path_factory.mktemp("model") / "tiny.pth")


def make_weights(path: Path, **card: object) -> Path:
    torch.manual_seed(7)
    torch.save(Network(ARCHITECTURE).body.state_dict(), path)
    defaults = {
        "name": "tiny",
        "version": "1.2.3",
        "architecture": ARCHITECTURE,
        "input": Input(size=64),
        "calibration": Calibration(slope=1.0, intercept=0.0, prevalence=0.2),
        "threshold": Threshold(value=0.5, chosen="by the test"),
        "sha256": digest(path),
    }
    Card(**(defaults | card)).save(path)
    return path


@pytest.fixture
def config(tmp_path: Path, weights: Path) -> Path:
    """A configuration in a folder of its own, quick to settle."""
    return write_config(tmp_path, weights)


def write_config(folder: Path, weights: Path, **sections: dict[str, object]) -> Path:
    values = {
        "inbox": {"settle_seconds": 0.3, "give_up_seconds": 3.0, "rescan_seconds": 1.0},
        "imaging": {"workers": 1},
        "model": {"weights": str(weights), "heatmaps": "all", "device": "cpu"},
        "web": {"port": 0},
    }
    for name, keys in sections.items():
        values[name] = values.get(name, {}) | keys
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def png(seed: int, rows: int = 90, columns: int = 60) -> bytes:
    """A picture that differs with its seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (rows, columns), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def elsewhere():
    """A folder on another device."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == Path(tempfile.gettempdir()).stat().st_dev:
        pytest.skip("there is no second file system at /dev/shm")
    folder = Path(tempfile.mkdtemp(dir=shared))
    yield folder
    shutil.rmtree(folder)
