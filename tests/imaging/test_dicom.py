import io
import sys
import warnings
import zlib

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread, uid
from pydicom.dataelem import DataElement
from pydicom.encaps import generate_frames

from fracture_watch import errors
from fracture_watch.imaging.dicom import OWN_MODEL_NAME, DicomImage
from fracture_watch.imaging.limits import Limits, Scope
from fracture_watch.privacy import Privacy
from tests.conftest import SHARED
from tests.dicoms import DX, bare, derived_uid, dicom, written
from tests.imaging import hostile

RAMP_8 = np.arange(0, 256, 2, dtype=np.uint8).reshape(8, 16)
RAMP_12 = np.linspace(0, 4095, 13 * 17).astype(np.uint16).reshape(13, 17)
NOISE_12 = np.random.default_rng(5).integers(0, 4096, (13, 17)).astype(np.uint16)
GREYS_12 = np.floor(NOISE_12 / 4095 * 255 + 0.5).astype(np.uint8)  # NOISE_12 through FULL_12
FULL_12 = {"BitsStored": 12, "HighBit": 11, "WindowCenter": 2048, "WindowWidth": 4096}
COLOR = np.random.default_rng(6).integers(0, 256, (6, 8, 3)).astype(np.uint8)
_ACROSS, _DOWN = np.meshgrid(np.arange(60, 188, 8), np.arange(60, 188, 8))
SMOOTH_COLOR = np.stack([_ACROSS, _DOWN, np.full_like(_DOWN, 90)], -1)

NATIVE = [
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
]
LOSSLESS = [
    uid.RLELossless,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
    uid.HTJ2KLossless,
]
named = pytest.mark.parametrize


def image(content: bytes, limits: Limits | None = None, **scope) -> DicomImage:
    return DicomImage(content, limits or Limits(), Scope(**scope))


def pixels(content: bytes, frame: int = 0) -> np.ndarray:
    return image(content).pixels(frame)


def same(left: np.ndarray, right: np.ndarray) -> bool:
    return left.dtype == np.uint8 and np.array_equal(left, right)


def windowed(values: np.ndarray, **elements) -> bytes:
    return dicom(values, **{"BitsStored": 12, "HighBit": 11} | elements)


# --- Transfer syntaxes


@named("syntax", NATIVE + LOSSLESS, ids=lambda syntax: syntax.keyword)
def test_12_bit_pixels_come_back_exactly(syntax):
    assert same(pixels(dicom(NOISE_12, syntax=syntax, **FULL_12)), GREYS_12)


@named("syntax", NATIVE + LOSSLESS, ids=lambda syntax: syntax.keyword)
def test_8_bit_pixels_come_back_exactly(syntax):
    window = {"WindowCenter": 128, "WindowWidth": 256}
    assert same(pixels(dicom(RAMP_8, syntax=syntax, **window)), RAMP_8)


@named("syntax", [*NATIVE, uid.RLELossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless], ids=lambda syntax: syntax.keyword)
def test_signed_16_bit_pixels_come_back_exactly(syntax):
    values = np.array([[-32768, -1, 0, 32767]], np.int16)
    content = dicom(values, syntax=syntax, WindowCenter=0, WindowWidth=65536)
    assert pixels(content).tolist() == [[0, 127, 128, 255]]


@named("syntax", NATIVE + LOSSLESS, ids=lambda syntax: syntax.keyword)
def test_rgb_comes_back_exactly(syntax):
    assert same(pixels(dicom(COLOR, syntax=syntax, photometric="RGB")), COLOR)


