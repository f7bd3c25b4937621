"""Weights from elsewhere: what can be known is adapted, what cannot is asked for, and nothing in them runs."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from fracture_watch import golden, load_classifier
from fracture_watch.errors import InvalidModel, WrongUse
from fracture_watch.imaging import read
from fracture_watch.model.card import Card
from fracture_watch.model.foreign import import_weights
from fracture_watch.model.network import Network
from tests.conftest import ARCHITECTURE, png
from tests.model.test_weights import Malicious

ORDER = "fractured,not fractured"


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(5)
    return Network(ARCHITECTURE).eval()


@pytest.fixture
def state(network):
    return {name: value.clone() for name, value in network.body.state_dict().items()}


def bring(tmp_path, content, classes=ORDER, **options):
    torch.save(content, tmp_path / "old.pth")
    card = import_weights(
        tmp_path / "old.pth",
        tmp_path / "new.pth",
        ARCHITECTURE,
        classes,
        options.pop("resize", "stretch"),
        "1",
        **options,
    )
    golden.write(tmp_path / "new.pth")
    return card


def logit(weights):
    """The logit of *fractured* for one picture, as it is served; the imported card has slope 1, intercept 0."""
    [answer] = load_classifier(weights, device="cpu").predict([read(png(3))])
    return np.log(answer.probability / (1 - answer.probability))


def logits(network):
    card = Card(name="x", version="1", architecture=ARCHITECTURE, input={"resize": "stretch"}, sha256="0" * 64)
    image = torch.from_numpy(card.preprocessor(read(png(3)).pixels).reshape(1, 1, 224, 224).copy())
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (card.input.mean, card.input.std))
    with torch.inference_mode():
        return network((image.expand(1, 3, -1, -1) / 255 - mean) / std).logits[0].double().numpy()


def prefixed(prefix):
    return lambda state: {prefix + name: value for name, value in state.items()}


WRAPPINGS = {
    "as it is": dict,
    "DataParallel": prefixed("module."),
    "Lightning": lambda s: {"epoch": 3, "state_dict": prefixed("net.")(s), "hyper_parameters": {"lr": 0.1}},
    "compiled in a wrapper": prefixed("model._orig_mod.backbone."),
    "a checkpoint": lambda s: {"model_state_dict": prefixed("module.model.")(s), "optimizer_state_dict": {"state": {}}},
    "without counters": lambda s: {name: value for name, value in s.items() if "num_batches" not in name},
    "a head behind a dropout": lambda s: {
        name.replace("classifier.", "classifier.1."): value for name, value in s.items()
    },
    "half precision": lambda s: {
        name: value.half() if value.is_floating_point() else value for name, value in s.items()
    },
}


@pytest.mark.parametrize("how", WRAPPINGS)
def test_a_wrapped_state_dict_answers_as_before(tmp_path, network, state, how):
    card = bring(tmp_path, WRAPPINGS[how](state))
    before = logits(network)
    assert logit(tmp_path / "new.pth") == pytest.approx(
        before[0] - before[1], abs=2e-3 if how == "half precision" else 1e-5
    )
    assert card.classes == {0: "fractured", 1: "not fractured"}
    assert card.input.resize == "stretch"
    assert golden.require(load_classifier(tmp_path / "new.pth", device="cpu"))


def test_outputs_in_the_other_order_are_put_in_ours(tmp_path, network, state):
    bring(tmp_path, state, "not fractured,fractured")
    before = logits(network)
    assert logit(tmp_path / "new.pth") == pytest.approx(before[1] - before[0], abs=1e-5)


@pytest.mark.parametrize(("stands_for", "sign"), [("fractured", 1), ("not_fractured", -1)])
def test_one_logit_becomes_two(tmp_path, network, state, stands_for, sign):
    single = state | {name: state[name][:1] for name in ("classifier.weight", "classifier.bias")}
    bring(tmp_path, single, stands_for)
    assert logit(tmp_path / "new.pth") == pytest.approx(sign * logits(network)[0], abs=1e-5)


@pytest.mark.parametrize("outputs", [1, 2])
def test_what_the_outputs_stand_for_is_never_guessed(tmp_path, state, outputs):
    cut = state | {name: state[name][:outputs] for name in ("classifier.weight", "classifier.bias")}
    with pytest.raises(WrongUse, match=r"must be known what .* Add --classes '.*' or --classes '.*'"):
        bring(tmp_path, cut, None)
    with pytest.raises(WrongUse, match="it is said to be dog, cat"):
        bring(tmp_path, cut, "dog,cat")
    if outputs == 1:  # two names do not say which of them the one output is
        with pytest.raises(WrongUse, match="its one output"):
            bring(tmp_path, cut, ORDER)
    assert not (tmp_path / "new.pth").exists()


@pytest.mark.parametrize(
    "said", [{"class_to_idx": {"not fractured": 0, "fractured": 1}}, {"classes": ["Not_Fractured", "Fractured"]}]
)
def test_a_checkpoint_that_names_its_classes_needs_not_be_told(tmp_path, network, state, said):
    bring(tmp_path, {"state_dict": state} | said, None)
    before = logits(network)
    assert logit(tmp_path / "new.pth") == pytest.approx(before[1] - before[0], abs=1e-5)
    (tmp_path / "new.pth").unlink(), (tmp_path / "new.yaml").unlink()
    with pytest.raises(WrongUse, match="find out which is right"):
        bring(tmp_path, {"state_dict": state} | said, ORDER)


BROKEN = {
    "three outputs": (
        lambda s: s | {"classifier.weight": torch.zeros(3, 256), "classifier.bias": torch.zeros(3)},
        "the network has 3 outputs; it must have 2",
    ),
    "unknown keys": (lambda s: s | {"extra.weight": torch.zeros(1)}, "unknown extra.weight"),
    "missing keys": (lambda s: dict(list(s.items())[1:]), "missing conv_stem.weight"),
    "another shape": (
        lambda s: s | {"conv_stem.weight": torch.zeros(24, 1, 3, 3)},
        r"conv_stem.weight is \(24, 1, 3, 3\)",
    ),
    "a head of one number": (lambda s: s | {"classifier.weight": torch.tensor(1.0)}, r"classifier.weight is \(\)"),
    "one tensor": (lambda _: torch.zeros(3), "holds no state_dict but a Tensor"),
    "something else": (lambda _: {"loss": 0.3, "epoch": 1}, "no state_dict is found under its keys loss, epoch"),
    "not a number": (lambda s: s | {"classifier.bias": torch.tensor([0.0, float("nan")])}, "not finite numbers"),
    "two networks": (lambda s: s | prefixed("model.")(s), "twice, under several prefixes"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_does_not_fit_is_refused_in_clear_words(tmp_path, state, what):
    breaks, said = BROKEN[what]
    with pytest.raises(InvalidModel, match=said):
        bring(tmp_path, breaks(state))
    assert not (tmp_path / "new.pth").exists()


def test_a_file_that_is_no_weights_is_refused(tmp_path):
    (tmp_path / "old.pth").write_bytes(b"no weights at all")
    for trust in (False, True):
        with pytest.raises(InvalidModel, match=r"old\.pth"):
            import_weights(tmp_path / "old.pth", tmp_path / "new.pth", ARCHITECTURE, ORDER, "stretch", "1", trust)


def test_a_damaged_file_of_the_old_kind_is_refused(tmp_path, state):
    torch.save(state, tmp_path / "whole.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "whole.pth").read_bytes()
    for share in (0.001, 0.01, 0.1, 0.5, 0.9999):
        (tmp_path / "old.pth").write_bytes(content[: int(len(content) * share)])
        with pytest.raises(InvalidModel, match="is not a file of PyTorch weights"):
            import_weights(tmp_path / "old.pth", tmp_path / "new.pth", ARCHITECTURE, ORDER, "stretch", "1")


def test_a_checkpoint_that_holds_itself_is_refused(tmp_path):
    circle: dict[str, object] = {"epoch": 3}
    circle["model"] = circle
    with pytest.raises(InvalidModel, match=rf"^{tmp_path}/old.pth: no state_dict is found under its keys epoch, model"):
        bring(tmp_path, circle)


TEXTS = {
    "text": (b"loss 0.31\n", "is not a file of PyTorch weights"),
    "nothing": (b"", "is not a file of PyTorch weights"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "git lfs pull"),
    "a broken pickle": (b"\x80\x02h\x07.", "is not a file of PyTorch weights"),
}


@pytest.mark.parametrize("what", TEXTS)
def test_a_file_that_is_no_weights_is_not_said_to_need_trust(tmp_path, what):
    content, said = TEXTS[what]
    (tmp_path / "old.pth").write_bytes(content)
    with pytest.raises(InvalidModel, match=said) as caught:
        import_weights(tmp_path / "old.pth", tmp_path / "new.pth", ARCHITECTURE, ORDER, "stretch", "1")
    assert "--trust-pickle" not in caught.value.detail


def test_a_card_that_cannot_be_leaves_nothing_behind(tmp_path, state):
    torch.save(state, tmp_path / "old.pth")
    with pytest.raises(WrongUse, match="its card would not be valid: version"):
        import_weights(tmp_path / "old.pth", tmp_path / "new.pth", ARCHITECTURE, ORDER, "stretch", "")
    with pytest.raises(WrongUse, match="timm:NAME"):
        import_weights(tmp_path / "old.pth", tmp_path / "new.pth", "test_efficientnet", ORDER, "stretch", "1")
    assert [path.name for path in tmp_path.iterdir()] == ["old.pth"]


@pytest.mark.parametrize("index", [{"fractured": 0, "not fractured": "1"}, {"fractured": None, "not fractured": 1}])
def test_numbers_of_classes_that_are_none_say_nothing(tmp_path, state, index):
    with pytest.raises(WrongUse, match="nothing says it"):
        bring(tmp_path, {"state_dict": state, "class_to_idx": index}, None)
    bring(tmp_path, {"state_dict": state, "class_to_idx": index})


def test_nothing_is_overwritten(tmp_path, state):
    bring(tmp_path, state)
    with pytest.raises(WrongUse, match=r"new\.pth: exists already"):
        bring(tmp_path, state)


def test_a_malicious_pickle_does_not_run_unless_it_is_trusted(tmp_path, state):
    trap = tmp_path / "trap"
    with pytest.raises(InvalidModel, match="--trust-pickle"):
        bring(tmp_path, {"state_dict": state, "callback": Malicious(trap)})
    assert not trap.exists()
    bring(tmp_path, {"state_dict": state, "callback": Malicious(trap)}, trust_pickle=True)
    assert trap.exists()  # that is what --trust-pickle means: the trap is a real one


def test_a_whole_pickled_model_comes_in_when_it_is_trusted(tmp_path, network, state):
    with pytest.raises(InvalidModel, match="--trust-pickle"):
        bring(tmp_path, network.body)
    bring(tmp_path, nn.DataParallel(network.body), trust_pickle=True)
    before = logits(network)
    assert logit(tmp_path / "new.pth") == pytest.approx(before[0] - before[1], abs=1e-5)


def test_a_pickle_is_opened_in_another_process(tmp_path, state):
    class Crash:
        def __reduce__(self):
            import os

            return os.abort, ()

    with pytest.raises(InvalidModel, match="could not be unpickled"):
        bring(tmp_path, {"state_dict": state, "callback": Crash()}, trust_pickle=True)


def test_a_model_of_a_class_that_is_not_here_says_what_to_do(tmp_path):
    code = f"import torch, sys\nclass Own(torch.nn.Linear): pass\ntorch.save(Own(2, 2), {str(tmp_path / 'own.pth')!r})"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(InvalidModel, match=r"Own.*importable: name its folder in PYTHONPATH"):
        import_weights(tmp_path / "own.pth", tmp_path / "new.pth", ARCHITECTURE, ORDER, "stretch", "1", True)


def test_a_torchvision_resnet_comes_in(tmp_path):
    torch.save(Network("torchvision:resnet18").body.state_dict(), tmp_path / "old.pth")
    card = import_weights(tmp_path / "old.pth", tmp_path / "new.pth", "torchvision:resnet18", ORDER, "letterbox", "2")
    assert (card.name, card.version, card.input.resize) == ("new", "2", "letterbox")
    assert load_classifier(tmp_path / "new.pth").card == card
