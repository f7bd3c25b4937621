"""Items by the ten thousand: refused before pydicom has made a dataset of each, wherever they hide."""

import numpy as np
import pytest
from pydicom import uid

from fracture_watch.errors import Corrupt
from fracture_watch.imaging import read
from tests.dicoms import dicom
from tests.imaging.hostile import SEQUENCE_END, UNDEFINED, element, inserted, item, sound, tag

_FLOOD = item(b"") * 60_000
_OPEN = element(0x40, 0x275, "SQ", _FLOOD + SEQUENCE_END, UNDEFINED)
_BY_LENGTH = element(0x28, 0x3010, "SQ", _FLOOD)
_WITHIN = element(0x40, 0x275, "SQ", item(_BY_LENGTH) + SEQUENCE_END, UNDEFINED)
_TAG = tag(0x7FE0, 0x10)
FLOODS = {
    "open": inserted(sound(), _OPEN),
    "by length": inserted(sound(), _BY_LENGTH),
    "by length in an open one": inserted(sound(), _WITHIN),
    "behind the tag of pixel data in the preamble": _TAG + inserted(sound(), _OPEN)[4:],
    "behind the tag of pixel data in a value": inserted(sound(), element(0x29, 0x1001, "OB", _TAG) + _OPEN),
    "behind the pixel data": sound() + tag(0xFFFA, 0x275) + _OPEN[4:],
    "for pixel data": sound()[: sound().rindex(_TAG)] + element(0x7FE0, 0x10, "SQ", _FLOOD),
}


@pytest.mark.parametrize("content", FLOODS.values(), ids=FLOODS)
def test_a_flood_of_items_is_refused_wherever_it_is(content):
    with pytest.raises(Corrupt, match="the header has over 50,000 sequence items"):
        read(content)


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian])
def test_pixels_that_look_like_items_are_none(syntax):
    pixels = np.tile(np.array([0xFFFE, 0xE000], np.uint16), (400, 200))
    assert read(dicom(pixels, syntax=syntax)).pixels.shape == (400, 400)
