"""What is made of a trained network for speed answers as the network itself does."""

import itertools

import pytest
import torch
from torch import nn

from fracture_watch import load_classifier
from fracture_watch.model.card import Card
from fracture_watch.model.inference import PackedConv2d, folded, packed
from fracture_watch.model.network import Network
from fracture_watch.model.torchvision_ops import import_timm
from fracture_watch.model.weights import load_network
from tests.conftest import SHIPPED, make_weights

ONEDNN = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")


def images(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)


def trained(architecture):
    """As if: no layer is without effect. timm begins with blocks whose last normalisation is zero."""
    torch.manual_seed(0)
    network = Network(architecture).eval()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.1)
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 2)
    return network


def check_alike(network, other, size):
    with torch.inference_mode():
        expected, found = network(images(3, 3, size, size)), other(images(3, 3, size, size))
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.features, expected.features, rtol=1e-4, atol=1e-4)


def kinds(network, kind):
    return sum(isinstance(layer, kind) for layer in network.modules())


def test_normalisations_are_folded_into_the_convolutions_before_them(tmp_path):
    path = make_weights(tmp_path / "own.pth")
    plain = Network(Card.load(path).architecture)
    plain.body.load_state_dict(torch.load(path, weights_only=True))
    loaded = load_network(path, Card.load(path))
    assert not kinds(loaded, nn.BatchNorm2d)
    check_alike(plain.eval(), loaded, 224)


class NormalisesFirst(nn.Module):
    """The normalisation stands after the convolution, but runs before it."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 3)
        self.normalisation = nn.BatchNorm2d(3)
        self.normalisation.running_mean += 0.5
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(3, 2)

    def forward(self, images):
        return self.classifier(self.global_pool(self.convolution(self.normalisation(images))).flatten(1))


def test_a_network_that_would_answer_otherwise_is_not_folded():
    network = Network("timm:test_efficientnet", NormalisesFirst()).eval()
    assert kinds(folded(network), nn.BatchNorm2d)


@ONEDNN
@pytest.mark.parametrize("activation", [None, nn.ReLU(), nn.ReLU6()], ids=lambda a: type(a).__name__)
@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [(1, 1, 0, 1), (1, 2, 0, 1), (3, 1, 1, 1), (3, 2, 1, 1), (5, 2, 2, 1), (3, 1, 2, 2), ((3, 1), 1, (1, 0), 1)],
)
def test_a_packed_convolution_is_the_convolution_and_its_activation(
    kernel, stride, padding, dilation, groups, activation
):
    layer = nn.Conv2d(8, 16, kernel, stride, padding, dilation, groups)
    pack = PackedConv2d(layer, activation)
    for shape in ((1, 8, 14, 14), (3, 8, 15, 22)):
        with torch.inference_mode():
            expected, found = layer(5 * images(*shape)), pack(5 * images(*shape))
            expected = activation(expected) if activation else expected
        assert found.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@ONEDNN
@pytest.mark.parametrize("kernel", [1, 2, 3, 5, (3, 5)])
@pytest.mark.parametrize("stride", [1, 2, 3, (1, 2)])
@pytest.mark.parametrize("dilation", [1, 2])
def test_padding_as_tensorflow_does_it_is_packed_for_every_size(kernel, stride, dilation):
    import_timm()
    from timm.layers import Conv2dSame

    layer = Conv2dSame(4, 4, kernel, stride, dilation=dilation, groups=4)
    pack = PackedConv2d(layer, nn.ReLU6())
    for height, width in itertools.product((7, 8, 9, 10, 11, 12), (9, 10, 11)):
        with torch.inference_mode():
            expected = nn.functional.relu6(layer(5 * images(2, 4, height, width)))
            found = pack(5 * images(2, 4, height, width))
        assert found.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@ONEDNN
@pytest.mark.parametrize("architecture", ["timm:efficientnet_lite0", "timm:resnet18", "torchvision:resnet18"])
def test_a_packed_network_answers_as_before(architecture):
    network = folded(trained(architecture))
    fast = packed(network)
    assert kinds(fast, PackedConv2d) == kinds(network, nn.Conv2d)
    assert not kinds(fast, nn.Conv2d)
    for size in (224, 97):
        check_alike(network, fast, size)


class AppliesItTwice(nn.Module):
    """One activation after the convolution, and again at another place."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 3)
        self.activation = nn.ReLU()
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(3, 2)

    def forward(self, images):
        features = self.activation(self.convolution(images)) - 1
        return self.classifier(self.global_pool(self.activation(features)).flatten(1))


@ONEDNN
def test_a_network_that_would_answer_otherwise_is_not_packed():
    torch.manual_seed(0)
    network = Network("timm:test_efficientnet", AppliesItTwice()).eval()
    assert packed(network) is network


@ONEDNN
def test_what_is_no_plain_convolution_of_known_padding_is_left():
    torch.manual_seed(0)
    body = AppliesItTwice()
    body.activation = nn.Identity()
    body.convolution = nn.Sequential(
        nn.Conv2d(3, 3, 3, padding="same"), nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"), nn.Conv2d(3, 3, 3)
    )
    fast = packed(Network("timm:test_efficientnet", body).eval())
    assert [type(layer) for layer in fast.body.convolution] == [nn.Conv2d, nn.Conv2d, PackedConv2d]


class LooksAtItsConvolution(AppliesItTwice):
    """Asks its convolution for what a packed one does not have."""

    def forward(self, images):
        return super().forward(images * self.convolution.stride[0])


@ONEDNN
def test_a_network_that_would_not_answer_any_more_is_not_packed():
    network = Network("timm:test_efficientnet", LooksAtItsConvolution()).eval()
    assert packed(network) is network


def test_where_onednn_is_switched_off_nothing_is_packed(monkeypatch):
    network = folded(trained("timm:test_efficientnet"))
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    assert packed(network) is network


@ONEDNN
@pytest.mark.parametrize("which", ["own", "shipped"])
def test_a_classifier_on_a_cpu_is_packed(tmp_path, which):
    weights = SHIPPED if which == "shipped" else make_weights(tmp_path / "own.pth")
    network = load_classifier(weights, device="cpu").network
    assert kinds(network, PackedConv2d)
    assert not kinds(network, nn.Conv2d)
