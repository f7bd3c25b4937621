import numpy as np
import pytest

from fracture_watch.model.preprocess import Preprocessor, thumbnail


def test_letterbox_keeps_the_aspect_ratio_centred_on_black():
    tensor = Preprocessor(64, "letterbox")(np.full((200, 100), 255, np.uint8))
    assert tensor.shape == (64, 64)
    assert np.flatnonzero(tensor.any(axis=0)).tolist() == list(range(16, 48))
    assert (tensor[:, 16:48] == 255).all()


def test_stretch_fills_the_input():
    assert (Preprocessor(64, "stretch")(np.full((200, 100), 255, np.uint8)) == 255).all()


def test_colour_stays_colour():
    pixels = np.zeros((100, 100, 3), np.uint8)
    pixels[..., 1] = 200
    tensor = Preprocessor(32)(pixels)
    assert tensor.shape == (32, 32, 3)
    assert tensor[16, 16].tolist() == [0, 200, 0]


def test_shrinking_averages_areas_instead_of_dropping_pixels():
    pixels = np.zeros((640, 640), np.uint8)
    pixels[::2] = 200  # fine lines: sampling would give 0 or 200
    inside = Preprocessor(64)(pixels)[1:-1].astype(int)  # the outermost rows see less than a whole area
    assert abs(inside - 100).max() <= 1


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 5000), (5000, 1), (3, 7)])
def test_odd_sizes_work(rows, columns):
    assert Preprocessor(64)(np.ones((rows, columns), np.uint8)).shape == (64, 64)


def test_a_preview_is_never_enlarged_and_never_over_its_side():
    assert thumbnail(np.zeros((100, 50), np.uint8)).shape == (100, 50)
    assert thumbnail(np.zeros((2000, 1000), np.uint8)).shape == (512, 256)
