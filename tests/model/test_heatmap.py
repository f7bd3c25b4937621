import base64
import io

import numpy as np
import pytest
from PIL import Image

from fracture_watch.errors import StorageUnavailable
from fracture_watch.model.heatmap import DataUrl, Gallery, Illustrator, aligned, overlay, painted
from fracture_watch.model.preprocess import Preprocessor
from fracture_watch.records import Facts, Label, ModelFacts, Prediction, Prepared

PREVIEW = np.full((200, 100), 60, np.uint8)
MODEL = ModelFacts("m", "1", "abcd")


def evidence(row: int, column: int) -> np.ndarray:
    heat = np.full((1, 7, 7), -1.0, np.float32)
    heat[0, row, column] = 5
    return heat


def hottest(picture: np.ndarray) -> tuple[float, float]:
    """Where the red is strongest, in fractions of rows and columns."""
    red = picture[..., 0].astype(float)
    row, column = np.unravel_index(red.argmax(), red.shape)
    return row / red.shape[0], column / red.shape[1]


@pytest.mark.parametrize(("resize", "cell"), [("letterbox", (1, 3)), ("stretch", (1, 3))])
def test_the_heat_lies_where_the_network_saw_it(resize, cell):
    picture = overlay(PREVIEW, evidence(*cell), Preprocessor(224, resize), PREVIEW.shape)
    row, column = hottest(picture)
    assert row == pytest.approx(1.5 / 7, abs=0.06)
    assert column == pytest.approx(0.5, abs=0.06)


def test_letterbox_padding_is_cut_off():
    # The picture fills the middle half of the input's width: the third cell's centre lies at (2.5/7 - 1/4) * 2.
    _, column = hottest(overlay(PREVIEW, evidence(3, 2), Preprocessor(224, "letterbox"), PREVIEW.shape))
    assert column == pytest.approx((2.5 / 7 - 0.25) * 2, abs=0.08)


@pytest.mark.parametrize(("rows", "columns"), [(200, 164), (164, 200)])
@pytest.mark.parametrize("tile", range(1, 10))
def test_a_tiles_heat_lies_where_the_tile_was_cut(rows, columns, tile):
    preprocessor = Preprocessor(224, tiles=(3, 3), long_side=448)
    heat = np.zeros((10, 7, 7), np.float32)
    heat[tile, 2, 4] = 5
    left, top, width, height = preprocessor.boxes(rows, columns)[tile]
    row, column = hottest(overlay(np.full((rows, columns), 60, np.uint8), heat, preprocessor, (rows, columns)))
    assert row == pytest.approx((2.5 / 7 * 224 - top) / height, abs=0.02)
    assert column == pytest.approx((4.5 / 7 * 224 - left) / width, abs=0.02)


@pytest.mark.parametrize("shape", [(1003, 2000), (2000, 1003), (1503, 3000), (3000, 3002)])
@pytest.mark.parametrize("side", [160, 256, 512])
def test_a_smaller_picture_that_is_rounded_to_another_layout_has_the_heat_in_its_place(shape, side):
    pixels, preprocessor = np.full(shape, 60, np.uint8), Preprocessor(224, tiles=(3, 2), long_side=448)
    boxes = preprocessor.boxes(*shape)
    heat = np.zeros((len(boxes), 7, 7), np.float32)
    heat[2, 2, 3] = 5
    left, top, width, height = boxes[2]
    with Image.open(io.BytesIO(painted(pixels, side, heat, preprocessor))) as picture:
        row, column = hottest(np.asarray(picture))
    assert row == pytest.approx((2.5 / 7 * 224 - top) / height, abs=0.03)
    assert column == pytest.approx((3.5 / 7 * 224 - left) / width, abs=0.03)


def test_whole_and_tiles_add_up_to_the_evidence():
    """Over a square picture the mean of the map is the sum of the views' means: the logit, less a constant."""
    preprocessor = Preprocessor(224, tiles=(2, 2), long_side=448)
    evidence = np.random.default_rng(5).normal(size=(5, 7, 7)).astype(np.float32)
    heat = aligned(evidence, preprocessor, (448, 448), 448, 448)
    assert heat.mean() == pytest.approx(evidence.mean(axis=(1, 2)).sum(), abs=0.05)


def test_what_speaks_against_a_fracture_is_not_painted():
    picture = overlay(PREVIEW, np.full((1, 7, 7), -1, np.float32), Preprocessor(224), PREVIEW.shape)
    assert (picture == 60).all()


def case(label: Label) -> tuple[Prepared, Prediction]:
    prepared = Prepared("ab" * 32, PREVIEW[None], (PREVIEW, PREVIEW + 1), (PREVIEW.shape,) * 2, Facts())
    return prepared, Prediction(label, 0.9, 0.5, MODEL, 1, evidence(3, 3))


@pytest.mark.parametrize(
    ("which", "label", "drawn"),
    [
        ("all", Label.NOT_FRACTURED, True),
        ("positives", Label.FRACTURED, True),
        ("positives", Label.NOT_FRACTURED, False),
        ("none", Label.FRACTURED, False),
    ],
)
def test_settings_say_which_pictures_are_drawn(which, label, drawn):
    assert (Illustrator(Preprocessor(), which).png(*case(label)) is not None) == drawn


def test_the_gallery_names_pictures_by_content_and_model(tmp_path):
    path = Gallery(Illustrator(Preprocessor()), tmp_path)(*case(Label.FRACTURED))
    assert path == str(tmp_path / "ab" / f"{'ab' * 32}-abcd.png")
    assert Image.open(path).size == (100, 200)
    assert [p.name for p in (tmp_path / "ab").iterdir()] == [f"{'ab' * 32}-abcd.png"]


def test_what_a_crash_left_of_a_picture_goes_with_the_next_attempt(tmp_path):
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab" / f".{'ab' * 32}-abcd.png.part").write_bytes(b"half a picture" * 10_000)
    path = Gallery(Illustrator(Preprocessor()), tmp_path)(*case(Label.FRACTURED))
    assert Image.open(path).size == (100, 200)
    assert [p.name for p in (tmp_path / "ab").iterdir()] == [f"{'ab' * 32}-abcd.png"]


def test_an_unwritable_gallery_is_a_systemic_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageUnavailable):
        Gallery(Illustrator(Preprocessor()), tmp_path / "file")(*case(Label.FRACTURED))


def test_a_data_url_holds_the_picture():
    url = DataUrl(Illustrator(Preprocessor()))(*case(Label.FRACTURED))
    header, _, data = url.partition(",")
    assert header == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (100, 200)
