"""A model with tiles, from file to answer and heat map, and its one-view variant by one line of configuration."""

import numpy as np
import pytest

from fracture_watch import assembly, load_classifier
from fracture_watch.config import load_settings
from fracture_watch.imaging import read
from fracture_watch.model.card import Calibration, Input, OneView, Threshold, Views
from fracture_watch.model.heatmap import DataUrl, Illustrator
from fracture_watch.outcomes import Classified
from fracture_watch.records import Upload
from tests.conftest import make_weights, png, write_config
from tests.dicoms import dicom


@pytest.fixture(scope="module")
def tiled(tmp_path_factory):
    return make_weights(
        tmp_path_factory.mktemp("tiled") / "tiled.pth",
        input=Input(size=64, views=Views(tiles=(3, 3), long_side=128, pool="noisy-or")),
        calibration=Calibration(slope=0.5, intercept=-1.0),
        one_view=OneView(calibration=Calibration(slope=2.0), threshold=Threshold(value=0.1, chosen="by the test")),
    )


def frames() -> bytes:
    """A file of two frames."""
    pixels = np.random.default_rng(8).integers(0, 4096, (2, 90, 60), dtype=np.uint16)
    return dicom(pixels, NumberOfFrames=2)


def test_serving_a_tiled_model_is_predicting_with_it(tmp_path, tiled):
    files = {"a.png": png(1), "wide.png": png(2, 60, 90), "narrow.png": png(3, 120, 30), "b.dcm": frames()}
    settings = load_settings(write_config(tmp_path, tiled))
    with assembly.runtime(settings) as running:
        draw = DataUrl(Illustrator(running.classifier.card.preprocessor))
        outcomes = running.adhoc.run([Upload(name, content) for name, content in files.items()], draw=draw)
    model = load_classifier(tiled, device="cpu")
    for outcome, content in zip(outcomes, files.values(), strict=True):
        assert isinstance(outcome, Classified)
        assert outcome.heatmap.startswith("data:image/png")
        [expected] = model.predict([read(content, outcome.prediction.frame)])
        assert outcome.prediction.probability == pytest.approx(expected.probability, abs=1e-5)
    assert [len(o.prediction.evidence) for o in outcomes] == [10, 10, 4, 10]


def test_one_line_of_configuration_looks_at_the_whole_picture_alone(tmp_path, tiled):
    settings = load_settings(write_config(tmp_path, tiled, model={"views": "whole"}))
    with assembly.runtime(settings) as running:
        [outcome] = running.adhoc.run([Upload("a.png", png(1))])
    [expected] = load_classifier(tiled, device="cpu", one_view=True).predict([read(png(1))])
    assert outcome.prediction == expected
    assert outcome.prediction.threshold == 0.1
    assert len(outcome.prediction.evidence) == 1
    assert outcome.prediction.model.id != load_classifier(tiled, device="cpu").card.facts.id
