"""Compressed frames that contradict the data set are refused before a decoder sees them."""

import io

import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread, uid
from pydicom.encaps import encapsulate

from fracture_watch import errors
from fracture_watch.imaging.dicom import DicomImage
from fracture_watch.imaging.limits import Limits, Scope
from tests.dicoms import _ENCODE, dicom, written

GRAY = np.random.default_rng(3).integers(0, 4096, (64, 48)).astype(np.uint16)
BITS = {"BitsStored": 12, "HighBit": 11, "WindowCenter": 2048, "WindowWidth": 4096}
JPEGS = [uid.JPEGExtended12Bit, uid.JPEGLosslessSV1, uid.JPEGLSLossless]
JPEG_2000 = [uid.JPEG2000Lossless, uid.HTJ2KLossless]
by_syntax = pytest.mark.parametrize("syntax", [*JPEGS, *JPEG_2000], ids=lambda syntax: syntax.keyword)


def encoded(syntax, pixels=GRAY) -> bytes:
    return bytes(_ENCODE[syntax](pixels, 12, "MONOCHROME2"))


def refusal(syntax, stream: bytes, **elements) -> errors.FractureWatchError:
    with pytest.raises(errors.FractureWatchError) as caught:
        DicomImage(dicom(GRAY, syntax=syntax, encoded=[stream], **BITS | elements), Limits(), Scope()).pixels(0)
    return caught.value


@by_syntax
def test_another_size_is_corrupt(syntax):
    error = refusal(syntax, encoded(syntax, GRAY[:-1]))
    assert type(error) is errors.Corrupt
    assert error.detail.startswith("the compressed picture has 63 rows x 48 columns at 1")
    assert error.detail.endswith("but the header says 64 rows x 48 columns at 16 bit")


@by_syntax
def test_a_stream_of_another_syntax_is_corrupt(syntax):
    error = refusal(syntax, b"\x00" * 100)
    assert error.detail == f"the pixel data are not encoded as {syntax.name}, which the header states"


@by_syntax
def test_colours_in_a_grey_file_are_corrupt(syntax):
    colors = np.stack([GRAY >> 4] * 3, -1).astype(np.uint8)
    assert type(refusal(syntax, bytes(_ENCODE[syntax](colors, 8, "RGB")))) is errors.Corrupt


@by_syntax
def test_more_bits_than_the_header_allocates_are_corrupt(syntax):
    error = refusal(syntax, encoded(syntax), BitsAllocated=8, BitsStored=8, HighBit=7)
    assert type(error) is errors.Corrupt


@by_syntax
@pytest.mark.parametrize("left", [0.3, 0.6, 0.95])
def test_a_stream_that_ends_too_early_is_truncated(syntax, left):
    stream = encoded(syntax)
    error = refusal(syntax, stream[: int(len(stream) * left)])
    assert (type(error), error.detail) == (
        errors.Truncated,
        "the compressed picture ends too early; send the file again",
    )


@pytest.mark.parametrize("syntax", JPEG_2000, ids=lambda syntax: syntax.keyword)
def test_jpeg_2000_without_its_end_marker_is_read(syntax):
    stream = encoded(syntax)
    assert stream.endswith(b"\xff\xd9")
    shown = DicomImage(dicom(GRAY, syntax=syntax, encoded=[stream[:-2]], **BITS), Limits(), Scope()).pixels(0)
    whole = DicomImage(dicom(GRAY, syntax=syntax, encoded=[stream], **BITS), Limits(), Scope()).pixels(0)
    assert np.array_equal(shown, whole)


@by_syntax
def test_what_some_writers_pad_after_the_end_is_ignored(syntax):
    stream = encoded(syntax)
    shown = DicomImage(dicom(GRAY, syntax=syntax, encoded=[stream + bytes(9)], **BITS), Limits(), Scope()).pixels(0)
    whole = DicomImage(dicom(GRAY, syntax=syntax, encoded=[stream], **BITS), Limits(), Scope()).pixels(0)
    assert np.array_equal(shown, whole)


def test_a_header_that_declares_a_huge_picture_is_refused_before_memory_is_taken():
    stream = bytearray(encoded(uid.JPEG2000Lossless))
    size = stream.index(b"\xff\x51")
    stream[size + 6 : size + 14] = (0x7FFFFFFF).to_bytes(4, "big") * 2
    error = refusal(uid.JPEG2000Lossless, bytes(stream))
    assert error.detail.startswith("the compressed picture has 2147483647 rows x 2147483647 columns")


