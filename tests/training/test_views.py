"""What a network is shown while it learns."""

import numpy as np
import pytest
import torch
from PIL import Image

from fracture_watch.errors import WrongUse
from fracture_watch.model.preprocess import Preprocessor
from fracture_watch.training.augment import augmented, cells_on_boxes, geometry
from fracture_watch.training.crops import Sampler
from fracture_watch.training.data import Pictures, Reader, read_labels, with_boxes

AREAS = np.array([[0, 0, 1, 1], [0.1, 0, 0.9, 1], [0, 0, 1, 1], [0.1, 0, 0.9, 1]])
BOX = np.array([[0.6, 0.2, 0.7, 0.3]])
NONE = np.zeros((0, 4))


def sampler(crop_share: float) -> Sampler:
    """Two fractured pictures, the first of them with a box, and two that are not fractured."""
    pictures = Pictures([np.zeros((8, 8), np.uint8)] * 4, AREAS, [BOX, NONE, NONE, NONE])
    return Sampler(pictures, np.array([True, True, False, False]), 0.35, crop_share, 0.5)


def test_whole_pictures_are_centred_with_the_share_that_was_asked_for():
    views = sampler(0).draw(2000, np.random.default_rng(1))
    assert (views.span == 1).all()
    assert (views.centre == 0.5).all()
    assert views.fractured.mean() == pytest.approx(0.35, abs=0.05)
    assert set(views.picture[views.fractured]) == {0, 1}
    assert set(views.picture[~views.fractured]) == {2, 3}


def test_crops_show_a_fracture_or_none_and_stay_inside_the_picture():
    views = sampler(1).draw(2000, np.random.default_rng(2))
    assert (views.span == 0.5).all()
    assert set(views.picture[views.fractured]) == {0}
    assert set(views.picture[~views.fractured]) == {0, 2, 3}
    low, high = views.centre - 0.25, views.centre + 0.25
    assert (low >= AREAS[views.picture, :2] - 1e-9).all()
    assert (high <= AREAS[views.picture, 2:] + 1e-9).all()
    off = np.abs(views.centre[views.fractured] - (0.65, 0.25))
    assert off.max() <= 0.25 + 1e-9
    free = ~views.fractured & (views.picture == 0)
    assert ((low[free] > BOX[0, 2:]) | (high[free] < BOX[0, :2])).any(axis=1).all()


def test_the_share_of_crops_is_what_was_asked_for():
    views = sampler(0.5).draw(2000, np.random.default_rng(3))
    assert (views.span == 0.5).mean() == pytest.approx(0.5, abs=0.05)


def places(seed: int, centre=((0.5, 0.5),) * 4, span=(1.0,) * 4) -> torch.Tensor:
    return geometry(torch.tensor(centre), torch.tensor(span), torch.Generator().manual_seed(seed))


