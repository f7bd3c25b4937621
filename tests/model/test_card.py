import pytest
import yaml

from fracture_watch.errors import InvalidModel
from fracture_watch.model.card import Calibration, Card, Threshold, card_path
from tests.conftest import make_weights


@pytest.fixture
def own(tmp_path):
    return make_weights(tmp_path / "own.pth")


def edit(weights, **changes):
    values = yaml.safe_load(card_path(weights).read_text()) | changes
    card_path(weights).write_text(yaml.safe_dump(values))


def test_a_card_survives_writing_and_reading(own):
    card = Card.load(own)
    card.save(own)
    assert Card.load(own) == card


def test_missing_weights_name_the_setting(tmp_path):
    with pytest.raises(InvalidModel, match=r"model\.weights"):
        Card.load(tmp_path / "none.pth")


def test_weights_without_a_card_do_not_load(own):
    card_path(own).unlink()
    with pytest.raises(InvalidModel, match=r"its card own\.yaml is missing"):
        Card.load(own)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"classes": {0: "not fractured", 1: "fractured"}}, "classes must be 0: fractured, 1: not fractured"),
        ({"architecture": "resnet18"}, "architecture"),
        ({"threshold": {"value": 1.5}}, "threshold.value"),
        ({"colour": "blue"}, "colour: Extra inputs"),
        ({"sha256": "xyz"}, "sha256"),
        ({"input": {"size": 224, "resize": "squash"}}, "input.resize"),
    ],
)
def test_a_wrong_card_says_which_field(own, changes, said):
    edit(own, **changes)
    with pytest.raises(InvalidModel, match=r".*") as caught:
        Card.load(own)
    assert said in caught.value.detail


def test_what_decides_a_result_is_part_of_the_identity(own):
    card = Card.load(own)
    changed = [
        card.with_threshold(0.4),
        card.model_copy(update={"calibration": Calibration(slope=2.0)}),
        card.model_copy(update={"input": card.input.model_copy(update={"resize": "stretch"})}),
        card.model_copy(update={"input": card.input.model_copy(update={"mean": (0.5, 0.5, 0.5)})}),
        card.model_copy(update={"sha256": "0" * 64}),
        card.model_copy(update={"architecture": "timm:resnet18"}),
    ]
    assert len({c.facts.id for c in [card, *changed]}) == 7


def test_prose_is_no_part_of_the_identity(own):
    card = Card.load(own)
    prose = {"limits": ["none"], "metrics": {"a": 1}, "threshold": Threshold(value=0.5, chosen="otherwise")}
    assert card.model_copy(update=prose).facts.id == card.facts.id