@pytest.mark.parametrize("predictor", range(1, 8))
def test_every_predictor_of_jpeg_lossless_is_read_exactly(predictor):
    stream = imagecodecs.jpeg8_encode(GRAY, lossless=True, predictor=predictor, bitspersample=12)
    content = dicom(GRAY, syntax=uid.JPEGLossless, encoded=[stream], **BITS)
    expected = np.floor(GRAY / 4095 * 255 + 0.5)
    assert np.array_equal(DicomImage(content, Limits(), Scope()).pixels(0), expected)


def test_jpeg_ls_near_lossless_is_within_what_it_allows():
    stream = imagecodecs.jpegls_encode(GRAY, level=16)  # the greatest difference of a stored value: one grey level
    shown = DicomImage(dicom(GRAY, syntax=uid.JPEGLSNearLossless, encoded=[stream], **BITS), Limits(), Scope()).pixels(
        0
    )
    difference = np.abs(shown.astype(int) - np.floor(GRAY / 4095 * 255 + 0.5))
    assert 0 < difference.max() <= 1


@pytest.mark.parametrize("syntax", [uid.JPEG2000, uid.HTJ2K], ids=lambda syntax: syntax.keyword)
def test_lossy_jpeg_2000_is_near_what_was_encoded(syntax):
    smooth = np.linspace(0, 4095, 64 * 48).reshape(64, 48).astype(np.uint16)
    encode = imagecodecs.jpeg2k_encode if syntax == uid.JPEG2000 else imagecodecs.htj2k_encode
    options = {"codecformat": "J2K", "level": 70, "bitspersample": 12} if syntax == uid.JPEG2000 else {"level": 0.001}
    stream = bytes(encode(smooth, reversible=False, **options))
    shown = DicomImage(dicom(smooth, syntax=syntax, encoded=[stream], **BITS), Limits(), Scope()).pixels(0)
    assert np.abs(shown.astype(int) - smooth / 4095 * 255).max() < 4


@pytest.mark.parametrize("high", [13, 15])
@pytest.mark.parametrize("syntax", [uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.RLELossless], ids=lambda s: s.keyword)
def test_words_that_the_encoder_took_as_they_stood_are_read_as_native_ones(syntax, high):
    words = GRAY << (high - 11) | (0b11 if high > 12 else 0)
    encoder = imagecodecs.jpegls_encode if syntax == uid.JPEGLSLossless else None
    encoder = imagecodecs.jpeg2k_encode if syntax == uid.JPEG2000Lossless else encoder
    options = {"reversible": True, "codecformat": "J2K"} if syntax == uid.JPEG2000Lossless else {}
    streams = {"encoded": [bytes(encoder(words, **options))]} if encoder else {}
    content = dicom(words, syntax=syntax, **streams, **BITS | {"HighBit": high})
    expected = np.floor(GRAY / 4095 * 255 + 0.5)
    assert np.array_equal(DicomImage(content, Limits(), Scope()).pixels(0), expected)


# --- RLE


def rle(*segments: bytes, count: int | None = None) -> bytes:
    offsets = [64 + sum(map(len, segments[:n])) for n in range(len(segments))]
    header = [len(segments) if count is None else count, *offsets, *[0] * (15 - len(segments))]
    return np.array(header, "<u4").tobytes() + b"".join(segments)


