"""The figures are scikit-learn's, for whole samples and for every bootstrap draw; aims are reached."""

import numpy as np
import pytest
from sklearn import metrics

from fracture_watch.errors import WrongUse
from fracture_watch.training import bootstrap
from fracture_watch.training.bootstrap import Sample
from fracture_watch.training.figures import (
    AIMS,
    Aim,
    Bootstrap,
    calibration_bins,
    choose_threshold,
    measure,
    operating_point,
    parse_wish,
    rates,
    subgroups,
    threshold_for,
)
from fracture_watch.training.thresholds import short

HOW = Bootstrap(seed=1, resamples=200)


def sample(count=300, groups=60, seed=0):
    random = np.random.default_rng(seed)
    truth = random.random(count) < 0.3
    probability = np.round(np.clip(random.normal(0.3 + 0.3 * truth, 0.2), 0.01, 0.99), 2)  # rounded: with ties
    return Sample(truth, probability, random.integers(groups, size=count).astype(str))


@pytest.fixture(scope="module")
def weights():
    return np.stack([np.ones(300, np.int64), *np.random.default_rng(3).integers(0, 4, (5, 300))])


REFERENCES = {
    bootstrap.auroc: metrics.roc_auc_score,
    bootstrap.average_precision: metrics.average_precision_score,
    bootstrap.brier: metrics.brier_score_loss,
}


@pytest.mark.parametrize("figure", REFERENCES, ids=lambda figure: figure.__name__)
def test_a_draws_figure_is_scikit_learns(figure, weights):
    s = sample()
    expected = [REFERENCES[figure](s.truth, s.probability, sample_weight=row) for row in weights]
    assert figure(s, weights) == pytest.approx(expected, abs=1e-12)


def test_the_calibration_error_is_that_of_the_bins_that_are_drawn():
    s = sample()
    bins = calibration_bins(s)
    assert [count for *_, count in bins] == [30] * 10
    expected = sum(abs(mean - share) * count for mean, share, count in bins) / 300
    assert bootstrap.calibration_error(s, np.ones((1, 300), np.int64)) == pytest.approx([expected])
    doubled = Sample(np.repeat(s.truth, 2), np.repeat(s.probability, 2), np.repeat(s.group, 2))
    [once], [twice] = (
        bootstrap.calibration_error(s, np.full((1, 300), 2)),
        bootstrap.calibration_error(doubled, np.ones((1, 600), int)),
    )
    assert once == pytest.approx(twice)


def test_groups_are_drawn_whole_and_draws_repeat_with_their_seed():
    s = sample(groups=6)

    def check(part, weights):
        for name in np.unique(part.group):
            assert len({tuple(column) for column in weights[:, part.group == name].T}) == 1
        return weights.sum(axis=1).astype(float)

    assert (bootstrap.drawn(s, 1, 50, check) == bootstrap.drawn(s, 1, 50, check)).all()
    assert len(bootstrap.drawn(s, 1, 50, check)) == 50


def test_a_draw_always_holds_both_classes():
    s = Sample(np.array([True, False, False]), np.array([0.9, 0.1, 0.2]), np.array(["a", "b", "c"]))
    assert np.isfinite(bootstrap.drawn(s, 1, 500, bootstrap.auroc)).all()


def test_figures_of_a_whole_sample():
    s = sample()
    found = measure(s, 0.45, HOW)
    confusion = found.confusion
    assert confusion.true_positive + confusion.false_negative == found.fractured == s.truth.sum()
    assert found.auroc.value == pytest.approx(metrics.roc_auc_score(s.truth, s.probability), abs=1e-4)
    assert found.sensitivity.value == pytest.approx(confusion.true_positive / found.fractured, abs=1e-4)
    for name in ("auroc", "average_precision", "sensitivity", "specificity", "brier"):
        figure = getattr(found, name)
        assert figure.low < figure.value < figure.high


def test_an_interval_knows_that_images_of_a_group_are_alike():
    one = sample(groups=300)
    grouped = Sample(np.repeat(one.truth, 4), np.repeat(one.probability, 4), np.repeat(np.arange(300).astype(str), 4))
    alone = Sample(grouped.truth, grouped.probability, np.arange(1200).astype(str))
    wide, narrow = (measure(s, 0.45, HOW).auroc for s in (grouped, alone))
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


