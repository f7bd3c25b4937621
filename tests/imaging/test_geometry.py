import numpy as np
import pytest
from pydicom import Dataset

from fracture_watch import errors
from fracture_watch.imaging.geometry import exposed, squared
from fracture_watch.imaging.limits import Limits

WHITE = np.full((6, 8), 255, np.uint8)


def header(**elements) -> Dataset:
    made = Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def seen(pixels=WHITE, **elements) -> list[str]:
    """Rows of the picture, '#' where something is shown."""
    shown, _ = exposed(pixels, header(**elements))
    return ["".join("#" if value else "." for value in row) for row in shown]


def edges(name: str, left, right, upper, lower) -> dict[str, object]:
    return {
        f"{name}Shape": "RECTANGULAR",
        f"{name}LeftVerticalEdge": left,
        f"{name}RightVerticalEdge": right,
        f"{name}UpperHorizontalEdge": upper,
        f"{name}LowerHorizontalEdge": lower,
    }


@pytest.mark.parametrize("name", ["Shutter", "Collimator"])
def test_a_rectangle_shows_its_edges_and_what_is_between(name):
    assert seen(**edges(name, 3, 6, 2, 4)) == ["........", "..####..", "..####..", "..####..", "........", "........"]


def test_a_rectangle_that_is_larger_than_the_picture_hides_nothing_and_says_nothing():
    shown, notes = exposed(WHITE, header(**edges("Collimator", -10, 900, 0, 70)))
    assert (shown is WHITE, notes) == (True, ())


def test_a_circle_is_round():
    assert seen(
        np.full((7, 7), 9, np.uint8), ShutterShape="CIRCULAR", CenterOfCircularShutter=[4, 4], RadiusOfCircularShutter=2
    ) == [".......", "...#...", "..###..", ".#####.", "..###..", "...#...", "......."]


def test_a_circle_is_round_on_the_screen_where_pixels_are_tall():
    rows = seen(
        np.full((7, 9), 9, np.uint8),
        ShutterShape="CIRCULAR",
        CenterOfCircularShutter=[4, 5],
        RadiusOfCircularShutter=4,
        PixelAspectRatio=[2, 1],
    )
    assert [row.count("#") for row in rows] == [0, 1, 7, 9, 7, 1, 0]


def test_a_polygon_shows_what_is_inside():
    assert seen(ShutterShape="POLYGONAL", VerticesOfThePolygonalShutter=["2", "2", "2", "7", "5", "2"]) == [
        "........",
        ".######.",
        ".####...",
        ".###....",
        ".#......",
        "........",
    ]


def test_two_shapes_show_what_both_show():
    shutter = edges("Shutter", 3, 8, 1, 6) | {
        "ShutterShape": ["RECTANGULAR", "CIRCULAR"],
        "CenterOfCircularShutter": [3, 3],
        "RadiusOfCircularShutter": 1,
    }
    assert seen(**shutter) == ["........", "..#.....", "..##....", "..#.....", "........", "........"]


@pytest.mark.parametrize(
    "second",
    [
        {
            "ShutterShape": ["RECTANGULAR", "CIRCULAR"],
            "CenterOfCircularShutter": [6, 8],
            "RadiusOfCircularShutter": 1,
        },
        edges("Collimator", 5, 8, 4, 6),
    ],
)
def test_of_two_shapes_that_would_hide_everything_the_first_counts(second):
    shown, notes = exposed(WHITE, header(**(edges("Shutter", 1, 3, 1, 3) | second)))
    assert (shown > 0).sum() == 9
    assert notes[0] == "ShutterShape RECTANGULAR applied"
    assert notes[1] in (
        "ShutterShape CIRCULAR ignored: it cannot be applied",
        "CollimatorShape RECTANGULAR ignored: it cannot be applied",
    )


def test_colours_are_blacked_out_too():
    shown, notes = exposed(np.full((6, 8, 3), 200, np.uint8), header(**edges("Shutter", 1, 8, 1, 5)))
    assert shown[:5].min() == 200
    assert shown[5].max() == 0
    assert notes == ("ShutterShape RECTANGULAR applied",)


@pytest.mark.parametrize(
    "elements",
    [
        {"ShutterShape": "BITMAP"},
        {"ShutterShape": "RECTANGULAR"},
        edges("Shutter", 7, 3, 1, 6),
        edges("Shutter", 20, 30, 1, 6),
        {"ShutterShape": "CIRCULAR", "CenterOfCircularShutter": [3, 3], "RadiusOfCircularShutter": 0},
        {"ShutterShape": "POLYGONAL", "VerticesOfThePolygonalShutter": ["1", "1", "2", "2"]},
        {"ShutterShape": "POLYGONAL", "VerticesOfThePolygonalShutter": ["1", "1", "2", "2", "3"]},
    ],
    ids=["unknown shape", "no edges", "edges crossed", "outside", "no radius", "two corners", "odd number"],
)
def test_a_shutter_that_cannot_be_meant_is_ignored_and_noted(elements):
    shown, notes = exposed(WHITE, header(**elements))
    assert shown is WHITE
    assert notes == (f"ShutterShape {elements['ShutterShape']} ignored: it cannot be applied",)


def test_shutters_without_end_are_noted_a_few_times():
    _, notes = exposed(WHITE, header(ShutterShape=["RUBBISH" + "X" * 500] * 5000))
    assert notes == ("ShutterShape RUBBISHXXXXXXXXX ignored: it cannot be applied",) * 3


def test_an_absent_shutter_changes_nothing():
    assert exposed(WHITE, Dataset()) == (WHITE, ())


@pytest.mark.parametrize(
    ("elements", "shape"),
    [
        ({"PixelSpacing": [0.2, 0.1]}, (12, 8)),
        ({"ImagerPixelSpacing": [0.1, 0.2]}, (6, 16)),
        ({"NominalScannedPixelSpacing": [0.3, 0.2]}, (9, 8)),
        ({"PixelAspectRatio": [3, 4]}, (6, 11)),
        ({"PixelSpacing": [0.1, 0.1], "PixelAspectRatio": [3, 4]}, (6, 8)),
        ({"PixelSpacing": [0.1, 0.1005]}, (6, 8)),
        ({"PixelAspectRatio": [0, 1]}, (6, 8)),
        ({}, (6, 8)),
    ],
    ids=str,
)
def test_pixels_become_square(elements, shape):
    assert squared(WHITE, header(**elements), Limits())[0].shape == shape


def test_what_was_made_square_is_noted():
    assert squared(WHITE, header(PixelAspectRatio=[2, 1]), Limits())[1] == (
        "pixels made square: 6 x 8 shown as 12 x 8",
    )


def test_a_ratio_that_cannot_be_meant_is_ignored_and_noted():
    shown, notes = squared(WHITE, header(PixelAspectRatio=[60000, 1]), Limits())
    assert shown is WHITE
    assert notes == ("pixels of 60000:1 cannot be meant; shown as square ones",)


def test_enlarging_heeds_the_limit():
    with pytest.raises(errors.TooLarge):
        squared(WHITE, header(PixelAspectRatio=[2, 1]), Limits(max_pixels=95))


def test_enlarging_keeps_the_greys_and_their_order():
    ramp = np.arange(0, 240, 30, dtype=np.uint8)[None].repeat(6, 0)
    shown, _ = squared(ramp, header(PixelAspectRatio=[1, 2]), Limits())
    assert (shown[0, 0], shown[0, -1]) == (0, 210)
    assert (np.diff(shown[0].astype(int)) >= 0).all()
