"""Another window than the first: the same picture that a header with that window would give."""

import io

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset

from fracture_watch.imaging.limits import Limits, Scope
from fracture_watch.imaging.reader import open_image
from fracture_watch.records import ALL_GREYS, Greys
from tests.dicoms import dicom

VALUES = np.random.default_rng(3).integers(0, 65536, (40, 50)).astype(np.uint16)
NARROW, WIDE = Greys(0.25, 0.375), Greys(-1.5, 2.5)


def shown(content: bytes, greys: Greys = ALL_GREYS) -> np.ndarray:
    return open_image(content, Limits(), Scope(), greys).pixels(0)


def windowed(center: float, width: float, photometric: str, **others) -> bytes:
    elements = {"WindowCenter": center, "WindowWidth": width, "VOILUTFunction": "LINEAR_EXACT"} | others
    return dicom(VALUES, photometric=photometric, **elements)


@pytest.mark.parametrize("greys", [NARROW, WIDE], ids=["narrow", "wide"])
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_it_is_the_picture_of_a_header_with_that_window(greys, photometric):
    center, width = 30000.0, 16000.0
    low, high = (greys.low, greys.high) if photometric == "MONOCHROME2" else (1 - greys.high, 1 - greys.low)
    other = windowed(center + width * ((low + high) / 2 - 0.5), width * (high - low), photometric)
    assert np.array_equal(shown(windowed(center, width, photometric), greys), shown(other))


def test_a_narrow_window_shows_what_eight_bits_had_lost():
    first = shown(windowed(32768, 65536, "MONOCHROME2"))
    fine = shown(windowed(32768, 65536, "MONOCHROME2"), Greys(0.5, 0.51))
    assert len(np.unique(first[(fine > 0) & (fine < 255)])) <= 4
    assert len(np.unique(fine)) > 15


@pytest.mark.parametrize(
    "others",
    [{"VOILUTFunction": "SIGMOID"}, {"WindowCenter": None, "WindowWidth": None, "VOILUTFunction": None}],
    ids=["sigmoid", "no window"],
)
def test_without_a_linear_window_it_goes_by_what_is_shown(others):
    content = windowed(30000, 40000, "MONOCHROME2", **others)
    first, other = shown(content).astype(float) / 255, shown(content, Greys(0.2, 0.7)).astype(float)
    assert np.abs(other - np.clip((first - 0.2) / 0.5, 0, 1) * 255).max() <= 1.6  # the first was rounded to 8 bit


def test_a_table_is_used_at_its_full_depth():
    entries = np.linspace(0, 65535, 4096).astype(np.uint16)
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [4096, 0, 16], entries.tobytes()
    content = windowed(0, 1, "MONOCHROME2", VOILUTSequence=[table], WindowCenter=None, WindowWidth=None)
    expected = np.clip((entries[np.minimum(VALUES, 4095)] / 65535 - 0.5) / 0.1, 0, 1)
    assert np.array_equal(shown(content, Greys(0.5, 0.6)), np.floor(expected * 255 + 0.5).astype(np.uint8))


def test_colours_and_pictures_of_eight_bit_are_stretched_channel_by_channel():
    colours = np.random.default_rng(4).integers(0, 256, (9, 8, 3)).astype(np.uint8)
    expected = np.floor(np.clip((colours / 255 - 0.25) / 0.125, 0, 1) * 255 + 0.5).astype(np.uint8)
    picture = io.BytesIO()
    Image.fromarray(colours).save(picture, "PNG")
    for content in (picture.getvalue(), dicom(colours, photometric="RGB")):
        assert np.array_equal(shown(content, NARROW), expected)


@pytest.mark.parametrize("inverse", [False, True])
def test_pictures_of_sixteen_bit_keep_their_depth(inverse):
    picture = io.BytesIO()
    Image.fromarray(VALUES).save(picture, "TIFF", **({"tiffinfo": {262: 0}} if inverse else {}))
    grey = 1 - VALUES / 65535 if inverse else VALUES / 65535
    expected = np.clip((grey - 0.25) / 0.125, 0, 1) * 255
    assert np.abs(shown(picture.getvalue(), NARROW) - expected).max() <= 0.51


def test_pictures_of_floats_keep_their_depth():
    picture = io.BytesIO()
    Image.fromarray(VALUES.astype(np.float32)).save(picture, "TIFF")
    low, high = VALUES.min(), VALUES.max()
    expected = np.clip(((VALUES - low) / (high - low) - 0.25) / 0.125, 0, 1) * 255
    assert np.abs(shown(picture.getvalue(), NARROW) - expected).max() <= 0.51
