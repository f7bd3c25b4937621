import pytest
import yaml

from fracture_watch.errors import InvalidModel, WrongUse
from fracture_watch.model import load_classifier
from fracture_watch.model.card import Calibration, Card, OneView, Threshold, Views, card_path
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
        ({"input": {"std": [0.2, 0.0, 0.2]}}, "input.std.1"),
        ({"input": {"std": [0.2, -0.1, 0.2]}}, "input.std.1"),
        ({"input": {"mean": [0.2, float("nan"), 0.2]}}, "input.mean.1"),
        ({"calibration": {"slope": float("inf")}}, "calibration.slope"),
        ({"calibration": {"intercept": float("nan")}}, "calibration.intercept"),
        ({"input": {"views": "many"}}, "input.views"),
        ({"input": {"views": {"tiles": [3, 9], "long_side": 448, "pool": "max"}}}, "input.views.Views.tiles.1"),
        ({"one_view": {"calibration": {}, "threshold": {}}}, "one_view is for cards whose input.views has tiles"),
    ],
)
def test_a_wrong_card_says_which_field(own, changes, said):
    edit(own, **changes)
    with pytest.raises(InvalidModel, match=r".*") as caught:
        Card.load(own)
    assert said in caught.value.detail


@pytest.mark.parametrize("value", ["2025-02-30", "!!timestamp foo", "!!int ''", "[" * 2000])
def test_a_card_that_yaml_trips_over_is_refused(own, value):
    with card_path(own).open("a") as file:
        file.write(f"limits: [{value}]\n")
    with pytest.raises(InvalidModel, match=r"own\.yaml: the model card is not valid"):
        Card.load(own)


def test_a_card_that_cannot_be_written_says_so(own):
    own.with_name(".own.yaml.part").mkdir()
    with pytest.raises(WrongUse, match="the model card cannot be written: Is a directory"):
        Card.load(own).save(own)


@pytest.mark.parametrize("threshold", [2.0, 0.0, 1.0, -0.1, float("nan")])
def test_a_threshold_that_is_no_probability_is_refused(own, threshold):
    with pytest.raises(WrongUse, match="is no probability between 0 and 1"):
        load_classifier(own, threshold=threshold)


def test_what_decides_a_result_is_part_of_the_identity(own):
    card = Card.load(own)
    changed = [
        card.with_threshold(0.4),
        card.model_copy(update={"calibration": Calibration(slope=2.0)}),
        card.model_copy(update={"input": card.input.model_copy(update={"resize": "stretch"})}),
        card.model_copy(update={"input": card.input.model_copy(update={"mean": (0.5, 0.5, 0.5)})}),
        card.model_copy(update={"sha256": "0" * 64}),
        card.model_copy(update={"architecture": "timm:resnet18"}),
        *(tiled(card, tiles=tiles, pool=pool) for tiles in ((3, 3), (3, 2)) for pool in ("max", "noisy-or")),
        tiled(card, tiles=(3, 3), pool="max", long_side=96),
    ]
    assert len({c.facts.id for c in [card, *changed]}) == 12


def tiled(card: Card, *, tiles: tuple[int, int], pool: str, long_side: int = 128) -> Card:
    views = Views(tiles=tiles, long_side=long_side, pool=pool)
    return card.model_copy(update={"input": card.input.model_copy(update={"views": views})})


def test_the_identity_of_a_card_from_before_views_is_unchanged(own):
    edit(own, sha256="0" * 64)
    values = yaml.safe_load(card_path(own).read_text())
    del values["input"]["views"], values["one_view"]
    card_path(own).write_text(yaml.safe_dump(values))
    assert Card.load(own).facts.id == "0201c7a76a010ffc"


def test_a_tiled_card_survives_writing_and_reading(own):
    card = tiled(Card.load(own), tiles=(3, 2), pool="noisy-or")
    card.save(own)
    assert Card.load(own) == card


def test_one_view_takes_its_own_calibration_and_threshold(own):
    alone = OneView(calibration=Calibration(slope=3.0), threshold=Threshold(value=0.2, chosen="so"))
    card = tiled(Card.load(own), tiles=(3, 3), pool="max").model_copy(update={"one_view": alone})
    one = card.with_one_view()
    assert (one.input.views, one.calibration.slope, one.threshold.value) == ("whole", 3.0, 0.2)
    assert one.facts.id != card.facts.id
    assert one.with_one_view() is one


def test_one_view_without_its_calibration_is_refused(own):
    with pytest.raises(InvalidModel, match="no one_view section"):
        tiled(Card.load(own), tiles=(3, 3), pool="max").with_one_view()


def test_prose_is_no_part_of_the_identity(own):
    card = Card.load(own)
    prose = {"limits": ["none"], "metrics": {"a": 1}, "threshold": Threshold(value=0.5, chosen="otherwise")}
    assert card.model_copy(update=prose).facts.id == card.facts.id
