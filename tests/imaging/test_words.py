"""Words of the pixel data that hold more, less or something else than the plainest header says."""

import io

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from pydicom import uid
from pydicom.pixels.processing import convert_color_space

from fracture_watch.imaging.dicom import DicomImage
from fracture_watch.imaging.limits import Limits, Scope
from fracture_watch.privacy import Privacy
from tests.dicoms import dicom

GREY_12 = np.random.default_rng(7).integers(0, 4096, (12, 20)).astype(np.uint16)
SHOWN_12 = np.floor(GREY_12 / 4095 * 255 + 0.5)
WINDOW_12 = {"WindowCenter": 2048, "WindowWidth": 4096}
COLOR = np.random.default_rng(8).integers(0, 256, (6, 8, 3)).astype(np.uint8)
ACROSS, DOWN = np.meshgrid(np.arange(0, 256, 8), np.arange(0, 256, 8))
SMOOTH = np.stack([ACROSS, DOWN, np.full_like(DOWN, 90)], -1).astype(np.uint8)
LITTLE_AND_BIG = [uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian]
by_name = {"ids": lambda syntax: syntax.keyword}


def opened(content: bytes) -> DicomImage:
    return DicomImage(content, Limits(), Scope())


def shown(content: bytes, frame: int = 0) -> np.ndarray:
    return opened(content).pixels(frame)


def swapped(data: bytes) -> bytes:
    """As OW of big endian stands in a file: each word of 16 bits turned round."""
    return np.frombuffer(data, "<u2").astype(">u2").tobytes()


# --- Codestreams


def lossless(words: np.ndarray, syntax: uid.UID) -> bytes:
    """All 16 bits of the words, as encoders take them that do not look at BitsStored."""
    if syntax == uid.JPEGLSLossless:
        return bytes(imagecodecs.jpegls_encode(words))
    if syntax == uid.JPEG2000Lossless:
        return bytes(imagecodecs.jpeg2k_encode(words, codecformat="J2K", reversible=True))
    return bytes(imagecodecs.jpeg8_encode(words, lossless=True, bitspersample=16))


@pytest.mark.parametrize("syntax", [uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless], **by_name)
@pytest.mark.parametrize("window", [WINDOW_12, {}], ids=["window", "none"])
def test_overlays_in_unused_bits_of_a_codestream_are_masked(syntax, window):
    overlay = (np.indices(GREY_12.shape).sum(0) % 2 << 12).astype(np.uint16)
    header = {"BitsStored": 12, "HighBit": 11} | window
    stream = lossless(GREY_12 | overlay, syntax)
    assert np.array_equal(
        shown(dicom(GREY_12, syntax=syntax, encoded=[stream], **header)), shown(dicom(GREY_12, **header))
    )


def test_what_a_lossy_codec_leaves_far_above_bits_stored_stays_white():
    edges = np.random.default_rng(3).integers(0, 2, (64, 64)).astype(np.uint16) * 4095
    stream = bytes(imagecodecs.jpeg2k_encode(edges, level=40, codecformat="J2K", reversible=False))
    assert imagecodecs.jpeg2k_decode(stream).max() > 4095 + 512
    content = dicom(edges, syntax=uid.JPEG2000, encoded=[stream], BitsStored=12, HighBit=11, **WINDOW_12)
    assert shown(content)[edges == 4095].min() > 60


def signed_stream(values: np.ndarray, bits: int) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(values, codecformat="J2K", reversible=True, bitspersample=bits))


def test_unsigned_values_of_a_signed_codestream_are_raised_and_noted():
    stream = signed_stream((GREY_12.astype(np.int16) - 2048).astype(np.int16), 12)
    header = {"BitsStored": 12, "HighBit": 11} | WINDOW_12
    image = opened(dicom(GREY_12, syntax=uid.JPEG2000Lossless, encoded=[stream], **header))
    assert np.array_equal(image.pixels(0), SHOWN_12)
    assert image.notes == ("signed codestream of unsigned values: raised by half its range",)
    assert Privacy("drop").notes(image.notes) == image.notes


def test_a_signed_codestream_without_negative_values_is_taken_as_it_is():
    stream = signed_stream(GREY_12.astype(np.int16), 16)
    header = {"BitsStored": 12, "HighBit": 11} | WINDOW_12
    image = opened(dicom(GREY_12, syntax=uid.JPEG2000Lossless, encoded=[stream], **header))
    assert np.array_equal(image.pixels(0), SHOWN_12)
    assert image.notes == ()


def test_a_signed_codestream_may_have_fewer_bits_than_the_header():
    values = np.array([[-128, -1, 0, 127]], np.int16)
    stream = signed_stream(values.astype(np.int8), 8)
    content = dicom(values, syntax=uid.JPEG2000Lossless, encoded=[stream], WindowCenter=0, WindowWidth=256)
    assert shown(content).tolist() == [[0, 127, 128, 255]]


# --- Native words


def test_32_bit_pixels_in_big_endian_are_swapped_by_words_of_16_bit():
    values = np.random.default_rng(9).integers(0, 2**32, (2, 3, 5), dtype=np.uint32)
    window = {"WindowCenter": 2**31, "WindowWidth": 2**32}
    little, big = (
        dicom(values, syntax=syntax, PixelData=data, **window)
        for syntax, data in zip(LITTLE_AND_BIG, (values.tobytes(), swapped(values.tobytes())), strict=True)
    )
    for frame in range(2):
        assert np.array_equal(shown(big, frame), shown(little, frame))
        assert np.abs(shown(big, frame) - values[frame] / (2**32 - 1) * 255).max() <= 0.5