FULL = b"\x81\x07" * (64 * 48 // 128)  # 128 times the byte 7, as often as fills the picture


def test_rle_that_fills_the_picture_is_read():
    content = dicom(GRAY, syntax=uid.RLELossless, encoded=[rle(FULL, FULL)], **BITS)
    assert DicomImage(content, Limits(), Scope()).pixels(0).min() > 0


@pytest.mark.parametrize(
    ("stream", "kind", "detail"),
    [
        (rle(FULL), errors.Corrupt, "1 segments, where the header asks for 2"),
        (rle(FULL, FULL, FULL), errors.Corrupt, "3 segments, where the header asks for 2"),
        (rle(FULL, FULL, count=4_000_000_000), errors.Corrupt, "4000000000 segments, where the header asks for 2"),
        (rle(FULL, FULL[:-2]), errors.Truncated, "an RLE segment is too short for the picture"),
        (rle(FULL, FULL)[:60], errors.Corrupt, "the RLE header is wrong"),
        (rle(FULL, FULL * 100), errors.Corrupt, "the pixel data cannot be decoded (RLE Lossless)"),
    ],
    ids=["one segment", "three", "billions", "short", "cut off", "a bomb"],
)
def test_rle_that_cannot_be_the_picture_is_refused(stream, kind, detail):
    error = refusal(uid.RLELossless, stream)
    assert type(error) is kind
    assert detail in error.detail


def literal(data: bytes) -> bytes:
    """A segment that says every byte as it is, of even length."""
    parts = [data[start : start + 128] for start in range(0, len(data), 128)]
    segment = b"".join(bytes([len(part) - 1]) + part for part in parts)
    return segment + bytes(len(segment) % 2)


PLANES = [(GRAY >> 8).astype(np.uint8).tobytes(), (GRAY & 255).astype(np.uint8).tobytes()]


@pytest.mark.parametrize("padding", [(2, 0), (0, 2), (4, 4), (64, 6)])
def test_rle_planes_are_cut_to_the_picture(padding):
    stream = rle(*(literal(plane) + bytes(more) for plane, more in zip(PLANES, padding, strict=True)))
    content = dicom(GRAY, syntax=uid.RLELossless, encoded=[stream], **BITS)
    assert np.array_equal(DicomImage(content, Limits(), Scope()).pixels(0), np.floor(GRAY / 4095 * 255 + 0.5))


def test_rle_planes_of_colours_are_cut_to_the_picture():
    colors = np.random.default_rng(12).integers(0, 256, (5, 5, 3)).astype(np.uint8)
    stream = rle(*(literal(colors[..., n].tobytes() + b"\0") for n in range(3)))
    content = dicom(colors, syntax=uid.RLELossless, photometric="RGB", encoded=[stream])
    assert np.array_equal(DicomImage(content, Limits(), Scope()).pixels(0), colors)


def test_rle_planes_do_not_lend_each_other_pixels():
    colors = np.random.default_rng(12).integers(0, 256, (64, 48, 3)).astype(np.uint8)
    first, second, third = (colors[..., n].tobytes() for n in range(3))
    stream = rle(literal(first), literal(second[:-100]), literal(third + bytes(100)))
    with pytest.raises(errors.Truncated, match="an RLE segment holds 2,972 of 3,072 bytes"):
        DicomImage(
            dicom(colors, syntax=uid.RLELossless, photometric="RGB", encoded=[stream]), Limits(), Scope()
        ).pixels(0)


def test_rle_frames_in_several_fragments_need_an_offset_table():
    stream = rle(*map(literal, PLANES))
    half = len(stream) // 4 * 2
    fragments = [part for _ in range(2) for part in (stream[:half], stream[half:])]
    content = dicom(np.stack([GRAY, GRAY]), syntax=uid.RLELossless, encoded=fragments, **BITS)
    header = dcmread(io.BytesIO(content))
    header.PixelData = encapsulate(fragments, has_bot=False)
    with pytest.raises(errors.Corrupt, match="fragments outnumber NumberOfFrames and there is no offset table"):
        DicomImage(written(header, uid.RLELossless), Limits(), Scope()).pixels(0)


# --- JPEG 2000


@pytest.mark.parametrize("comment", [b"\xff\x90" + bytes(10), b"\xff\x90" + b"\xff" * 12])
def test_a_comment_that_looks_like_a_tile_is_passed_over(comment):
    stream = encoded(uid.JPEG2000Lossless)
    start = stream.index(b"\xff\x90")
    segment = b"\xff\x64" + (4 + len(comment)).to_bytes(2, "big") + b"\0\0" + comment
    commented = stream[:start] + segment + stream[start:]
    content = dicom(GRAY, syntax=uid.JPEG2000Lossless, encoded=[commented], **BITS)
    assert np.array_equal(DicomImage(content, Limits(), Scope()).pixels(0), np.floor(GRAY / 4095 * 255 + 0.5))
    assert type(refusal(uid.JPEG2000Lossless, commented[:-200])) is errors.Truncated
