import numpy as np
import pytest
from PIL import Image

from fracture_watch.model.card import Input, Views
from fracture_watch.training.data import Example
from fracture_watch.training.pointing import hit_rate, pointing_game
from tests.model.test_classifier import classifier

TILES = Views(tiles=(2, 2), long_side=64, pool="max")


@pytest.mark.parametrize("views", ["whole", TILES])
@pytest.mark.parametrize("shape", [(120, 100), (60, 100)])
def test_a_network_that_looks_at_the_brightest_spot_hits_the_box_around_it(tmp_path, views, shape):
    pixels = np.full(shape, 60, np.uint8)
    rows, columns = shape
    pixels[int(0.7 * rows) : int(0.8 * rows), int(0.2 * columns) : int(0.3 * columns)] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    on, off = (
        Example(tmp_path / "a.png", 0, "val", "1", frozenset(), ((left, 0.66, left + 0.18, 0.84),))
        for left in (0.16, 0.5)
    )
    model = classifier(input=Input(size=32, views=views))
    assert pointing_game(model, [on, off, on]).tolist() == [True, False, True]


def test_the_hit_rates_interval_counts_groups_not_pictures(tmp_path):
    def examples(groups):
        return [Example(tmp_path, 0, "val", str(group), frozenset()) for group in groups]

    hits = np.arange(40) < 30
    apart = hit_rate(examples(range(40)), hits, 1, 500)
    together = hit_rate(examples(np.arange(40) // 10), hits, 1, 500)
    assert apart["value"] == together["value"] == 0.75
    assert together["high"] - together["low"] > 1.5 * (apart["high"] - apart["low"])
