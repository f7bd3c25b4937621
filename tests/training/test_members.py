from pathlib import Path

import pytest
import torch

from fracture_watch.errors import InvalidModel
from fracture_watch.model.inference import folded, packed
from fracture_watch.model.network import Network
from fracture_watch.training.fit import Recipe
from fracture_watch.training.members import apart, checkpoints, joined, names_of, pretrained_members

PAIR = "timm:resnet10t+test_resnet"


@pytest.fixture(scope="module")
def members():
    torch.manual_seed(1)
    return [Network(name).eval() for name in names_of(PAIR)]


@pytest.fixture(scope="module")
def images():
    return torch.randn((3, 3, 96, 96), generator=torch.Generator().manual_seed(2))


@torch.inference_mode()
def test_the_logits_are_the_mean_of_the_members_logits(members, images):
    found = joined(members, PAIR)(images).logits
    assert torch.allclose(found, sum(member(images).logits for member in members) / 2, atol=1e-5)


@torch.inference_mode()
def test_the_class_activation_map_is_exact(members, images):
    network = joined(members, PAIR)
    logits, features = network(images)
    maps = torch.einsum("nchw,kc->nkhw", features, network.head.weight)
    assert torch.allclose(maps.mean(dim=(2, 3)) + network.head.bias, logits, atol=1e-5)


@torch.inference_mode()
def test_what_was_joined_comes_apart_again(members, images):
    network = joined(members, PAIR)
    again = joined(apart(network, PAIR), PAIR)
    assert torch.allclose(again(images).logits, network(images).logits, atol=1e-6)
    for one, member in zip(apart(network, PAIR), members, strict=True):
        assert torch.equal(one(images).features, member(images).features)


@torch.inference_mode()
def test_one_network_is_its_only_member(members):
    name = names_of(PAIR)[0]
    assert joined(members[:1], name) is members[0]
    assert apart(members[0], name) == [members[0]]


@torch.inference_mode()
def test_serving_makes_it_fast_as_it_does_any_network(members, images):
    network = joined(members, PAIR)
    fast = packed(folded(network))
    assert sum(value.numel() for value in fast.parameters()) < 20_000  # packed weights are no parameters any more
    assert torch.allclose(fast(images).logits, network(images).logits, atol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "complaint"),
    [
        ("timm:resnet10t+", "names of timm's own alone"),
        ("timm:resnet10t+hf-hub:a/b", "are written timm:NAME.NAME"),
        ("timm:resnet10t+timm:resnet18", "are written timm:NAME.NAME"),
        ("torchvision:resnet18+resnet34", "are written timm:NAME.NAME"),
    ],
)
def test_names_that_are_none_are_refused(architecture, complaint):
    with pytest.raises(InvalidModel, match=complaint):
        Network(architecture)


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        ("inception_v3", "must be of one size; these: 5 x 5, 7 x 7"),
        ("mobilenetv3_small_050", "only networks that end in average pooling"),
        ("vit_tiny_patch16_384", "vit_tiny_patch16_384: only networks that end in average pooling"),
        ("coat_tiny", "coat_tiny: only networks that end in average pooling"),
    ],
)
def test_networks_that_do_not_go_together_are_refused(other, complaint):
    with pytest.raises(InvalidModel, match=complaint):
        Network(f"timm:{other}+resnet10t").check_runs(224)


def test_one_named_twice_starts_from_two_seeds():
    one, other = apart(
        pretrained_members("timm:test_resnet+test_resnet", 64, 20, print), "timm:test_resnet+test_resnet"
    )
    assert not torch.equal(one.head.weight, other.head.weight)


def test_every_member_has_a_checkpoint_of_its_own():
    assert checkpoints(Recipe(), Path("x.checkpoint")) == [Path("x.checkpoint")]
    assert [path.name for path in checkpoints(Recipe(architecture=PAIR), Path("x.fold-1"))] == [
        "x.fold-1-1",
        "x.fold-1-2",
    ]
