import numpy as np
import pytest
import torch
from PIL import Image

from fracture_watch.model.network import Network
from fracture_watch.model.preprocess import Preprocessor
from fracture_watch.training.data import Example
from fracture_watch.training.stopping import EarlyStopping

CANVAS = Preprocessor(32)


def rgb(images):
    return images


class Brightness(torch.nn.Module):
    """Says *fractured* the louder, the brighter a picture is; ``slope`` may turn that round."""

    def __init__(self, slope):
        super().__init__()
        self.slope = torch.nn.Parameter(torch.tensor(float(slope)))
        self.global_pool = torch.nn.AdaptiveAvgPool2d(1)
        self.classifier = torch.nn.Linear(1, 2)

    def forward(self, images):
        bright = self.global_pool(images[:, :1]).flatten(1)
        return torch.cat([bright * self.slope, torch.zeros_like(bright)], dim=1)


def network(slope):
    return Network("timm:none", Brightness(slope))


@pytest.fixture
def tune(tmp_path):
    """Four pictures from dark to bright; the bright ones are fractured, but for one swapped pair."""
    examples = []
    for number, label in enumerate((1, 0, 1, 0)):
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.full((8, 8), 60 * number, np.uint8)).save(path)
        examples.append(Example(path, label, "tune", str(number), frozenset()))
    return examples


def test_the_best_epoch_is_kept_and_patience_ends(tune):
    stopping = EarlyStopping(tune, CANVAS, rgb, patience=2)
    assert "AUROC on tune 0.250 (best 0.250, epoch 1)" in stopping.look(network(-1))
    assert "AUROC on tune 0.750 (best 0.750, epoch 2)" in stopping.look(network(3))
    stopping.look(network(-2))
    assert not stopping.over
    assert "(best 0.750, epoch 2)" in stopping.look(network(5))  # as good is no better
    assert stopping.over
    assert stopping.best(network(5)).body.slope == 3


def test_it_goes_on_from_a_checkpoint(tune):
    first, second = (EarlyStopping(tune, CANVAS, rgb, patience=1) for _ in range(2))
    first.look(network(2))
    first.look(network(-1))
    second.load_state_dict(first.state_dict())
    assert second.over
    assert second.best(network(9)).body.slope == 2


def test_measuring_leaves_the_network_in_training(tune):
    fitted = network(1).train()
    EarlyStopping(tune, CANVAS, rgb, patience=1).look(fitted)
    assert fitted.training


def test_without_examples_every_epoch_counts():
    stopping = EarlyStopping([], CANVAS, rgb, patience=1)
    assert [stopping.look(network(n)) for n in range(3)] == ["", "", ""]
    assert not stopping.over
    assert stopping.best(network(7)).body.slope == 7