@pytest.mark.parametrize("order", ["little", "big OW", "big OB"])
def test_one_bit_frames_follow_each_other_without_a_gap(order):
    bits = np.random.default_rng(10).integers(0, 2, (3, 5, 7)).astype(np.uint8)
    data = np.packbits(bits.ravel(), bitorder="little").tobytes()
    given = {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}
    if order == "big OW":
        given |= {"PixelData": swapped(data)}
    content = dicom(bits, syntax=LITTLE_AND_BIG[order != "little"], **{"PixelData": data} | given)
    if order == "big OW":
        content = content.replace(b"\x7f\xe0\x00\x10OB", b"\x7f\xe0\x00\x10OW")
    for frame in range(3):
        assert np.array_equal(shown(content, frame), bits[frame] * 255)


@pytest.mark.parametrize("missing", ["SamplesPerPixel", "BitsStored", "HighBit", "PixelRepresentation"])
def test_what_the_header_of_a_grey_image_leaves_out_is_as_is_most_usual(missing):
    deep = np.random.default_rng(11).integers(0, 2**32, (4, 5), dtype=np.uint32)
    assert np.array_equal(shown(dicom(deep, **{missing: None})), shown(dicom(deep)))
    eight = (deep >> 24).astype(np.uint8)
    assert np.array_equal(shown(dicom(eight, syntax=uid.ExplicitVRBigEndian, **{missing: None})), eight)


# --- Colours


@pytest.mark.parametrize(
    "missing", ["SamplesPerPixel", "PlanarConfiguration", "BitsStored", "HighBit", "PixelRepresentation"]
)
def test_what_the_header_of_a_colour_image_leaves_out_is_as_is_most_usual(missing):
    content = dicom(COLOR, photometric="RGB")
    without = dicom(COLOR, photometric="RGB", PixelData=COLOR.tobytes(), **{missing: None})
    assert np.array_equal(shown(without), shown(content))


@pytest.mark.parametrize(
    "syntax", [*LITTLE_AND_BIG, uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless], **by_name
)
def test_high_bit_above_bits_stored_is_heeded_in_colours(syntax):
    words = COLOR.astype(np.uint16) << 8 | 0b1011
    content = dicom(words, syntax=syntax, photometric="RGB", BitsStored=12, HighBit=15)
    assert np.array_equal(shown(content), COLOR)


@pytest.mark.parametrize("syntax", [*LITTLE_AND_BIG, uid.RLELossless, uid.JPEGLSLossless], **by_name)
def test_high_bit_above_bits_stored_is_heeded_in_palette_indices(syntax):
    words = np.array([[0, 1, 2, 1]], np.uint16) << 8 | 0b1011
    palette = {}
    for color, table in (("Red", [10, 0, 250]), ("Green", [20, 0, 251]), ("Blue", [30, 0, 252])):
        data = bytes([*table, 0])
        palette[f"{color}PaletteColorLookupTableDescriptor"] = [3, 0, 8]
        palette[f"{color}PaletteColorLookupTableData"] = swapped(data) if syntax == LITTLE_AND_BIG[1] else data
    content = dicom(words, syntax=syntax, photometric="PALETTE COLOR", BitsStored=8, HighBit=15, **palette)
    assert shown(content).tolist() == [[[10, 20, 30], [0, 0, 0], [250, 251, 252], [0, 0, 0]]]


def test_overlays_in_unused_bits_of_colours_are_masked():
    words = COLOR.astype(np.uint16) << 4 | 0xF000
    assert np.array_equal(shown(dicom(words, photometric="RGB", BitsStored=12, HighBit=11)), COLOR)


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_a_colour_codestream_may_have_fewer_bits_than_the_header(photometric):
    buffer = io.BytesIO()
    Image.fromarray(SMOOTH).save(buffer, "JPEG", quality=98, subsampling=0, keep_rgb=photometric == "RGB")
    content = dicom(
        SMOOTH.astype(np.uint16), syntax=uid.JPEGBaseline8Bit, photometric=photometric, encoded=[buffer.getvalue()]
    )
    assert np.abs(shown(content).astype(int) - SMOOTH).max() <= 4


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.JPEGLSLossless], **by_name)
@pytest.mark.parametrize("bits", [4, 6])
def test_colours_of_fewer_than_8_bits_reach_white(syntax, bits):
    values = COLOR >> (8 - bits)
    expected = np.rint(values.astype(float) * 255 / (2**bits - 1))
    content = dicom(values, syntax=syntax, photometric="RGB", BitsStored=bits, HighBit=bits - 1)
    assert expected.max() == 255
    assert np.array_equal(shown(content), expected)


@pytest.mark.parametrize("syntax", [*LITTLE_AND_BIG, uid.RLELossless], **by_name)
def test_ybr_of_more_than_8_bits_becomes_rgb(syntax):
    content = dicom(COLOR.astype(np.uint16) << 4, syntax=syntax, photometric="YBR_FULL", BitsStored=12, HighBit=11)
    assert np.array_equal(shown(content), convert_color_space(COLOR, "YBR_FULL", "RGB"))


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_a_jfif_marker_changes_no_colours_of_lossless_jpeg(photometric):
    """Whose header alone says what they are (PS3.5 8.2.1)."""
    stream = imagecodecs.jpeg8_encode(COLOR, lossless=True, colorspace="UNKNOWN", outcolorspace="UNKNOWN")
    jfif = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
    content = dicom(
        COLOR, syntax=uid.JPEGLosslessSV1, photometric=photometric, encoded=[stream[:2] + jfif + stream[2:]]
    )
    assert np.array_equal(shown(content), convert_color_space(COLOR, photometric, "RGB"))
