"""Elements of a radiograph with a VR and a value that they cannot have: a picture or a reason, never a traceback."""

import contextlib

import numpy as np
import pytest

from fracture_watch.errors import Corrupt, FractureWatchError
from fracture_watch.imaging.limits import Limits, Scope
from fracture_watch.imaging.reader import open_image
from tests.dicoms import dicom
from tests.imaging.hostile import element, item, split

_PIXELS = np.arange(64, dtype=np.uint16).reshape(8, 8)
_EDGES = zip(("LeftVertical", "RightVertical", "UpperHorizontal", "LowerHorizontal"), (1, 8, 1, 8), strict=True)
_WHOLE = dicom(
    _PIXELS,
    BitsStored=12,
    Manufacturer="Maker",
    ManufacturerModelName="Model",
    ImagerPixelSpacing=[0.1, 0.1],
    PixelSpacing=[0.1, 0.1],
    PixelAspectRatio=[1, 1],
    ShutterShape="RECTANGULAR",
    **{f"Shutter{edge}Edge": at for edge, at in _EDGES},
    ViewPosition="PA",
    ImageLaterality="L",
    PixelPaddingValue=0,
    WindowCenter=2048,
    WindowWidth=4096,
    RescaleIntercept=0,
    RescaleSlope=1,
    ModalityLUTSequence=[],
    VOILUTSequence=[],
    PresentationLUTShape="IDENTITY",
    SharedFunctionalGroupsSequence=[],
    PerFrameFunctionalGroupsSequence=[],
)
_BROKEN_ITEM, _NESTED_ITEM = item(element(0x28, 0x1050, "FD", b"123")), item(item(b""))
_VALUES = (b"", b"\0\0", b"nan ", b"1e300 ", b"1e400 ", b"9" * 400, _BROKEN_ITEM, _NESTED_ITEM)
_VRS = "AT CS DS FL IS OB PN SQ UI UN US ZZ".split()


def _elements() -> dict[str, tuple[int, int]]:
    """Each of the data set with its place."""
    places, start = {}, len(split(_WHOLE)[0])
    while start < len(_WHOLE):
        group, number = (int.from_bytes(_WHOLE[start + at : start + at + 2], "little") for at in (0, 2))
        long = _WHOLE[start + 4 : start + 6] in (b"OW", b"SQ")
        length = int.from_bytes(_WHOLE[start + 8 : start + 12] if long else _WHOLE[start + 6 : start + 8], "little")
        end = start + (12 if long else 8) + length
        places[f"{group:04x},{number:04x}"] = start, end
        start = end
    return places


_PLACES = _elements()


def _with(name: str, vr: str, value: bytes) -> bytes:
    (start, end), (group, number) = _PLACES[name], (int(part, 16) for part in name.split(","))
    return _WHOLE[:start] + element(group, number, vr, value) + _WHOLE[end:]


@pytest.mark.parametrize("name", _PLACES)
def test_a_vr_that_cannot_be_ends_with_a_picture_or_a_reason(name):
    for vr in _VRS:
        for value in _VALUES:
            try:
                image = open_image(_with(name, vr, value), Limits(), Scope())
                facts = image.facts
                with contextlib.suppress(Corrupt):
                    image.pixels(0)
            except FractureWatchError as error:
                facts = error.facts
            assert all(count is None or 0 <= count <= 65535 for count in (facts.rows, facts.columns)), (vr, value)


@pytest.mark.parametrize("value", [_BROKEN_ITEM, _NESTED_ITEM])
def test_a_text_that_is_a_broken_sequence_is_absent(value):
    facts = open_image(_with("0010,0020", "SQ", value), Limits(), Scope()).facts
    assert (facts.patient_id, facts.accession_number) == (None, "A1")


@pytest.mark.parametrize(
    ("vr", "value", "said"),
    [
        ("FL", bytes(128), "has the VR FL"),
        ("IS", b"1 ", "has the VR IS"),
        ("ZZ", b"ab", "'ZZ'"),
        ("SQ", b"a", "header cannot be read"),
    ],
)
def test_pixel_data_of_a_vr_that_holds_none_are_corrupt_and_the_facts_stay(vr, value, said):
    with pytest.raises(Corrupt, match=said) as caught:
        open_image(_with("7fe0,0010", vr, value), Limits(), Scope())
    assert (caught.value.facts.patient_id, caught.value.facts.rows) == ("P1", 8)


def test_rows_that_no_us_can_hold_are_no_fact():
    with pytest.raises(Corrupt, match="0 rows x 8 columns") as caught:
        open_image(_with("0028,0010", "DS", b"1e300 "), Limits(), Scope())
    assert (caught.value.facts.rows, caught.value.facts.columns) == (None, 8)