@pytest.mark.parametrize("aim", AIMS, ids=str)
def test_an_aim_is_reached_with_the_best_other_rate(aim):
    s = sample()
    point = operating_point(s, aim, HOW)
    reached = getattr(point, aim.quantity)
    other = "specificity" if aim.quantity == "sensitivity" else "sensitivity"
    assert reached.value >= aim.at_least
    assert reached.low >= aim.at_least - 1e-4  # each draw reaches it with a threshold of its own
    possible = [
        dict(zip(("sensitivity", "specificity"), rates(s, t), strict=True)) for t in np.linspace(0.001, 0.999, 999)
    ]
    best = max(p[other] for p in possible if p[aim.quantity] >= aim.at_least)
    assert getattr(point, other).value == pytest.approx(best, abs=1e-3)


@pytest.mark.parametrize("aim", [Aim("specificity", 0.5), Aim("sensitivity", 1.0)], ids=str)
def test_the_image_that_chose_a_threshold_is_called_fractured(aim):
    s = Sample(np.array([False, False, True]), np.array([0.1, 0.3100001, 0.3100002]), np.array(["a", "b", "c"]))
    assert rates(s, threshold_for(s, aim)) == (1.0, 1.0 if aim.quantity == "sensitivity" else 0.5)


SCORES = [0.2, 0.2 + 1e-9, 0.31000049, 0.3100005, 0.7, 0.99999999, 1 - 1e-16]


@pytest.mark.parametrize("chosen", [*SCORES, float("inf")])
def test_a_short_threshold_decides_as_the_score_it_stands_for(chosen):
    scores = np.array(SCORES)
    found = short(chosen, scores)
    assert 0 < found < 1
    assert ((scores >= found) == (scores >= chosen)).all() or chosen > 1  # no number lies above the last


@pytest.mark.parametrize(("chosen", "scores"), [(0.0, [0.0, 0.0]), (1.0, [1.0, 1.0]), (float("inf"), [0.5, 1.0])])
def test_a_threshold_is_a_probability_whatever_the_scores(chosen, scores):
    assert 0 < short(chosen, np.array(scores)) < 1


def test_a_chosen_threshold_says_how_it_was_chosen():
    s = sample()
    aimed = choose_threshold(parse_wish("sensitivity >= 0.90", None), None, s, "mine.csv")
    assert rates(s, aimed.value)[0] >= 0.9
    assert aimed.value == threshold_for(s, Aim("sensitivity", 0.9))
    assert aimed.chosen.startswith("sensitivity >= 0.9; chosen on mine.csv (300 images, ")
    told = choose_threshold(parse_wish("0.31", "the clinic asked"), "the clinic asked", s, "mine.csv")
    assert told.value == 0.31
    assert told.chosen.startswith("the clinic asked; measured on mine.csv")


@pytest.mark.parametrize(
    "text",
    [
        "1.5",
        "0",
        "0.99999999999999999999",
        "-0.2",
        "nan",
        "sensitivity",
        "sensitivity>0.9",
        "sensitivity>=0.0",
        "specificity>=1.1",
        "accuracy>=0.9",
    ],
)
def test_a_wish_that_is_none_is_refused(text):
    with pytest.raises(WrongUse, match="neither a probability such as"):
        parse_wish(text, "why")


@pytest.mark.parametrize("text", ["sensitivity>=1", "sensitivity >= 1.0", "specificity>=1."])
def test_an_aim_may_be_all_of_them(text):
    s, aim = sample(), parse_wish(text, None)
    assert aim.at_least == 1
    assert getattr(operating_point(s, aim, HOW), aim.quantity).value == 1


def test_a_bare_threshold_needs_a_reason():
    with pytest.raises(WrongUse, match="--because"):
        parse_wish("0.31", None)


def test_subgroups_are_what_tells_images_apart():
    s = sample()
    properties = [
        {"hand": str(n % 2), "split": "val", "width": str(n), "rare": "yes"}
        if n < 6
        else {"hand": str(n % 2), "split": "val", "width": str(n)}
        for n in range(300)
    ]
    found = {(g.name, g.value): g for g in subgroups(s, properties, 0.45, HOW)}
    assert set(found) == {("hand", "0"), ("hand", "1"), ("rare", ""), ("rare", "yes")}
    assert found["hand", "0"].images == 150
    assert found["hand", "0"].figures.images == 150
    assert found["rare", "yes"].figures is None
