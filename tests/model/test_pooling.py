import numpy as np
import pytest

from fracture_watch.model.pooling import pooled, shares

POOLS = ("noisy-or", "max", "mean")
LOGITS = np.array([[-3.0, 0.5, -1.0], [2.0, 4.0, -6.0], [-20.0, -25.0, -21.0], [40.0, 1.0, 2.0]])


@pytest.mark.parametrize("pool", POOLS)
def test_one_view_is_its_own_logit(pool):
    logits = np.array([[-40.0], [-3.0], [0.0], [2.5], [60.0]])
    assert pooled(logits, pool) == pytest.approx(logits[:, 0])
    assert shares(logits, pool) == pytest.approx(np.ones((5, 1)))


def test_noisy_or_is_the_chance_that_not_all_witnesses_say_no():
    chance = 1 / (1 + np.exp(-LOGITS[:2]))
    together = 1 - (1 - chance).prod(axis=1)
    assert pooled(LOGITS[:2], "noisy-or") == pytest.approx(np.log(together / (1 - together)))


def test_max_and_mean():
    assert pooled(LOGITS, "max").tolist() == [0.5, 4.0, -20.0, 40.0]
    assert pooled(LOGITS, "mean") == pytest.approx(LOGITS.mean(axis=1))


@pytest.mark.parametrize("pool", POOLS)
def test_shares_are_the_slopes(pool):
    step = 1e-5
    for view in range(3):
        moved = LOGITS + step * (np.arange(3) == view)
        slope = (pooled(moved, pool) - pooled(LOGITS, pool)) / step
        assert shares(LOGITS, pool)[:, view] == pytest.approx(slope, abs=1e-4)
