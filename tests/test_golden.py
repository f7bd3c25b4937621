"""A model that answers otherwise than its card says is caught before it records anything."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from fracture_watch import golden, load_classifier
from fracture_watch.disk import digest
from fracture_watch.errors import InvalidModel
from fracture_watch.imaging import read
from fracture_watch.model.card import Calibration, Card, Input, OneView, Threshold, Views, card_path
from fracture_watch.model.classifier import Classifier
from fracture_watch.model.weights import load_network
from tests.conftest import SHIPPED, make_weights


@pytest.fixture
def own(tmp_path):
    # An untrained net hardly tells pictures apart; the steep calibration makes it as sensitive as a trained one.
    path = make_weights(tmp_path / "own.pth", calibration=Calibration(slope=60.0))
    golden.write(path)
    return path


def edit(weights, section, **changes):
    values = yaml.safe_load(card_path(weights).read_text())
    values[section] |= changes
    card_path(weights).write_text(yaml.safe_dump(values))


def swap_outputs(weights):
    """The same net with its two outputs exchanged, under a card that fits it."""
    state = torch.load(weights, weights_only=True)
    state |= {name: state[name].flip(0) for name in list(state)[-2:]}
    torch.save(state, weights)
    Card.load(weights).model_copy(update={"sha256": digest(weights)}).save(weights)


BREAKAGES = {
    "swapped outputs": swap_outputs,
    "another normalisation": lambda w: edit(w, "input", mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5]),
    "BGR normalisation": lambda w: edit(w, "input", mean=[0.9, 0.456, 0.0]),
    "another resize": lambda w: edit(w, "input", resize="stretch"),
    "another calibration": lambda w: edit(w, "calibration", intercept=0.2),
}


@pytest.mark.parametrize("what", BREAKAGES)
def test_a_broken_model_is_caught(own, what):
    assert golden.require(load_classifier(own, device="cpu"))
    BREAKAGES[what](own)
    with pytest.raises(InvalidModel, match=r"tiny 1\.2\.3: golden images get other probabilities.*model check --write"):
        golden.require(load_classifier(own, device="cpu"))


@pytest.mark.parametrize("intercept", [-20.0, -13.5, 13.5, 20.0])
def test_a_model_that_is_all_but_certain_agrees_with_its_own_card(tmp_path, intercept):
    path = make_weights(tmp_path / "sure.pth", calibration=Calibration(intercept=intercept))
    golden.write(path)
    assert golden.require(load_classifier(path, device="cpu"))


def test_a_library_that_computes_otherwise_is_caught(own):
    class Rotted(Classifier):
        """A resize that has come to crop, as after a library's change."""

        def classify(self, prepared):
            return super().classify([replace(p, tensor=np.roll(p.tensor, 9, axis=-2)) for p in prepared])

    card = Card.load(own)
    assert golden.require(Classifier(load_network(own, card), card, "cpu"))
    with pytest.raises(InvalidModel):
        golden.require(Rotted(load_network(own, card), card, "cpu"))


def test_the_shipped_card_holds_its_probabilities_and_notices_a_swap(tmp_path):
    assert golden.require(load_classifier(SHIPPED, device="cpu"))
    copy = tmp_path / "copy.pth"
    copy.write_bytes(SHIPPED.read_bytes())
    Card.load(SHIPPED).save(copy)
    swap_outputs(copy)
    with pytest.raises(InvalidModel):
        golden.require(load_classifier(copy, device="cpu"))


def test_golden_values_are_no_part_of_the_identity(own):
    card = Card.load(own)
    assert card.golden
    assert card.model_copy(update={"golden": {}}).facts == card.facts


def test_a_card_with_tiles_holds_the_answers_of_its_one_view_too(tmp_path):
    whole = OneView(calibration=Calibration(slope=30.0), threshold=Threshold(value=0.1, chosen="by the test"))
    views = Views(tiles=(2, 1), long_side=96, pool="noisy-or")
    path = make_weights(tmp_path / "tiled.pth", input=Input(size=64, views=views), one_view=whole)
    golden.write(path)
    models = [load_classifier(path, device="cpu", one_view=one) for one in (False, True)]
    assert all(map(golden.require, models))
    assert models[0].card.golden != models[1].card.golden


def test_another_threshold_is_no_contradiction(own):
    assert golden.require(load_classifier(own, threshold=0.9, device="cpu"))


def test_a_card_without_golden_values_is_known_as_such(tmp_path):
    assert not golden.require(load_classifier(make_weights(tmp_path / "own.pth"), device="cpu"))


def test_the_images_are_the_same_everywhere():
    """Integer sums of what is decoded: another NumPy, Pillow or pydicom must not change the pictures themselves."""
    sums = {name: int(read(draw()).pixels.astype(np.int64).sum()) for name, draw in golden._IMAGES.items()}
    assert sums == {"dicom-1": 6309174, "png-1": 5005235, "colour-1": 18237890}
