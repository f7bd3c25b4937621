import numpy as np
import pytest
import torch

import fracture_watch
from fracture_watch.model.card import IMAGENET_MEAN, IMAGENET_STD, Calibration, Card, Input, Threshold, Views
from fracture_watch.model.classifier import Classifier, Urgent
from fracture_watch.model.network import Answer
from fracture_watch.records import Facts, Label, Prepared, Radiograph


class TwoOutputs(torch.nn.Module):
    """A network by hand: logit 0 is the mean of the normalised input's red channel, logit 1 is 0."""

    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(3, 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 0, 0]]))
            self.head.bias.zero_()

    def forward(self, images):
        return Answer(self.head(images.mean(dim=(2, 3))), images)


def classifier(**card) -> Classifier:
    defaults = {
        "name": "hand",
        "version": "1",
        "architecture": "timm:none",
        "sha256": "0" * 64,
        "input": Input(size=32),
    }
    return Classifier(TwoOutputs(), Card(**(defaults | card)), "cpu", batch_size=4)


def prepared(*levels: int, colour: bool = False) -> Prepared:
    shape = (32, 32, 3) if colour else (32, 32)
    tensor = np.stack([np.full((1, *shape), level, np.uint8) for level in levels])
    return Prepared("0" * 64, tensor, tuple(tensor[:, 0]), (), Facts())


def expected(level: int) -> float:
    logit = (level / 255 - IMAGENET_MEAN[0]) / IMAGENET_STD[0]
    return 1 / (1 + np.exp(-logit))


def test_class_0_is_fractured():
    [bright, dark] = classifier().classify([prepared(255), prepared(0)])
    assert (bright.label, dark.label) == (Label.FRACTURED, Label.NOT_FRACTURED)
    assert bright.probability > 0.5 > dark.probability


@pytest.mark.parametrize("level", [0, 100, 255])
def test_the_input_is_normalised_by_the_card(level):
    assert classifier().classify([prepared(level)])[0].probability == pytest.approx(expected(level), abs=1e-6)


def test_colour_channels_keep_their_order():
    image = prepared(0, colour=True)
    image.tensor[..., 0] = 255
    assert classifier().classify([image])[0].probability == pytest.approx(expected(255), abs=1e-6)


def test_a_grey_picture_is_answered_like_its_colour_copy_alone_or_beside_one(weights):
    model = fracture_watch.load_classifier(weights, device="cpu")
    grey = np.random.default_rng(0).integers(0, 256, (1, 3, 64, 64), np.uint8)
    colour = np.repeat(grey[..., np.newaxis], 3, axis=-1)
    [alone], [copy] = (model.classify([Prepared("0" * 64, tensor, (), (), Facts())]) for tensor in (grey, colour))
    pair = model.classify([Prepared("0" * 64, tensor, (), (), Facts()) for tensor in (colour, grey)])
    assert [found.probability for found in (copy, *pair)] == pytest.approx([alone.probability] * 3, abs=1e-6)


def test_calibration_applies_to_the_logit():
    calibrated = classifier(calibration=Calibration(slope=2.0, intercept=-1.0))
    logit = np.log(expected(200) / (1 - expected(200)))
    [found] = calibrated.classify([prepared(200)])
    assert found.probability == pytest.approx(1 / (1 + np.exp(-(2 * logit - 1))), abs=1e-6)


def test_at_the_threshold_is_fractured():
    probability = classifier().classify([prepared(200)])[0].probability
    at, over = (
        classifier(threshold=Threshold(value=value, chosen="")).classify([prepared(200)])[0].label
        for value in (probability, np.nextafter(probability, 1))
    )
    assert (at, over) == (Label.FRACTURED, Label.NOT_FRACTURED)


def test_the_highest_frame_is_the_files():
    [found] = classifier().classify([prepared(10, 240, 30)])
    assert found.frame == 1
    assert found.probability == pytest.approx(expected(240), abs=1e-6)


def test_files_of_several_frames_and_batches_do_not_mix():
    files = [prepared(*range(start, start + count)) for start, count in ((0, 3), (50, 1), (100, 5), (200, 2))]
    together = classifier().classify(files)
    alone = [classifier().classify([file])[0] for file in files]
    assert [p.frame for p in together] == [2, 0, 4, 1]
    assert [p.probability for p in together] == pytest.approx([p.probability for p in alone], abs=1e-6)


