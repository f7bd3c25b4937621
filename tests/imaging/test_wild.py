"""What the wild holds: objects that are no radiographs, rare encodings, and the sample files that pydicom brings."""

import io
from pathlib import Path

import numpy as np
import pydicom.data
import pytest
from pydicom import Dataset, dcmread, uid
from pydicom.dataelem import DataElement

from fracture_watch import errors
from fracture_watch.config import ScopeSettings
from fracture_watch.imaging import read
from fracture_watch.imaging.dicom import DicomImage
from fracture_watch.imaging.limits import Limits, Scope
from tests.dicoms import bare, dicom, written

SAMPLES = Path(pydicom.data.__file__).parent / "test_files"
RAMP_8 = np.arange(0, 256, 2, dtype=np.uint8).reshape(8, 16)
RAMP_12 = np.linspace(0, 4095, 13 * 17).astype(np.uint16).reshape(13, 17)
DEFAULT_SCOPE = Scope(frozenset(ScopeSettings().modalities), frozenset(ScopeSettings().body_parts))


def image(content: bytes, scope: Scope = Scope()) -> DicomImage:  # noqa: B008  frozen
    return DicomImage(content, Limits(), scope)


def refusal(content: bytes, scope: Scope = Scope()) -> errors.FractureWatchError:  # noqa: B008
    with pytest.raises(errors.FractureWatchError) as caught:
        image(content, scope).pixels(0)
    return caught.value


def item(**elements) -> Dataset:
    made = Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


# --- Not for us


@pytest.mark.parametrize(
    "sop_class",
    [
        uid.BasicTextSRStorage,
        uid.EncapsulatedPDFStorage,
        uid.RTStructureSetStorage,
        uid.GrayscaleSoftcopyPresentationStateStorage,
        uid.TwelveLeadECGWaveformStorage,
        uid.MediaStorageDirectoryStorage,
    ],
    ids=lambda sop_class: sop_class.keyword,
)
def test_what_is_not_an_image_is_named(sop_class):
    error = refusal(dicom(None, SOPClassUID=sop_class))
    assert (error.code, error.detail) == ("no_pixel_data", f"the object is not an image ({sop_class.name})")


@pytest.mark.parametrize("sop_class", [uid.SegmentationStorage, uid.RTDoseStorage, uid.ParametricMapStorage])
def test_pixel_data_that_are_no_picture_are_named(sop_class):
    assert refusal(dicom(RAMP_8, SOPClassUID=sop_class)).code == "no_pixel_data"


@pytest.mark.parametrize("modality", ["CT", "MR", "US", "MG", "NM", "PT", "ES", "SEG"])
def test_other_modalities_are_out_of_scope_by_default(modality):
    error = refusal(dicom(RAMP_8, Modality=modality), DEFAULT_SCOPE)
    assert error.code == "out_of_scope"
    assert error.detail.startswith(f"Modality is '{modality}', which is not among the accepted ones (CR, DX")


@pytest.mark.parametrize("body_part", ["CHEST", "THORAX", "SKULL", "CSPINE", "LSPINE", "ABDOMEN", "BREAST", "Head"])
def test_other_body_parts_are_out_of_scope_by_default(body_part):
    error = refusal(dicom(RAMP_8, BodyPartExamined=body_part), DEFAULT_SCOPE)
    assert error.code == "out_of_scope"
    assert error.detail.startswith(f"BodyPartExamined is '{body_part}', which is not among the accepted ones")


@pytest.mark.parametrize(
    "body_part",
    [
        "HAND",
        "LEFT HAND",
        "Hand_PA",
        "TIB-FIB",
        "LOWER LEG",
        "LOW_EXM",
        "UP_EXM",
        "EXTREMITY",
        "HIP",
        "Shoulder",
        "FOOT",
    ],
)
def test_limbs_hip_and_shoulder_are_in_scope_by_default_however_they_are_written(body_part):
    assert image(dicom(RAMP_8, BodyPartExamined=body_part), DEFAULT_SCOPE).facts.body_part == body_part


def test_the_anatomic_region_decides_where_the_body_part_is_absent():
    content = dicom(RAMP_8, BodyPartExamined=None, AnatomicRegionSequence=[item(CodeMeaning="Chest")])
    assert refusal(content, DEFAULT_SCOPE).code == "out_of_scope"


