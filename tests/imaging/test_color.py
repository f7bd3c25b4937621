import numpy as np
import pytest
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

from fracture_watch import errors
from fracture_watch.imaging.dicom import DicomImage
from fracture_watch.imaging.limits import Limits, Scope
from tests.dicoms import dicom

INDICES = np.array([[0, 1, 2, 3, 4, 5, 6, 7]], np.uint8)
# Three given values, four on the line to 107, then the first segment again.
SEGMENTS = [0, 3, 10, 20, 99, 1, 4, 107, 2, 1, "offset 0"]
EXPANDED = [10, 20, 99, 101, 103, 105, 107, 10]


def shown(segments, bits: int, syntax=ExplicitVRLittleEndian, count: int = 8) -> list[int]:
    """The grey that the same palette in every colour gives to each index."""
    little = syntax != ExplicitVRBigEndian
    if bits == 16:
        words = [0, 0] if segments[-1:] == ["offset 0"] else []
        scaled = [word * 256 if place in _VALUES else word for place, word in enumerate(segments) if word != "offset 0"]
        data = np.array(scaled + words, "<u2" if little else ">u2").tobytes()
    else:
        words = [word for word in segments if word != "offset 0"] + [0] * (4 if "offset 0" in segments else 0)
        packed = np.array(words + [0] * (len(words) % 2), np.uint8).view("<u2")
        data = packed.astype("<u2" if little else ">u2").tobytes()
    elements = {}
    for color in ("Red", "Green", "Blue"):
        elements[f"{color}PaletteColorLookupTableDescriptor"] = [count, 0, bits]
        elements[f"Segmented{color}PaletteColorLookupTableData"] = data
    content = dicom(INDICES, syntax=syntax, photometric="PALETTE COLOR", **elements)
    pixels = DicomImage(content, Limits(), Scope()).pixels(0)
    assert (pixels == pixels[..., :1]).all()
    return pixels[0, :, 0].tolist()


_VALUES = {2, 3, 4, 7}  # places in SEGMENTS that are values, not opcodes or lengths


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian], ids=["little", "big"])
@pytest.mark.parametrize("bits", [8, 16])
def test_discrete_linear_and_indirect_segments_are_expanded(bits, syntax):
    assert shown(SEGMENTS, bits, syntax) == EXPANDED


@pytest.mark.parametrize(
    "segments",
    [
        [],
        [1, 3, 50],
        [0, 3, 10, 20, 99],
        [0, 0, 0, 0],
        [7, 3, 10, 20, 99],
        [0, 1, 10, 2, 9, "offset 0"],
        [0, 9, 10, 20, 99],
    ],
    ids=["none", "a line from nowhere", "too few", "empty", "unknown", "a segment that repeats itself", "cut off"],
)
def test_broken_segments_are_corrupt(segments):
    with pytest.raises(errors.Corrupt, match="RedPaletteColorLookupTable is missing or broken"):
        shown(segments, 8)


def test_a_palette_that_is_missing_is_corrupt():
    content = dicom(INDICES, photometric="PALETTE COLOR")
    with pytest.raises(errors.Corrupt, match="RedPaletteColorLookupTable is missing or broken"):
        DicomImage(content, Limits(), Scope()).pixels(0)