def tiled(pool: str) -> Classifier:
    return classifier(input=Input(size=32, views=Views(tiles=(2, 1), long_side=64, pool=pool)))


def with_views(*frames: tuple[int, ...]) -> Prepared:
    tensor = np.stack([[np.full((32, 32), level, np.uint8) for level in views] for views in frames])
    return Prepared("0" * 64, tensor, tuple(tensor[:, 0]), (), Facts())


def test_views_of_a_frame_are_pooled_and_frames_are_not():
    [maximum] = tiled("max").classify([with_views((10, 100, 20), (90, 80, 70))])
    [either] = tiled("noisy-or").classify([with_views((10, 100, 20), (90, 80, 70))])
    assert (maximum.frame, either.frame) == (0, 1)
    assert maximum.probability == pytest.approx(expected(100), abs=1e-6)
    none = np.prod([1 - expected(level) for level in (90, 80, 70)])
    assert either.probability == pytest.approx(1 - none, abs=1e-6)


def test_files_of_several_views_do_not_mix():
    files = [with_views(*[(start + i, start + 2 * i, 5) for i in range(count)]) for start, count in ((9, 3), (60, 1))]
    together = tiled("noisy-or").classify(files)
    assert together == [tiled("noisy-or").classify([file])[0] for file in files]
    assert all(p.evidence.shape == (3, 32, 32) for p in together)


def test_evidence_counts_by_what_its_view_has_to_do_with_the_answer():
    [found] = tiled("max").classify([with_views((10, 100, 20))])
    assert [bool(view.any()) for view in found.evidence] == [False, True, False]


def test_view_logits_are_those_before_pooling():
    logits = tiled("mean").view_logits(with_views((10, 100, 20)).tensor)
    assert logits.shape == (1, 3)
    assert 1 / (1 + np.exp(-logits[0])) == pytest.approx([expected(level) for level in (10, 100, 20)], abs=1e-6)


def test_nothing_gives_nothing():
    assert classifier().classify([]) == []


def test_every_prediction_says_which_model_and_threshold():
    [found] = classifier().classify([prepared(1)])
    assert (found.model, found.threshold) == (classifier().card.facts, 0.5)


def test_the_mean_of_the_evidence_is_the_logit(weights):
    model = fracture_watch.load_classifier(weights, device="cpu")
    pixels = np.random.default_rng(1).integers(0, 256, (100, 80), dtype=np.uint8)
    [found] = model.predict([Radiograph(pixels, "0" * 64, 0, 1, Facts())])
    head = model.network.head
    bias = float((head.bias[0] - head.bias[1]).detach())
    logit = np.log(found.probability / (1 - found.probability))
    assert float(found.evidence.mean()) + bias == pytest.approx(logit, abs=1e-4)


def test_predicting_radiographs_is_classifying_what_workers_prepare(weights):
    model = fracture_watch.load_classifier(weights, threshold=0.3, device="cpu")
    pixels = np.random.default_rng(2).integers(0, 256, (100, 80, 3), dtype=np.uint8)
    tensor = model.card.preprocessor(pixels)[np.newaxis]
    [one] = model.predict([Radiograph(pixels, "0" * 64, 0, 1, Facts())])
    [other] = model.classify([Prepared("0" * 64, tensor, (pixels,), (), Facts())])
    assert one == other
    assert one.threshold == 0.3


def test_an_urgent_answer_is_the_same_and_shortens_the_passes_of_others(weights):
    classifier = fracture_watch.load_classifier(weights, device="cpu")
    tensor = np.random.default_rng(3).integers(0, 256, (20, 1, 64, 64), np.uint8)
    frames = [Prepared(str(number), tensor[number : number + 1], (), (), Facts()) for number in range(20)]
    passes = []
    classifier.network.register_forward_pre_hook(lambda network, images: passes.append(len(images[0])))
    before = classifier.classify(frames)
    urgent = Urgent(classifier).classify(frames)
    after = classifier.classify(frames)
    assert passes == [16, 4, 16, 4, 8, 8, 4]
    assert [p.probability for p in urgent] == pytest.approx([p.probability for p in before], abs=1e-6)
    assert [p.label for p in after] == [p.label for p in before]
