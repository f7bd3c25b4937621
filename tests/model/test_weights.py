import os

import pytest
import torch

from fracture_watch.disk import digest
from fracture_watch.errors import InvalidModel
from fracture_watch.model import load_classifier
from fracture_watch.model.card import Card
from fracture_watch.model.network import Network
from fracture_watch.model.weights import load_network
from tests.conftest import make_weights


class Malicious:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def with_content(tmp_path, content):
    """Weights whose card matches them, whatever they are."""
    path = make_weights(tmp_path / "own.pth")
    card = Card.load(path)
    torch.save(content, path)
    card.model_copy(update={"sha256": digest(path)}).save(path)
    return path


def test_a_card_of_other_weights_is_refused(tmp_path):
    path = make_weights(tmp_path / "own.pth")
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(InvalidModel, match="is not the card of these weights"):
        load_classifier(path)


def test_a_pickle_never_runs(tmp_path):
    trap = tmp_path / "trap"
    path = with_content(tmp_path, {"weight": Malicious(trap)})
    with pytest.raises(InvalidModel, match="would run code"):
        load_classifier(path)
    assert not trap.exists()


def test_weights_of_another_network_are_refused(tmp_path):
    path = with_content(tmp_path, {"fc.weight": torch.zeros(2, 8)})
    with pytest.raises(InvalidModel, match="do not fit timm:test_efficientnet with 2 classes"):
        load_classifier(path)


def test_weights_with_three_outputs_are_refused(tmp_path):
    state = Network("timm:test_efficientnet").body.state_dict()
    state["classifier.weight"] = torch.zeros(3, state["classifier.weight"].shape[1])
    state["classifier.bias"] = torch.zeros(3)
    with pytest.raises(InvalidModel, match="with 2 classes"):
        load_classifier(with_content(tmp_path, state))


def test_a_file_that_is_no_weights_at_all_is_refused(tmp_path):
    path = make_weights(tmp_path / "own.pth")
    card = Card.load(path)
    path.write_bytes(b"not weights")
    card.model_copy(update={"sha256": digest(path)}).save(path)
    with pytest.raises(InvalidModel, match=r"own\.pth"):
        load_classifier(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"), (b"\x80\x02h\x07.", "own.pth")],
)
def test_what_torch_would_stumble_over_is_refused(tmp_path, content, said):
    path = make_weights(tmp_path / "own.pth")
    path.write_bytes(content)
    with pytest.raises(InvalidModel, match=said):  # the digest is that of the real weights
        load_network(path, Card.load(path))
    with pytest.raises(InvalidModel, match=said):
        load_network(path, Card.load(path).model_copy(update={"sha256": digest(path)}))


def test_an_unknown_architecture_is_named(tmp_path):
    path = make_weights(tmp_path / "own.pth", architecture="timm:no_such_network")
    with pytest.raises(InvalidModel, match="no_such_network"):
        load_network(path, Card.load(path))


@pytest.mark.parametrize(
    ("architecture", "said"),
    [
        ("resnet18", "write timm:resnet18 or torchvision:resnet18"),
        ("keras:resnet18", "an architecture is timm:NAME or torchvision:NAME$"),
        ("torchvision:fcn_resnet50", "torchvision's ResNets alone are supported, such as torchvision:resnet18"),
        ("torchvision:raft_small", "torchvision's ResNets alone"),
        ("torchvision:resnet19", "there is no such network"),
        ("timm:hf-hub:owner/name", "names of timm's own alone are supported"),
    ],
)
def test_what_is_no_architecture_is_refused_before_anything_is_fetched(architecture, said):
    with pytest.raises(InvalidModel, match=said):
        Network(architecture)


@pytest.mark.parametrize("name", ["resnext50_32x4d", "wide_resnet50_2"])
def test_resnets_kin_in_torchvision_are_built(name):
    assert Network(f"torchvision:{name}").head.out_features == 2


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    path = make_weights(tmp_path / "own.pth")
    state = torch.load(path, weights_only=True)
    next(value for name, value in state.items() if name.endswith("conv_dw.weight"))[0, 0, 0, 0] = torch.nan
    torch.save(state, path)
    with pytest.raises(InvalidModel, match=r"own\.pth: some weights are not finite numbers"):
        load_network(path, Card.load(path).model_copy(update={"sha256": digest(path)}))


def test_a_network_with_layers_between_its_features_and_its_head_is_refused_when_it_is_loaded(tmp_path):
    path, architecture = tmp_path / "mobile.pth", "timm:mobilenetv3_small_050"
    torch.save(Network(architecture).body.state_dict(), path)
    card = Card(name="m", version="1", architecture=architecture, sha256=digest(path))
    with pytest.raises(InvalidModel, match=f"{architecture}: only networks that end in average pooling"):
        load_network(path, card)


def test_a_torchvision_resnet_loads(tmp_path):
    torch.save(Network("torchvision:resnet18").body.state_dict(), tmp_path / "resnet.pth")
    Card(name="r", version="1", architecture="torchvision:resnet18", sha256=digest(tmp_path / "resnet.pth")).save(
        tmp_path / "resnet.pth"
    )
    assert load_classifier(tmp_path / "resnet.pth").card.architecture == "torchvision:resnet18"