def test_augmentation_is_random_reproducible_and_bounded():
    images = torch.randint(0, 256, (4, 73, 73), dtype=torch.uint8)
    one, same, other = (augmented(images, places(seed), 64, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.shape == (4, 3, 64, 64)
    assert 0 <= one.min() <= one.max() <= 1


def test_a_crop_shows_what_lies_around_its_centre():
    images = torch.zeros((64, 96, 96), dtype=torch.uint8)
    images[:, 44:52, 68:76] = 255  # a square at (0.75, 0.5)
    here, there = (
        augmented(images, places(4, ((x, 0.5),) * 64, (0.5,) * 64), 48, torch.Generator().manual_seed(4))
        for x in (0.75, 0.25)
    )
    contrast = [(pictures[:, 0, 14:34, 14:34].flatten(1).std(dim=1)).median() for pictures in (here, there)]
    assert contrast[0] > 4 * contrast[1]


def test_cells_on_boxes_are_where_the_augmented_box_is_seen():
    images, boxes = torch.zeros((40, 96, 96), dtype=torch.uint8), torch.tensor([[0.5, 0.5, 0.75, 0.625]])
    images[:, 48:60, 48:72] = 255
    where = places(6, ((0.5, 0.5),) * 40, (0.7,) * 40)
    grid = torch.nn.functional.affine_grid(where, [40, 1, 70, 70], align_corners=False)
    seen = torch.nn.functional.grid_sample(images[:, None].float(), grid, align_corners=False)[:, 0] > 128
    none = torch.full_like(boxes, torch.nan)
    cells = cells_on_boxes(where, torch.cat([none, boxes]).expand(40, -1, -1), 7)
    enlarged = cells.repeat_interleave(10, 1).repeat_interleave(10, 2)
    assert (seen & enlarged).sum() / seen.sum() > 0.97
    assert cells.float().mean() < 0.35


def test_a_view_without_a_box_has_no_cells():
    assert not cells_on_boxes(places(1), torch.full((4, 2, 4), torch.nan), 7).any()
    assert not cells_on_boxes(places(1), torch.zeros((4, 0, 4)), 7).any()


@pytest.fixture
def one(tmp_path):
    """A wide picture whose right half is bright."""
    pixels = np.zeros((50, 100), np.uint8)
    pixels[:, 50:] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("image,label,split,group\na.png,0,train,1\n")
    return tmp_path


def test_boxes_lie_on_the_canvas_as_on_the_picture(one):
    (one / "boxes.csv").write_text("image,x_min,y_min,x_max,y_max\na.png,0.5,0,1,1\nother.png,0,0,1,1\n")
    examples = with_boxes(read_labels(one / "labels.csv", one), one / "boxes.csv", one)
    pictures = Reader(Preprocessor(64), lambda items, _: items)(examples)
    assert pictures.areas.tolist() == [[0, 0.25, 1, 0.75]]
    [[box]] = pictures.boxes
    left, top, right, bottom = (box * 64).astype(int)
    assert (pictures.pixels[0][top:bottom, left + 1 : right] > 250).all()
    assert (left, top, right, bottom) == (32, 16, 64, 48)


def test_a_picture_is_read_once_however_many_networks_learn_from_it(one):
    examples, reports = read_labels(one / "labels.csv", one), []
    read = Reader(Preprocessor(64), lambda items, told: reports.append(told) or items)
    first = read(examples)
    (one / "a.png").unlink()
    again = read(examples * 2)
    assert [pixels is first.pixels[0] for pixels in again.pixels] == [True, True]
    assert again.areas.tolist() == first.areas.tolist() * 2
    assert reports == ["reading pictures"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image,x_min,y_min,x_max\na.png,0,0,1\n", "needs the columns image and, as numbers, x_min"),
        ("filename,x_min,y_min,x_max,y_max\na.png,0,0,1,1\n", "needs the columns image and, as numbers, x_min"),
        ("image,x_min,y_min,x_max,y_max\na.png,0,0,many,1\n", "needs the columns image and, as numbers, x_min"),
        ("image,x_min,y_min,x_max,y_max\na.png,30,40,60,80\n", "must be fractions"),
        ("image,x_min,y_min,x_max,y_max\na.png,0.5,0,0.2,1\n", "min below max"),
    ],
)
def test_wrong_boxes_are_named_by_line(one, text, said):
    (one / "boxes.csv").write_text(text)
    with pytest.raises(WrongUse, match=r"boxes\.csv, line 2: ") as caught:
        with_boxes(read_labels(one / "labels.csv", one), one / "boxes.csv", one)
    assert said in caught.value.detail


def test_boxes_that_name_no_labelled_picture_are_refused(one):
    (one / "boxes.csv").write_text("image,x_min,y_min,x_max,y_max\nimages/a.png,0,0,1,1\n")
    with pytest.raises(WrongUse, match="no box of a labelled picture"):
        with_boxes(read_labels(one / "labels.csv", one), one / "boxes.csv", one)


def test_boxes_that_contradict_the_labels_are_refused(one):
    (one / "labels.csv").write_text("image,label,split,group\na.png,1,train,1\n")
    (one / "boxes.csv").write_text("image,x_min,y_min,x_max,y_max\na.png,0,0,1,1\n")
    with pytest.raises(WrongUse, match=r"has a box of a\.png, which the labels call not fractured"):
        with_boxes(read_labels(one / "labels.csv", one), one / "boxes.csv", one)


def test_missing_boxes_are_named(one):
    with pytest.raises(WrongUse, match=r"none\.csv: the boxes cannot be read"):
        with_boxes([], one / "none.csv", one)
