import numpy as np
import pytest
from PIL import Image

from fracture_watch.model.preprocess import Picture, Preprocessor, Small


def test_letterbox_keeps_the_aspect_ratio_centred_on_black():
    [tensor] = Preprocessor(64, "letterbox")(np.full((200, 100), 255, np.uint8))
    assert tensor.shape == (64, 64)
    assert np.flatnonzero(tensor.any(axis=0)).tolist() == list(range(16, 48))
    assert (tensor[:, 16:48] == 255).all()


def test_stretch_fills_the_input():
    assert (Preprocessor(64, "stretch")(np.full((200, 100), 255, np.uint8)) == 255).all()


def test_colour_stays_colour():
    pixels = np.zeros((100, 100, 3), np.uint8)
    pixels[..., 1] = 200
    [tensor] = Preprocessor(32)(pixels)
    assert tensor.shape == (32, 32, 3)
    assert tensor[16, 16].tolist() == [0, 200, 0]


def test_shrinking_averages_areas_instead_of_dropping_pixels():
    pixels = np.zeros((640, 640), np.uint8)
    pixels[::2] = 200  # fine lines: sampling would give 0 or 200
    inside = Preprocessor(64)(pixels)[0, 1:-1].astype(int)  # the outermost rows see less than a whole area
    assert abs(inside - 100).max() <= 1


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 5000), (5000, 1), (3, 7)])
def test_odd_sizes_work(rows, columns):
    pixels = np.ones((rows, columns), np.uint8)
    assert Preprocessor(64)(pixels).shape == (1, 64, 64)
    assert Preprocessor(64, tiles=(2, 2), long_side=96)(pixels).shape[1:] == (64, 64)


def ramp(rows: int, columns: int) -> np.ndarray:
    """Every pixel differs from its neighbours."""
    return (np.arange(rows)[:, None] + 3 * np.arange(columns)).astype(np.uint8)


def test_tiles_follow_the_whole_picture_and_cover_it_at_the_canonical_scale():
    picture = ramp(96, 80)
    views = Preprocessor(48, tiles=(3, 2), long_side=96)(picture)
    assert (views[:1] == Preprocessor(48)(picture)).all()
    expected = [picture[top : top + 48, left : left + 48] for top in (0, 24, 48) for left in (0, 32)]
    assert (views[1:] == expected).all()


def test_tiles_along_the_long_side_lie_along_it_in_a_wide_picture_too():
    tall, wide = (Preprocessor(48, tiles=(3, 2), long_side=96).boxes(*shape) for shape in ((96, 80), (80, 96)))
    assert {(top, left) for left, top, _, _ in tall[1:]} == {(left, top) for left, top, _, _ in wide[1:]}


def test_a_narrow_picture_has_one_row_of_tiles_centred_on_black():
    views = Preprocessor(48, tiles=(3, 3), long_side=96)(np.full((96, 32), 200, np.uint8))
    assert views.shape == (4, 48, 48)
    assert (views[1:, :, 8:40] == 200).all()
    assert not views[1:, :, :8].any()
    assert not views[1:, :, 40:].any()


def test_tiles_of_a_colour_picture_are_in_colour():
    picture = np.stack([ramp(96, 96)] * 3, axis=-1) * np.array([1, 0, 1], np.uint8)
    views = Preprocessor(48, tiles=(2, 2), long_side=96)(picture)
    assert views.shape == (5, 48, 48, 3)
    assert (views[1] == picture[:48, :48]).all()


def test_a_preview_is_never_enlarged_and_never_over_its_side():
    assert Picture(np.zeros((100, 50), np.uint8), 224).thumbnail().shape == (100, 50)
    assert Picture(np.zeros((2000, 1000), np.uint8), 224).thumbnail().shape == (512, 256)


@pytest.mark.parametrize("preprocessor", [Preprocessor(1024), Preprocessor(tiles=(4, 4), long_side=1024)])
def test_a_card_that_asks_for_large_pictures_gets_their_detail(preprocessor):
    """Stripes of two pixels, which averaged blocks of two would leave grey where they lie across them."""
    stripes = np.zeros((1900, 1900), np.uint8)
    stripes[:, 1::4] = stripes[:, 2::4] = 255
    assert preprocessor(stripes)[-1][50:150, 50:150].std() > 30


@pytest.mark.parametrize(("rows", "columns"), [(454, 373), (2999, 2501), (900, 4100)])
def test_what_is_averaged_once_for_all_is_as_good_as_for_each_alone(rows, columns):
    """Against Pillow's exact area-averaging filter; a picture that has detail down to single pixels."""
    noise = np.random.default_rng(1).integers(0, 256, (rows, columns), np.uint8)
    pixels = np.asarray(Image.fromarray(noise).resize((columns, rows), Image.Resampling.BICUBIC))
    preprocessor = Preprocessor(tiles=(3, 2))
    views, preview = Small(preprocessor)(pixels)
    assert (views == preprocessor(pixels)).all()
    assert max(preview.shape) == min(512, max(rows, columns))
    for box, view in zip(preprocessor.boxes(rows, columns), views, strict=True):
        exact = np.asarray(Image.fromarray(pixels).resize(box[2:], Image.Resampling.BILINEAR))
        placed = preprocessor._placed(exact, box).astype(int)
        assert np.sqrt(np.mean((placed - view) ** 2)) < 6  # of 74, what the noise itself has
