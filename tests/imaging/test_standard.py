"""Whole files with random headers against the standard, read literally and independently (see test_grayscale)."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, uid
from pydicom.dataelem import DataElement

from fracture_watch.imaging.dicom import DicomImage
from fracture_watch.imaging.limits import Limits, Scope
from tests.dicoms import dicom
from tests.imaging.test_grayscale import cases, luts, reference_display, reference_lut, reference_stored_value

SYNTAXES = [
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.RLELossless,
]


def lut_item(first: int, entries: list[int], bits: int, signed: bool, data_vr: str, order: str) -> Dataset:
    """A table as a file has it: the first value mapped has the sign of what it maps."""
    item = Dataset()
    item[0x00283002] = DataElement(0x00283002, "SS" if signed else "US", [len(entries), first, bits])
    value = entries if data_vr == "US" else np.array(entries, f"{order}u2").tobytes()
    item[0x00283006] = DataElement(0x00283006, data_vr, value)
    return item


def elements_of(case: dict, data_vr: str, order: str) -> dict[str, object]:
    elements: dict[str, object] = {
        "BitsStored": case["bits"],
        "HighBit": case["high"],
        "PixelRepresentation": int(case["signed"]),
    }
    if case["modality_lut"]:
        first, entries = case["modality_lut"]
        item = lut_item(first, entries, 16, case["signed"], data_vr, order)
        item.ModalityLUTType = "US"
        elements["ModalityLUTSequence"] = [item]
    else:
        elements |= {"RescaleSlope": str(case["slope"]), "RescaleIntercept": str(case["intercept"])}
    if case["window"]:
        center, width, function = case["window"]
        elements |= {"WindowCenter": ds(center), "WindowWidth": ds(width), "VOILUTFunction": function}
    if case["voi_lut"]:
        first, entries, bits = case["voi_lut"]
        elements["VOILUTSequence"] = [lut_item(first, entries, bits, first < 0, data_vr, order)]
    if case["padding"]:
        names = "PixelPaddingValue", "PixelPaddingRangeLimit"
        elements |= dict(zip(names, case["padding"], strict=True))
    return elements


def ds(value: float) -> str:
    """A decimal string may have 16 characters."""
    return f"{float(value):.10g}"


@st.composite
def files(draw):
    case = draw(cases())
    if case["window"]:  # what a decimal string can say, which is also what is expected
        center, width, function = case["window"]
        case["window"] = float(ds(center)), float(ds(width)), function
    least = -(2 ** (case["bits"] - 1)) if case["signed"] else 0
    greatest = least + 2 ** case["bits"] - 1
    if case["voi_lut"]:  # where no value can be negative, the first one of the table is read as unsigned
        first, entries, bits = case["voi_lut"]
        ends = [end * case["slope"] + case["intercept"] for end in (least, greatest)]
        negative = not case["modality_lut"] and min(ends) < 0
        case["voi_lut"] = (first if negative else max(first, 0)), entries, bits
    if case["modality_lut"]:
        first, entries = case["modality_lut"]
        case["modality_lut"] = (first if case["signed"] else max(first, 0)), entries
    if case["padding"]:  # padding is a stored value
        low, high = case["padding"]
        case["padding"] = None if low < least or high > greatest or case["high"] != case["bits"] - 1 else (low, high)
    shape = draw(st.sampled_from([None, None, "INVERSE", "IDENTITY"]))
    low_is_white = draw(st.booleans())
    case["inverse"] = low_is_white if shape is None else shape == "INVERSE"
    extra = {"PresentationLUTShape": shape} if shape else {}
    return case, "MONOCHROME1" if low_is_white else "MONOCHROME2", extra


@settings(max_examples=1000, deadline=None)
@given(
    files(),
    st.lists(st.integers(0, 65535), min_size=6, max_size=24),
    st.sampled_from(SYNTAXES),
    st.sampled_from(["US", "OW"]),
)
def test_every_file_shows_the_grey_levels_of_the_standard(file, words, syntax, data_vr):
    case, photometric, extra = file
    expected = reference_display(words, case)
    order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
    elements = elements_of(case, data_vr, order) | extra
    content = dicom(np.array([words], np.uint16), syntax=syntax, photometric=photometric, **elements)
    shown = DicomImage(content, Limits(), Scope()).pixels(0)[0]
    worst = max(abs(float(e) - int(s)) for e, s in zip(expected, shown, strict=True))
    assert worst <= 0.5 + 1e-6  # half a grey level is the rounding to 8 bit, which the standard leaves open


@settings(max_examples=300, deadline=None)
@given(
    st.lists(luts(signed_first=False), min_size=3, max_size=3),
    st.lists(st.integers(0, 65535), min_size=4, max_size=24),
    st.booleans(),
)
def test_every_palette_shows_the_colours_of_the_standard(tables, words, signed):
    """PS3.3 C.7.6.3.1.5 and .6: the first value mapped, the ends, and entries of 8 to 16 bit."""
    elements = {}
    for color, (first, entries, bits) in zip(("Red", "Green", "Blue"), tables, strict=True):
        elements[f"{color}PaletteColorLookupTableDescriptor"] = [len(entries), first, bits]
        elements[f"{color}PaletteColorLookupTableData"] = np.array(entries, "<u2").tobytes()
    content = dicom(
        np.array([words], np.uint16),
        photometric="PALETTE COLOR",
        PixelRepresentation=int(signed),
        **elements,
    )
    shown = DicomImage(content, Limits(), Scope()).pixels(0)[0]
    for word, color in zip(words, shown, strict=True):
        value = reference_stored_value(word, 16, 15, signed)
        assert color.tolist() == [reference_lut(value, first, entries) >> (bits - 8) for first, entries, bits in tables]