@named("syntax", [*NATIVE, *LOSSLESS], ids=lambda syntax: syntax.keyword)
def test_every_frame_is_the_one_that_was_asked_for(syntax):
    frames = np.stack([RAMP_8, 255 - RAMP_8, RAMP_8 // 2])
    opened = image(dicom(frames, syntax=syntax))
    assert opened.frames == 3
    assert [same(opened.pixels(number), frames[number]) for number in range(3)] == [True] * 3


def test_grey_jpeg_baseline_is_what_its_codec_says():
    content = dicom(RAMP_8, syntax=uid.JPEGBaseline8Bit)
    encoded = next(generate_frames(dcmread(io.BytesIO(content)).PixelData, number_of_frames=1))
    assert same(pixels(content), imagecodecs.jpeg8_decode(encoded))


def test_12_bit_jpeg_extended_is_near_what_was_encoded():
    shown = pixels(dicom(RAMP_12, syntax=uid.JPEGExtended12Bit, **FULL_12))
    assert np.abs(shown.astype(int) - RAMP_12 / 4095 * 255).max() < 3


@named("photometric", ["RGB", "YBR_FULL", "YBR_FULL_422"])
def test_colour_jpeg_baseline_is_near_what_was_encoded(photometric):
    shown = pixels(dicom(SMOOTH_COLOR.astype(np.uint8), syntax=uid.JPEGBaseline8Bit, photometric=photometric))
    assert np.abs(shown.astype(int) - SMOOTH_COLOR).max() < 9


@named("syntax", [uid.JPEG2000Lossless, uid.HTJ2KLossless], ids=lambda syntax: syntax.keyword)
def test_a_colour_transform_of_the_codec_is_undone_once(syntax):
    encode = imagecodecs.jpeg2k_encode if syntax == uid.JPEG2000Lossless else imagecodecs.htj2k_encode
    options = {"codecformat": "J2K"} if syntax == uid.JPEG2000Lossless else {}
    content = dicom(COLOR, syntax=syntax, photometric="YBR_RCT", encoded=[encode(COLOR, reversible=True, **options)])
    assert same(pixels(content), COLOR)


@named(
    "syntax",
    [uid.ExplicitVRLittleEndian, uid.RLELossless, uid.JPEGLossless, uid.JPEGLosslessSV1],
    ids=lambda syntax: syntax.keyword,
)
def test_ybr_full_becomes_rgb(syntax):
    ybr = np.array([[[76, 85, 255], [150, 44, 21], [29, 255, 107], [128, 128, 128]]], np.uint8)
    expected = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [128, 128, 128]]])
    shown = pixels(dicom(ybr, syntax=syntax, photometric="YBR_FULL"))
    assert np.abs(shown.astype(int) - expected).max() <= 1


@named("syntax", NATIVE, ids=lambda syntax: syntax.keyword)
def test_rgb_stored_plane_by_plane_comes_back_exactly(syntax):
    assert same(pixels(dicom(COLOR, syntax=syntax, photometric="RGB", PlanarConfiguration=1)), COLOR)


def test_16_bit_rgb_keeps_its_upper_bits():
    content = dicom(COLOR.astype(np.uint16) * 16 + 15, photometric="RGB", BitsStored=12, HighBit=11)
    assert same(pixels(content), COLOR)


@named("syntax", [uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian], ids=lambda syntax: syntax.keyword)
@named("bits", [8, 16])
def test_palette_colours_are_looked_up(syntax, bits):
    order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
    palette = {}
    for color, table in (("Red", [10, 0, 250]), ("Green", [20, 0, 251]), ("Blue", [30, 0, 252])):
        entries = np.array(table, np.uint16) * 256 + 7 if bits == 16 else np.array(table)
        palette[f"{color}PaletteColorLookupTableDescriptor"] = [3, 0, bits]
        palette[f"{color}PaletteColorLookupTableData"] = entries.astype(f"{order}u2").tobytes()
    indices = np.array([[0, 1, 2, 9]], np.uint8)
    shown = pixels(dicom(indices, syntax=syntax, photometric="PALETTE COLOR", **palette))
    assert shown.tolist() == [[[10, 20, 30], [0, 0, 0], [250, 251, 252], [250, 251, 252]]]


def test_a_palette_of_bytes_is_looked_up():
    palette = {}
    for color, table in (("Red", [10, 0, 250]), ("Green", [20, 0, 251]), ("Blue", [30, 0, 252])):
        palette[f"{color}PaletteColorLookupTableDescriptor"] = [3, 5, 8]
        palette[f"{color}PaletteColorLookupTableData"] = bytes([*table, 0])
    shown = pixels(dicom(np.array([[4, 5, 6, 7, 8]], np.uint8), photometric="PALETTE COLOR", **palette))
    assert shown.tolist() == [[[10, 20, 30], [10, 20, 30], [0, 0, 0], [250, 251, 252], [250, 251, 252]]]


def test_bytes_in_big_endian_words_are_put_in_order():
    content = dcmread(io.BytesIO(dicom(RAMP_8, syntax=uid.ExplicitVRBigEndian)))
    content["PixelData"].VR = "OW"
    content.PixelData = np.frombuffer(content.PixelData, "<u2").byteswap().tobytes()
    assert same(pixels(written(content, uid.ExplicitVRBigEndian)), RAMP_8)