# --- Pixel values


@pytest.mark.parametrize("dtype", [np.uint32, np.int32])
@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.RLELossless], ids=lambda syntax: syntax.keyword)
def test_32_bit_values_are_shown_through_the_window(dtype, syntax):
    low = -100_000 if dtype == np.int32 else 0
    values = np.array([[low, low + 51_000, low + 255_000]], dtype)
    content = dicom(
        values, syntax=syntax, WindowCenter=low + 127_500, WindowWidth=255_000, VOILUTFunction="LINEAR_EXACT"
    )
    assert image(content).pixels(0).tolist() == [[0, 51, 255]]


def test_unused_bits_of_32_are_masked():
    values = np.array([[0, 51, 255]], np.uint32) | 0xFFF00000
    content = dicom(values, BitsStored=20, HighBit=19, WindowCenter=128, WindowWidth=256)
    assert image(content).pixels(0).tolist() == [[0, 51, 255]]


def floats(values, dtype, **elements) -> bytes:
    keyword = "FloatPixelData" if dtype == "<f4" else "DoubleFloatPixelData"
    array = np.array([values], dtype)
    return dicom(
        np.zeros(array.shape, np.uint16),
        PixelData=None,
        BitsAllocated=array.itemsize * 8,
        BitsStored=None,
        HighBit=None,
        PixelRepresentation=None,
        **{keyword: array.tobytes()} | elements,
    )


@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
def test_floats_with_nothing_and_infinity_in_them_are_shown(dtype):
    content = floats([np.nan, -np.inf, 0, 51, 255, np.inf], dtype)
    assert image(content).pixels(0).tolist() == [[0, 0, 0, 51, 255, 255]]


@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
def test_infinity_is_white_in_a_window_too(dtype):
    content = floats([-np.inf, 51, np.inf], dtype, WindowCenter=128, WindowWidth=256)
    assert image(content).pixels(0).tolist() == [[0, 51, 255]]


def test_float_padding_does_not_widen_the_span():
    content = floats([-9999, 0, 51, 255], "<f4", FloatPixelPaddingValue=-9999.0)
    assert image(content).pixels(0).tolist() == [[0, 0, 51, 255]]


def test_a_picture_without_any_number_is_black():
    assert image(floats([np.nan, np.nan], "<f8")).pixels(0).tolist() == [[0, 0]]


