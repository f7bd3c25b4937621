"""A batch that is divided among the cores is answered as it is in one pass."""

import threading

import pytest
import torch

from fracture_watch.errors import InvalidModel
from fracture_watch.model.inference import folded, packed
from fracture_watch.model.network import Network
from fracture_watch.model.side_by_side import SideBySide


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(1)
    return packed(folded(Network("torchvision:resnet18").eval()))


def images(count: int) -> torch.Tensor:
    return torch.rand((count, 3, 64, 64), generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("count", [1, 2, 3, 7, 16])
def test_answers_are_those_of_one_pass_in_their_order(network, count):
    with torch.inference_mode():
        together, divided = network(images(count)), SideBySide(network)(images(count))
    for one, other in zip(together, divided, strict=True):
        assert one.shape == other.shape
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def test_threads_elsewhere_keep_every_core(network):
    found = []
    before = torch.get_num_threads()
    SideBySide(network)
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert (torch.get_num_threads(), found) == (before, [before])


def test_what_fails_in_a_part_fails_in_the_whole(network, monkeypatch):
    divided = SideBySide(network)
    monkeypatch.setattr(network, "_keep_features", None)
    monkeypatch.setattr(network.body.avgpool, "_forward_pre_hooks", {})
    with pytest.raises(InvalidModel, match="pooling layer"):
        divided(images(7))
