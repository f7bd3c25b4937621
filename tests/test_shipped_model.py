"""The weights that are shipped, on labelled radiographs that are not (but were learned from)."""

import csv

import numpy as np
import pytest

import fracture_watch
from fracture_watch import golden
from fracture_watch.imaging import read
from tests.conftest import SHARED, SHIPPED

WEIGHTS = [SHIPPED, SHIPPED.with_name("fracture_pair_model.pth")]


@pytest.fixture(scope="module", params=WEIGHTS, ids=lambda path: path.stem)
def weights(request):
    return request.param


@pytest.fixture(scope="module")
def model(weights):
    return fracture_watch.load_classifier(weights, device="cpu")


def test_it_answers_as_its_card_says(model):
    assert golden.require(model)


def test_the_card_belongs_to_the_weights_and_keeps_the_contract(model, weights):
    card = model.card
    assert card.classes == {0: "fractured", 1: "not fractured"}
    assert (card.input.size, card.input.mean, card.input.std) == (224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert weights.stat().st_size < 40_000_000


def test_the_card_credits_its_sources(model):
    assert "FracAtlas" in model.card.training["data"]
    assert model.card.training["licence"] == "CC BY 4.0"
    assert "Apache-2.0" in model.card.training["backbone"]
    assert "Not a medical device" in model.card.intended_use


@pytest.mark.skipif(
    not (SHARED / "fracatlas").is_dir(), reason="the labelled radiographs of ../shared/data are not here"
)
def test_fractured_radiographs_score_higher(model):
    from sklearn.metrics import roc_auc_score

    with (SHARED / "fracatlas" / "manifest.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "val"]
    chosen = [row for row in rows if row["label"] == "0"][::3] + [row for row in rows if row["label"] == "1"][::12]
    images = [read(SHARED / "fracatlas" / "images" / row["image"]) for row in chosen]
    probability = [prediction.probability for prediction in model.predict(images)]
    fractured = np.array([row["label"] == "0" for row in chosen])
    assert roc_auc_score(fractured, probability) > 0.75