def test_one_bit_frames_that_end_inside_a_byte_are_read():
    content = dicom(
        np.zeros((1, 2), np.uint8),
        BitsAllocated=1,
        BitsStored=1,
        HighBit=0,
        NumberOfFrames=2,
        Rows=1,
        Columns=3,
        PixelData=bytes([0b00110101, 0]),
    )
    assert [(image(content).pixels(n) // 255).tolist() for n in (0, 1)] == [[[1, 0, 1]], [[0, 1, 1]]]


@pytest.mark.parametrize("bits", [2, 4, 12, 24, 64])
def test_other_sizes_of_pixels_are_corrupt(bits):
    assert refusal(dicom(RAMP_8, BitsAllocated=bits)).code == "corrupt"


@pytest.mark.parametrize(("vr", "value"), [("US", 63536), ("SS", -2000)])
def test_padding_is_read_with_the_sign_of_the_pixels(vr, value):
    values = np.array([[-2000, 0, 51, 255]], np.int16)
    header = dcmread(io.BytesIO(dicom(values)))
    header[0x00280120] = DataElement(0x00280120, vr, value)
    assert image(written(header)).pixels(0).tolist() == [[0, 0, 51, 255]]


@pytest.mark.parametrize("width", ["0", "-5", "wide", "", "nan"])
def test_an_invalid_width_leads_to_the_next_window(width):
    header = dcmread(io.BytesIO(dicom(RAMP_12, BitsStored=12, HighBit=11)))
    values = ["40", "2048"], [width, "4096"]
    for tag, texts in zip((0x00281050, 0x00281051), values, strict=True):
        header[tag] = DataElement(tag, "LO", texts)
    opened = image(written(header).replace(b"P\x10LO", b"P\x10DS").replace(b"Q\x10LO", b"Q\x10DS"))
    assert np.array_equal(opened.pixels(0), np.floor(RAMP_12 / 4095 * 255 + 0.5))
    assert opened.notes == ("1 invalid window or VOI LUT ignored",)


def test_a_slope_of_zero_is_ignored_and_noted():
    opened = image(dicom(RAMP_8, RescaleSlope=0, RescaleIntercept=0, WindowCenter=128, WindowWidth=256))
    assert np.array_equal(opened.pixels(0), RAMP_8)
    assert opened.notes == ("RescaleSlope 0 ignored",)


def test_a_fractional_and_a_negative_slope():
    values = np.array([[0, 102, 510]], np.uint16)
    content = dicom(values, RescaleSlope=-0.5, RescaleIntercept=255, WindowCenter=128, WindowWidth=256)
    assert image(content).pixels(0).tolist() == [[255, 204, 0]]


def test_each_frame_of_an_enhanced_object_has_its_own_window():
    frames = np.stack([RAMP_12, RAMP_12])
    groups = [
        item(FrameVOILUTSequence=[item(WindowCenter=2048, WindowWidth=4096)]),
        item(FrameVOILUTSequence=[item(WindowCenter=1024, WindowWidth=2048)]),
    ]
    opened = image(dicom(frames, BitsStored=12, HighBit=11, PerFrameFunctionalGroupsSequence=groups))
    first, second = opened.pixels(0), opened.pixels(1)
    assert np.array_equal(first, np.floor(RAMP_12 / 4095 * 255 + 0.5))
    assert np.array_equal(second, np.floor(np.clip(RAMP_12 / 2047, 0, 1) * 255 + 0.5))


def test_shutter_and_square_pixels_come_last():
    white = np.full((4, 6), 4095, np.uint16)
    shutter = {"ShutterShape": "RECTANGULAR", "ShutterLeftVerticalEdge": 1, "ShutterRightVerticalEdge": 3}
    shutter |= {"ShutterUpperHorizontalEdge": 1, "ShutterLowerHorizontalEdge": 4, "PixelAspectRatio": [2, 1]}
    opened = image(
        dicom(white, BitsStored=12, HighBit=11, photometric="MONOCHROME1", WindowCenter=1, WindowWidth=2, **shutter)
    )
    assert opened.pixels(0).shape == (8, 6)
    inside_out = image(
        dicom(white * 0, BitsStored=12, HighBit=11, photometric="MONOCHROME1", **shutter, WindowCenter=9, WindowWidth=2)
    )
    assert (inside_out.pixels(0)[:, :3].min(), inside_out.pixels(0)[:, 3:].max()) == (255, 0)


# --- Around the data set


def big_endian_bare(content: bytes) -> bytes:
    buffer = io.BytesIO()
    Dataset(dcmread(io.BytesIO(content))).save_as(buffer, implicit_vr=False, little_endian=False)
    return buffer.getvalue()


def test_a_big_endian_data_set_without_preamble_is_read():
    content = dicom(
        RAMP_12, syntax=uid.ExplicitVRBigEndian, BitsStored=12, HighBit=11, WindowCenter=2048, WindowWidth=4096
    )
    header = dcmread(io.BytesIO(content))
    buffer = io.BytesIO()
    plain = Dataset(header)
    plain.set_original_encoding(False, False)
    plain.save_as(buffer)
    shown = image(buffer.getvalue()).pixels(0)
    assert np.array_equal(shown, np.floor(RAMP_12 / 4095 * 255 + 0.5))


@pytest.mark.parametrize("implicit", [True, False])
def test_a_data_set_without_preamble_has_its_facts(implicit):
    assert image(bare(dicom(RAMP_8, seed=3), implicit=implicit)).facts.patient_id == "P3"


def test_elements_after_the_pixel_data_do_no_harm():
    header = dcmread(io.BytesIO(dicom(RAMP_8, WindowCenter=128, WindowWidth=256)))
    header.add_new(0x7FE11001, "OB", b"private")
    header.add_new(0xFFFCFFFC, "OB", bytes(1000))
    assert np.array_equal(image(written(header)).pixels(0), RAMP_8)


def test_an_element_that_is_cut_off_behind_the_picture_is_truncated():
    header = dcmread(io.BytesIO(dicom(RAMP_8)))
    header.add_new(0xFFFCFFFC, "OB", bytes(1000))
    error = refusal(written(header)[:-10])
    assert error.code == "truncated"
    assert error.detail == "the file ends inside the element (FFFC,FFFC): 990 of 1,000 bytes are there; send it again"


# --- Files that pydicom brings: made by many programs, most of them with something odd

READABLE = {
    "693_J2KI.dcm": (512, 512),
    "CT_small.dcm": (128, 128),
    "ExplVR_BigEnd.dcm": (60, 80, 3),
    "GDCMJ2K_TextGBR.dcm": (400, 400, 3),
    "J2K_pixelrep_mismatch.dcm": (512, 512),
    "JPEG-lossy.dcm": (1024, 256),
    "JPEG2000.dcm": (1024, 256),
    "JPEGLSNearLossless_08.dcm": (45, 10),
    "JPEGLSNearLossless_16.dcm": (50, 10),
    "JPGExtended.dcm": (1024, 256),
    "MR_small_padded.dcm": (64, 64),
    "SC_jpeg_no_color_transform.dcm": (256, 256, 3),
    "SC_rgb_jls_lossy_line.dcm": (100, 100, 3),
    "SC_rgb_rle_32bit_2frame.dcm": (100, 100, 3),
    "SC_rgb_small_odd_big_endian.dcm": (3, 3, 3),
    "SC_ybr_full_422_uncompressed.dcm": (100, 100, 3),
    "examples_overlay.dcm": (300, 484),
    "examples_palette.dcm": (350, 800, 3),
    "examples_ybr_color.dcm": (240, 320, 3),
    "image_dfl.dcm": (512, 512),
    "dicomdirtests/77654033/CR1/6154": (16, 16),
}
REFUSED = {
    "ExplVR_BigEndNoMeta.dcm": "no_pixel_data",
    "ExplVR_LitEndNoMeta.dcm": "no_pixel_data",
    "JPEG2000-embedded-sequence-delimiter.dcm": "corrupt",  # its stream declares 4 thousand million columns
    "MR_truncated.dcm": "truncated",
    "badVR.dcm": "no_pixel_data",
    "dicomdirtests/DICOMDIR": "no_pixel_data",
    "dicomdirtests/DICOMDIR-bigEnd": "no_pixel_data",
    "dicomdirtests/DICOMDIR-implicit": "no_pixel_data",
    "liver_1frame.dcm": "no_pixel_data",
    "meta_missing_tsyntax.dcm": "corrupt",
    "reportsi.dcm": "no_pixel_data",
    "rtdose_rle.dcm": "no_pixel_data",
    "rtplan_truncated.dcm": "truncated",
    "rtstruct.dcm": "no_pixel_data",
    "waveform_ecg.dcm": "no_pixel_data",
}
SAME_PICTURE = [
    ["MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm"],
    ["MR_small.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_padded.dcm"],
    ["SC_rgb_rle.dcm", "SC_rgb_rle_16bit.dcm", "SC_rgb_rle_32bit.dcm", "SC_rgb_rle_2frame.dcm"],
    ["SC_rgb_rle.dcm", "SC_rgb_gdcm_KY.dcm", "SC_rgb_jpeg_gdcm.dcm", "SC_rgb_dcmtk_+eb+cr.dcm"],
]


@pytest.mark.parametrize(("name", "shape"), READABLE.items(), ids=list(READABLE))
def test_sample_files_are_read(name, shape):
    assert read(SAMPLES / name).pixels.shape == shape


@pytest.mark.parametrize(("name", "code"), REFUSED.items(), ids=list(REFUSED))
def test_sample_files_are_refused_with_their_reason(name, code):
    with pytest.raises(errors.FractureWatchError) as caught:
        read(SAMPLES / name)
    assert caught.value.code == code


@pytest.mark.parametrize("names", SAME_PICTURE, ids=lambda names: names[-1])
def test_the_same_picture_looks_the_same_in_every_encoding(names):
    first, *others = [read(SAMPLES / name).pixels.astype(int) for name in names]
    assert [np.abs(other - first).max() <= 2 for other in others] == [True] * len(others)