@named("implicit", [True, False])
def test_a_data_set_without_preamble_is_read(implicit):
    assert same(pixels(bare(dicom(NOISE_12, **FULL_12), implicit=implicit)), GREYS_12)


def test_one_bit_pixels_are_black_and_white():
    content = dicom(
        np.zeros((1, 2), np.uint8),
        BitsAllocated=1,
        BitsStored=1,
        HighBit=0,
        Rows=2,
        Columns=8,
        PixelData=bytes([0b00000101, 0b11110000]),
    )
    assert (pixels(content) // 255).tolist() == [[1, 0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1]]


def test_float_pixels_are_shown_from_least_to_greatest():
    values = np.array([[-1.5, 0.0, 1.5]], "<f4")
    content = dicom(
        np.zeros((1, 3), np.uint16),
        PixelData=None,
        FloatPixelData=values.tobytes(),
        BitsAllocated=32,
        BitsStored=None,
        HighBit=None,
        PixelRepresentation=None,
    )
    assert pixels(content).tolist() == [[0, 128, 255]]


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the shared sample files are not there: {SHARED}")
@named("family", [("RG3_JPLL", "RG3_JLSL", "RG3_J2KR", "RG3_JPLY"), ("RG2_RLE", "RG2_JLSN")], ids=lambda f: f[0])
def test_the_same_exposure_looks_the_same_in_every_encoding(family):
    first, *others = [pixels((SHARED / "dicom" / f"{name}.dcm").read_bytes()).astype(int) for name in family]
    assert [bool(np.abs(other - first).mean() < 1.5) for other in others] == [True] * len(others)


# --- Headers


def test_monochrome1_is_shown_inverted():
    assert same(pixels(dicom(RAMP_8, photometric="MONOCHROME1")), 255 - RAMP_8)


def test_presentation_lut_shape_inverse_is_shown_inverted():
    assert same(pixels(dicom(RAMP_8, PresentationLUTShape="INVERSE")), 255 - RAMP_8)


def test_monochrome1_that_also_says_inverse_is_inverted_once():
    content = dicom(RAMP_8, photometric="MONOCHROME1", PresentationLUTShape="INVERSE")
    assert same(pixels(content), 255 - RAMP_8)


def test_the_shape_decides_where_it_contradicts_monochrome1():
    opened = image(dicom(RAMP_8, photometric="MONOCHROME1", PresentationLUTShape="IDENTITY"))
    assert same(opened.pixels(0), RAMP_8)
    assert "PresentationLUTShape IDENTITY of a MONOCHROME1 image: not inverted" in opened.notes


def test_rescale_comes_before_the_window():
    values = np.array([[0, 100, 355]], np.uint16)
    content = windowed(values, RescaleSlope=2, RescaleIntercept=-200, WindowCenter=255.5, WindowWidth=511)
    assert pixels(content).tolist() == [[0, 0, 255]]


def test_a_modality_lut_replaces_rescale():
    item = Dataset()
    item.LUTDescriptor, item.ModalityLUTType, item.LUTData = [3, 0, 16], "US", np.array([9, 7, 5], "<u2").tobytes()
    content = windowed(np.array([[0, 1, 2]], np.uint16), ModalityLUTSequence=[item], WindowCenter=7.5, WindowWidth=5)
    assert pixels(content).tolist() == [[255, 128, 0]]


def test_8_bit_data_without_a_window_span_all_that_a_modality_lut_makes_of_them():
    item, table = Dataset(), np.minimum(np.arange(256), 255 - np.arange(256)).astype("<u2")  # up to 127 and back
    item.LUTDescriptor, item.ModalityLUTType, item.LUTData = [256, 0, 8], "US", table.tobytes()
    shown = pixels(dicom(RAMP_8, ModalityLUTSequence=[item]))
    assert same(shown, np.floor(table[RAMP_8] / 127 * 255 + 0.5).astype(np.uint8))


@named("intercept", ["-1024,0", "abc", "1e9999"])
def test_a_rescale_that_is_no_number_is_noted(intercept):
    plain = dicom(NOISE_12, **FULL_12, RescaleSlope=1, RescaleIntercept="123456")
    start = plain.index(b"\x28\x00\x52\x10DS")
    value = intercept.encode().ljust(8)
    content = plain[:start] + b"\x28\x00\x52\x10DS\x08\x00" + value + plain[start + 14 :]
    opened = image(content)
    assert same(opened.pixels(0), GREYS_12)
    assert opened.notes == ("invalid RescaleIntercept ignored",)
    assert Privacy("drop").notes(opened.notes) == opened.notes


def test_an_empty_rescale_is_an_absent_one():
    opened = image(dicom(NOISE_12, **FULL_12, RescaleSlope="", RescaleIntercept=""))
    assert same(opened.pixels(0), GREYS_12)
    assert opened.notes == ()


@named("relationship", ["LOG", "DISP", "LIN", None])
@named("sop_class", [uid.XRayAngiographicImageStorage, uid.XRayRadiofluoroscopicImageStorage, DX])
def test_a_modality_lut_that_leads_back_to_the_x_rays_is_not_applied(sop_class, relationship):
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType, table.LUTData = [3, 0, 16], "US", np.array([9, 7, 5], "<u2").tobytes()
    values, note = np.array([[0, 1, 2]], np.uint16), "Modality LUT of a LOG or DISP image not applied"
    skipped = relationship in ("LOG", "DISP") and sop_class != DX
    given = {"SOPClassUID": sop_class, "PixelIntensityRelationship": relationship}
    for elements, applied in (
        ({"ModalityLUTSequence": [table], "WindowCenter": 7.5, "WindowWidth": 5}, [[255, 128, 0]]),
        ({"RescaleSlope": -1, "RescaleIntercept": 9, "WindowCenter": 8.5, "WindowWidth": 3}, [[255, 128, 0]]),
    ):
        opened = image(windowed(values, **given, **elements))
        assert (opened.pixels(0).tolist() == applied, note in opened.notes) == (not skipped, skipped)
    opened = image(windowed(values, **given, RescaleSlope=1, RescaleIntercept=0, WindowCenter=1.5, WindowWidth=3))
    assert (opened.pixels(0).tolist(), opened.notes) == ([[0, 128, 255]], ())


def voi_lut(first: int, entries: list[int], bits: int = 8) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item[0x00283006] = DataElement(0x00283006, "US", entries)
    return item


def test_a_voi_lut_comes_before_a_window():
    values = np.array([[0, 5, 6, 7, 99]], np.uint16)
    opened = image(windowed(values, VOILUTSequence=[voi_lut(5, [10, 20, 30])], WindowCenter=50, WindowWidth=100))
    assert opened.pixels(0).tolist() == [[10, 10, 20, 30, 30]]
    assert opened.notes == ("first VOI LUT of 2 VOI transformations",)


def test_a_voi_lut_may_begin_below_zero_after_rescale():
    values = np.array([[0, 1, 2]], np.uint16)
    content = windowed(values, RescaleIntercept=-1, RescaleSlope=1, VOILUTSequence=[voi_lut(65535, [10, 20, 30])])
    assert pixels(content).tolist() == [[10, 20, 30]]


def test_a_voi_lut_may_begin_in_the_upper_half_of_16_bits():
    values = np.array([[39999, 40000, 40001, 40002]], np.uint16)
    content = dicom(values, VOILUTSequence=[voi_lut(40000, [10, 20, 30])])
    assert pixels(content).tolist() == [[10, 10, 20, 30]]


@named("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian], ids=lambda syntax: syntax.keyword)
def test_a_voi_lut_of_signed_pixels_may_begin_in_the_upper_half_where_rescale_leaves_none_below_zero(syntax):
    values = np.array([[39999, 40000, 40001, 40002]]) - 32768
    table = {"RescaleIntercept": 32768, "RescaleSlope": 1, "VOILUTSequence": [voi_lut(40000 - 65536, [10, 20, 30])]}
    assert pixels(dicom(values.astype(np.int16), syntax=syntax, **table)).tolist() == [[10, 10, 20, 30]]


def test_a_voi_lut_that_begins_below_zero_and_reaches_over_it_does_so():
    table = voi_lut(0, [10, 20, 30])
    table[0x00283002] = DataElement(0x00283002, "SS", [3, -1, 8])
    content = windowed(np.array([[0, 1, 2]], np.uint16), VOILUTSequence=[table])
    assert pixels(content).tolist() == [[20, 30, 30]]


def test_the_first_of_several_windows_is_taken_and_noted():
    opened = image(windowed(NOISE_12, WindowCenter=[2048, 300], WindowWidth=[4096, 100]))
    assert same(opened.pixels(0), GREYS_12)
    assert opened.notes == ("first window of 2 VOI transformations",)


def test_an_invalid_window_is_passed_over_and_noted():
    opened = image(windowed(NOISE_12, WindowCenter=[10, 2048], WindowWidth=[0, 4096]))
    assert same(opened.pixels(0), GREYS_12)
    assert opened.notes == ("1 invalid window or VOI LUT ignored",)


def test_a_missing_window_is_noted_and_the_padding_does_not_count():
    values = np.array([[0, 100, 151, 355]], np.uint16)
    opened = image(windowed(values, PixelPaddingValue=0))
    assert opened.pixels(0).tolist() == [[0, 0, 51, 255]]
    assert opened.notes == ("no window: shown from least to greatest value",)


@named("ends", [(3, 9), (9, 3)], ids=["rising", "falling"])
def test_a_padding_range_counts_from_either_end(ends):
    values = np.array([[3, 6, 9, 100, 151, 355]], np.uint16)
    content = windowed(values, PixelPaddingValue=ends[0], PixelPaddingRangeLimit=ends[1])
    assert pixels(content).tolist() == [[0, 0, 0, 0, 51, 255]]


@named("syntax", [uid.ExplicitVRLittleEndian, uid.RLELossless], ids=lambda syntax: syntax.keyword)
def test_high_bit_above_bits_stored_is_heeded(syntax):
    assert same(pixels(dicom(NOISE_12 << 4, syntax=syntax, **FULL_12 | {"HighBit": 15})), GREYS_12)


@named("syntax", [uid.ExplicitVRLittleEndian, uid.RLELossless], ids=lambda syntax: syntax.keyword)
def test_overlays_in_unused_bits_are_masked(syntax):
    overlay = (np.indices(NOISE_12.shape).sum(0) % 2 * 0xF000).astype(np.uint16)
    assert same(pixels(dicom(NOISE_12 | overlay, syntax=syntax, **FULL_12)), GREYS_12)


@named("syntax", [uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless], ids=lambda syntax: syntax.keyword)
def test_overshoot_of_a_codec_is_clipped(syntax):
    values = np.array([[0, 512, 1023, 1024, 1030, 1150]], np.uint16)
    content = dicom(values, syntax=syntax, BitsStored=12, HighBit=11)
    header = dcmread(io.BytesIO(content))
    header.BitsStored, header.HighBit = 10, 9
    assert pixels(written(header, syntax)).tolist() == [[0, 128, 255, 255, 255, 255]]


@named(("values", "greys"), [((-2050, -2047, -1, 0, 2050), (0, 0, 127, 128, 255)), ((0, 2047, 2050), (128, 255, 255))])
def test_overshoot_of_signed_values_is_clipped(values, greys):
    """Of a codestream with more bits than BitsStored, as lossy codecs are given words with their sign extended."""
    values = np.array([values], np.int16)
    content = dicom(values, syntax=uid.JPEGLSLossless, BitsStored=16, HighBit=15)
    header = dcmread(io.BytesIO(content))
    header.BitsStored, header.HighBit, header.WindowCenter, header.WindowWidth = 12, 11, 0, 4096
    assert pixels(written(header, uid.JPEGLSLossless)).tolist() == [list(greys)]


def test_a_picture_that_its_decoder_gives_up_is_corrupt():
    """OpenJPH says so where imagecodecs cannot raise, and the rest of the picture would be black."""
    noise = np.random.default_rng(4).integers(0, 4096, (256, 256), dtype=np.uint16)
    content = bytearray(dicom(noise, syntax=uid.HTJ2KLossless, BitsStored=12, HighBit=11))
    refused = 0
    for start in range(2000, len(content) - 2000, len(content) // 12):
        damaged = content[:start] + bytes(300) + content[start + 300 :]
        met: list[object] = []
        before, sys.unraisablehook = sys.unraisablehook, met.append
        try:
            pixels(bytes(damaged))
        except errors.Corrupt:
            refused += 1
        finally:
            sys.unraisablehook = before
        assert met == []
    assert refused


def test_missing_modality_and_body_part_are_noted():
    opened = image(dicom(RAMP_8, Modality=None, BodyPartExamined=None, WindowCenter=128, WindowWidth=256))
    assert opened.notes == ("Modality missing", "BodyPartExamined missing")


def test_facts_are_known_before_any_pixel():
    assert image(dicom(RAMP_8, seed=7)).facts.sop_instance_uid == derived_uid("instance", 7)


# --- Refusals


def refusal(content: bytes, limits: Limits | None = None, **scope) -> errors.FractureWatchError:
    with pytest.raises(errors.FractureWatchError) as caught:
        image(content, limits, **scope).pixels(0)
    return caught.value


def said(error: errors.FractureWatchError) -> tuple[type, str]:
    return type(error), error.detail


def test_own_output_is_rejected():
    assert said(refusal(dicom(RAMP_8, ManufacturerModelName=OWN_MODEL_NAME))) == (
        errors.OwnOutput,
        "this object was written by fracture_watch; it is not classified again",
    )


def test_a_report_has_no_pixel_data():
    report = dicom(None, SOPClassUID=uid.BasicTextSRStorage, Modality="SR")
    assert said(refusal(report)) == (errors.NoPixelData, "the object is not an image (Basic Text SR Storage)")


def test_an_object_of_a_private_class_has_no_pixel_data():
    assert said(refusal(dicom(None, SOPClassUID="1.2.826.0.1.1"))) == (
        errors.NoPixelData,
        "the object has no image (SOP class 1.2.826.0.1.1)",
    )


def test_a_file_without_sop_class_and_image_is_corrupt():
    anything = Dataset()
    anything.PatientID = "P1"
    assert said(refusal(bare(written(anything)))) == (
        errors.Corrupt,
        "the file begins as DICOM does, but it has neither a SOP class nor an image",
    )


def test_an_image_header_without_pixels_is_truncated():
    error = refusal(dicom(RAMP_8, PixelData=None))
    assert said(error) == (
        errors.Truncated,
        "the file ends before its pixel data; send it again",
    )


def test_compressed_pixel_data_that_are_cut_off_are_truncated_and_keep_their_facts():
    whole = dicom(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64), syntax=uid.JPEGLSLossless, PatientID="P9")
    error = refusal(whole[:-100])
    assert said(error) == (errors.Truncated, "the file ends before its pixel data; send it again")
    assert error.facts.patient_id == "P9"


def test_an_image_that_is_cut_off_before_its_size_is_truncated():
    whole = dicom(RAMP_8)
    assert said(refusal(whole[: whole.index(b"\x28\x00\x02\x00")]))[0] is errors.Truncated


def test_too_little_native_pixel_data_is_truncated():
    assert said(refusal(dicom(RAMP_8, PixelData=bytes(100)))) == (
        errors.Truncated,
        "the pixel data are 100 bytes, but the header declares 128; send the file again",
    )


def test_raw_detector_data_are_rejected():
    assert said(refusal(dicom(RAMP_8, PresentationIntentType="FOR PROCESSING"))) == (
        errors.NotForPresentation,
        "PresentationIntentType is FOR PROCESSING: raw detector data; send the FOR PRESENTATION image",
    )


def test_raw_detector_data_are_known_by_their_sop_class():
    raw = dicom(RAMP_8, SOPClassUID=uid.DigitalXRayImageStorageForProcessing, PresentationIntentType=None)
    assert said(refusal(raw)) == (
        errors.NotForPresentation,
        "the SOP class is Digital X-Ray Image Storage - For Processing: raw detector data; send the FOR PRESENTATION "
        "image",
    )


def twice(content: bytes, element: bytes) -> bytes:
    """The same file with one more element, as it stands in it, behind the one of that tag."""
    start = content.index(element[:6])
    return content[:start] + element + content[start:]


def test_an_element_that_stands_twice_and_decides_nothing_is_passed_over():
    modality = b"\x08\x00\x60\x00CS\x02\x00DX"
    assert same(pixels(twice(dicom(RAMP_8, WindowCenter=128, WindowWidth=256), modality)), RAMP_8)


def test_an_element_of_the_picture_that_stands_twice_is_corrupt():
    window = b"\x28\x00\x50\x10DS\x04\x00300 "
    pixel_data = b"\xe0\x7f\x10\x00OB\x00\x00\x80\x00\x00\x00" + bytes(128)
    content = dicom(RAMP_8, WindowCenter=128, WindowWidth=256)
    for element, name in ((window, "(0028,1050)"), (pixel_data, "(7FE0,0010)")):
        assert said(refusal(twice(content, element))) == (
            errors.Corrupt,
            f"the element {name} stands twice in the data set; send the file again from its source",
        )
    assert type(refusal(content + pixel_data)) is errors.Corrupt


@named("implicit", [True, False])
def test_what_follows_the_pixel_data_stands_for_itself(implicit):
    content = bare(dicom(RAMP_8, WindowCenter=128, WindowWidth=256), implicit=implicit)
    assert same(pixels(content + bytes(100)), RAMP_8)
    trailing = b"\xfc\xff\xfc\xff" + bytes(4) if implicit else b"\xfc\xff\xfc\xffOB" + bytes(6)
    assert same(pixels(content + trailing * 2), RAMP_8)


def test_a_modality_out_of_scope_is_rejected():
    assert said(refusal(dicom(RAMP_8, Modality="CT"), modalities=frozenset({"DX", "CR"}))) == (
        errors.OutOfScope,
        "Modality is 'CT', which is not among the accepted ones (CR, DX); see scope in config.yaml",
    )


def test_a_body_part_out_of_scope_is_rejected():
    assert said(refusal(dicom(RAMP_8, BodyPartExamined="CHEST"), body_parts=frozenset({"HAND"}))) == (
        errors.OutOfScope,
        "BodyPartExamined is 'CHEST', which is not among the accepted ones (HAND); see scope in config.yaml",
    )


def test_out_of_scope_can_be_flagged_instead():
    opened = image(dicom(RAMP_8, Modality="CT"), modalities=frozenset({"DX"}), on_mismatch="flag")
    assert opened.notes == ("Modality is 'CT', which is not among the accepted ones (DX)",)


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")  # what is written here is against the standard
def test_scope_does_not_mind_case():
    assert image(dicom(RAMP_8, BodyPartExamined="Hand"), body_parts=frozenset({"HAND"})).notes == ()


def test_an_undefined_photometric_interpretation_is_corrupt():
    assert said(refusal(dicom(RAMP_8, PhotometricInterpretation="MONOCHROME3"))) == (
        errors.Corrupt,
        "PhotometricInterpretation is MONOCHROME3, not one of MONOCHROME1, MONOCHROME2, RGB, YBR_FULL, YBR_FULL_422, "
        "YBR_RCT, YBR_ICT, PALETTE COLOR",
    )


def test_an_image_without_rows_is_corrupt():
    assert said(refusal(dicom(RAMP_8, Rows=0))) == (errors.Corrupt, "the image is 0 rows x 16 columns")


@named(("stored", "high"), [(17, 16), (12, 10), (12, 16)])
def test_contradictory_bits_are_corrupt(stored, high):
    assert said(refusal(dicom(NOISE_12, BitsStored=stored, HighBit=high))) == (
        errors.Corrupt,
        f"BitsAllocated 16, BitsStored {stored} and HighBit {high} contradict each other",
    )


def test_a_grey_image_with_three_samples_a_pixel_is_corrupt():
    content = dicom(COLOR, photometric="RGB", PhotometricInterpretation="MONOCHROME2")
    assert said(refusal(content)) == (
        errors.Corrupt,
        "PhotometricInterpretation MONOCHROME2 and SamplesPerPixel 3 contradict each other",
    )


def test_too_many_pixels_are_refused_by_their_declaration():
    assert said(refusal(dicom(RAMP_8, Rows=50_000, Columns=50_000))) == (
        errors.TooLarge,
        "50000 x 50000 pixels are more than imaging.max_pixels (100,000,000); raise it if such images are expected",
    )


def test_a_transfer_syntax_without_decoder_is_named():
    error = refusal(dicom(RAMP_8, syntax=uid.MPEG2MPML, encoded=[bytes(8)]))
    assert said(error) == (
        errors.UnsupportedTransferSyntax,
        "the transfer syntax MPEG2 Main Profile / Main Level (1.2.840.10008.1.2.4.100) has no decoder here; convert "
        "the file, for example with dcmdjpeg or gdcmconv --raw",
    )


def test_a_refusal_carries_the_facts():
    assert refusal(dicom(RAMP_8, seed=9, Rows=0)).facts.patient_id == "P9"


def test_an_undecodable_frame_is_corrupt_and_names_the_syntax():
    whole = imagecodecs.jpeg8_encode(RAMP_8)
    error = refusal(dicom(RAMP_8, syntax=uid.JPEGBaseline8Bit, encoded=[whole.replace(b"\xff\xda", b"\xff\xfe")]))
    assert type(error) is errors.Corrupt
    assert error.detail.startswith("the pixel data cannot be decoded (JPEG Baseline (Process 1)): ")


def test_a_frame_of_another_size_than_the_header_says_is_corrupt():
    error = refusal(dicom(RAMP_8, syntax=uid.JPEGLSLossless, Rows=7))
    assert type(error) is errors.Corrupt
    assert error.detail == (
        "the compressed picture has 8 rows x 16 columns at 8 bit, but the header says 7 rows x 16 columns at 8 bit"
    )


# --- Deflated


def deflated(header_bytes: bytes) -> bytes:
    """Another data set behind the File Meta of a deflated file."""
    whole = dicom(RAMP_8, syntax=uid.DeflatedExplicitVRLittleEndian)
    start = 144 + int.from_bytes(whole[140:144], "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return whole[:start] + packer.compress(header_bytes) + packer.flush()


def test_what_is_still_to_come_when_all_input_is_taken_in_belongs_to_it():
    for more in range(1, 259, 8):  # bytes of the last match that are behind a whole number of steps
        assert pixels(hostile.deflated_to((1 << 20) + more)).shape == hostile.PIXELS.shape


BOMB_LIMITS = Limits(max_bytes=4 * 1024 * 1024)


def test_a_deflate_bomb_is_refused_before_it_goes_off():
    error = refusal(deflated(bytes(64 * 1024 * 1024)), BOMB_LIMITS)
    assert type(error) is errors.TooLarge
    assert error.detail.endswith(
        "bytes are more than inbox.max_file_mb allows (4,194,304 bytes); raise it if such files are expected"
    )


def test_a_deflate_bomb_with_a_wrong_group_length_is_refused_as_well():
    bomb = bytearray(deflated(bytes(64 * 1024 * 1024)))
    harmless = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bait = harmless.compress(b"") + harmless.flush()
    bomb += bait
    bomb[140:144] = (len(bomb) - len(bait) - 144).to_bytes(4, "little")
    assert type(refusal(bytes(bomb), BOMB_LIMITS)) is errors.TooLarge


def test_a_deflate_bomb_without_preamble_is_refused_as_well():
    assert type(refusal(deflated(bytes(64 * 1024 * 1024))[132:], BOMB_LIMITS)) is errors.TooLarge


def test_a_deflate_bomb_behind_a_command_set_is_refused_as_well():
    bomb = deflated(bytes(64 * 1024 * 1024))
    start = 144 + int.from_bytes(bomb[140:144], "little")
    command = b"\x00\x00\x00\x09\x02\x00\x00\x00\x01\x00"
    assert type(refusal(bomb[:start] + command + bomb[start:], BOMB_LIMITS)) is errors.Corrupt


def test_a_deflated_file_with_a_wrong_group_length_is_read():
    content = bytearray(dicom(RAMP_8, syntax=uid.DeflatedExplicitVRLittleEndian))
    content[140:144] = bytes(4)
    assert same(pixels(bytes(content)), RAMP_8)


def test_a_deflated_file_that_is_cut_off_is_truncated():
    content = dicom(NOISE_12, syntax=uid.DeflatedExplicitVRLittleEndian)
    assert said(refusal(content[:-20])) == (
        errors.Truncated,
        "the deflated data set ends too early; send the file again",
    )


# --- Broken files


@named("syntax", [*NATIVE, uid.RLELossless, uid.JPEGLosslessSV1, uid.JPEG2000Lossless], ids=lambda s: s.keyword)
def test_a_file_that_is_cut_off_anywhere_never_shows_another_picture(syntax):
    frames = np.stack([RAMP_8, 255 - RAMP_8])
    content = dicom(frames, syntax=syntax)
    for end in range(140, len(content) - 1):
        try:
            shown = image(content[:end]).pixels(1)
        except errors.FractureWatchError:
            continue
        assert same(shown, frames[1]), end


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.RLELossless, uid.JPEGLSLossless]),
    st.lists(st.tuples(st.integers(132, 1200), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_whatever_bytes_are_damaged_the_answer_is_a_picture_or_a_reason(syntax, damages):
    content = bytearray(dicom(RAMP_8, syntax=syntax, WindowCenter=[1, 2], WindowWidth=[3, 4], PixelSpacing=[1, 1]))
    for place, value in damages:
        content[min(place, len(content) - 1)] = value
    try:
        with warnings.catch_warnings(action="error"):
            shown = image(bytes(content), Limits(max_pixels=1_000_000)).pixels(0)
    except errors.FractureWatchError as error:
        assert error.detail
    else:
        assert shown.dtype == np.uint8
