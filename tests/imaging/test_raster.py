import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fracture_watch import errors
from fracture_watch.imaging.limits import Limits
from fracture_watch.imaging.raster import RasterImage
from fracture_watch.records import Facts
from tests.imaging.hostile_tiff import tiff

GREY = np.random.default_rng(1).integers(0, 256, (6, 9), dtype=np.uint8)
COLOR = np.random.default_rng(2).integers(0, 256, (6, 9, 3), dtype=np.uint8)
DEEP = np.array([[0, 128, 129, 257, 25700, 65535]], np.uint16)
DEEP_SHOWN = [[0, 0, 1, 1, 100, 255]]  # rounded from value / 257
ACROSS, DOWN = np.meshgrid(np.linspace(10, 240, 40), np.linspace(0, 200, 24))
SMOOTH = np.stack([ACROSS, DOWN, np.full_like(DOWN, 90)], -1).astype(np.uint8)


def saved(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def shown(content: bytes) -> np.ndarray:
    return RasterImage(content, Limits()).pixels(0)


def same(left: np.ndarray, right: np.ndarray) -> bool:
    return left.dtype == np.uint8 and np.array_equal(left, right)


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})]
)
def test_grey_pictures_come_back_exactly(kind, options):
    assert same(shown(saved(Image.fromarray(GREY), kind, **options)), GREY)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})],
    ids=["PNG", "BMP", "TIFF", "WEBP"],
)
def test_colour_pictures_come_back_exactly(kind, options):
    assert same(shown(saved(Image.fromarray(COLOR), kind, **options)), COLOR)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_one_bit_is_black_and_white(kind):
    bits = np.array([[True, False, True], [False, False, True]])
    assert same(shown(saved(Image.fromarray(bits), kind)), bits * np.uint8(255))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_is_scaled_to_8_bit(kind):
    assert shown(saved(Image.fromarray(DEEP), kind)).tolist() == DEEP_SHOWN


def test_big_endian_16_bit_tiff_is_scaled_to_8_bit():
    assert shown(saved(Image.frombytes("I;16B", (6, 1), DEEP.astype(">u2").tobytes()), "TIFF")).tolist() == DEEP_SHOWN


def test_16_bit_tiff_where_white_is_zero_is_shown_as_a_viewer_does():
    assert shown(where_white_is_zero(saved(Image.fromarray(DEEP), "TIFF"))).tolist() == [[255, 255, 254, 254, 155, 0]]


def test_float_tiff_is_shown_from_least_to_greatest():
    values = np.array([[-1.0, 0.0, 1.0, np.nan]], np.float32)
    assert shown(saved(Image.fromarray(values), "TIFF")).tolist() == [[0, 128, 255, 0]]


def where_white_is_zero(tiff: bytes) -> bytes:
    photometric = b"\x06\x01\x03\x00\x01\x00\x00\x00"  # tag 262, one SHORT
    assert photometric + b"\x01" in tiff
    return tiff.replace(photometric + b"\x01", photometric + b"\x00")


def test_a_float_tiff_where_white_is_zero_is_shown_as_a_viewer_does():
    values = np.array([[-1.0, 0.0, 1.0, np.nan]], np.float32)
    assert shown(where_white_is_zero(saved(Image.fromarray(values), "TIFF"))).tolist() == [[255, 128, 0, 0]]


def test_12_bit_tiff_is_scaled_from_its_own_white():
    values = [0, 2048, 4080, 4095]
    packed = bytes.fromhex("".join(f"{value:03x}" for value in values))
    content = tiff({256: (4, 1, 4), 257: (4, 1, 1), 258: (3, 1, 12), 278: (4, 1, 1)}, data=packed)
    assert shown(content).tolist() == [[0, 128, 254, 255]]


def test_a_float_tiff_without_finite_values_is_corrupt():
    with pytest.raises(errors.Corrupt) as caught:
        shown(saved(Image.fromarray(np.full((2, 2), np.nan, np.float32)), "TIFF"))
    assert caught.value.detail == "the picture has no finite pixel values"


def test_palette_indices_become_colours():
    picture = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "L").convert("P")
    picture.putpalette([1, 2, 3, 40, 50, 60, 250, 251, 252])
    assert shown(saved(picture, "PNG")).tolist() == [[[1, 2, 3], [40, 50, 60], [250, 251, 252]]]


def test_rgba_is_laid_over_black():
    picture = Image.fromarray(np.array([[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 51]]], np.uint8))
    assert shown(saved(picture, "PNG")).tolist() == [[[200, 100, 50], [0, 0, 0], [40, 20, 10]]]


def test_grey_with_alpha_is_laid_over_black_and_stays_grey():
    picture = Image.merge(
        "LA", [Image.fromarray(np.uint8([[200, 200, 200]])), Image.fromarray(np.uint8([[255, 0, 51]]))]
    )
    assert shown(saved(picture, "PNG")).tolist() == [[200, 0, 40]]


def test_a_transparent_grey_is_black():
    picture = Image.fromarray(np.uint8([[200, 255]]))
    assert shown(saved(picture, "PNG", transparency=255)).tolist() == [[200, 0]]


def test_a_transparent_grey_of_16_bits_is_black():
    picture = Image.fromarray(np.array([[65535, 25700]], np.uint16))
    assert shown(saved(picture, "PNG", transparency=65535)).tolist() == [[0, 100]]


def with_samples(values: np.ndarray, kind: int) -> bytes:
    """A TIFF whose SampleFormat says how the bits of ``values`` are meant."""
    rows, columns = values.shape
    numbers = {256: columns, 257: rows, 258: 8 * values.itemsize, 278: rows, 339: kind}
    return tiff({tag: (3, 1, number) for tag, number in numbers.items()}, data=values.tobytes())


def test_a_tiff_of_32_bits_without_a_sign_is_shown_from_least_to_greatest():
    values = np.array([[0, 10**9, 3 * 10**9, 4 * 10**9]], np.uint32)
    assert shown(with_samples(values, 1)).tolist() == [[0, 64, 191, 255]]
    assert shown(with_samples(values.astype(np.int64).astype(np.int32), 2)).tolist() == [[144, 255, 0, 111]]


def test_a_tiff_of_8_bits_with_a_sign_is_shown_from_least_to_greatest():
    assert shown(with_samples(np.array([[-100, -50, 50, 100]], np.int8), 2)).tolist() == [[0, 64, 191, 255]]


# PIL writes the pixels as they are and the tag beside them: what is shown must be turned.
TURNED = {
    1: GREY,
    2: GREY[:, ::-1],
    3: GREY[::-1, ::-1],
    4: GREY[::-1],
    5: GREY.T,
    6: np.rot90(GREY, -1),
    7: np.rot90(GREY, 2).T,
    8: np.rot90(GREY),
}


@pytest.mark.parametrize("orientation", TURNED)
def test_exif_orientation_is_heeded(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert same(shown(saved(Image.fromarray(GREY), "PNG", exif=exif)), TURNED[orientation])


def test_a_turned_jpeg_says_the_size_that_is_shown():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = RasterImage(saved(Image.fromarray(GREY), "JPEG", exif=exif), Limits())
    assert (image.pixels(0).shape, image.facts) == ((9, 6), Facts(rows=9, columns=6))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": "4:2:0"}], ids=str)
def test_jpeg_is_near_what_was_encoded(options):
    pixels = shown(saved(Image.fromarray(SMOOTH), "JPEG", quality=95, **options))
    assert np.abs(pixels.astype(int) - SMOOTH).max() <= 8


def test_grey_jpeg_stays_grey():
    assert shown(saved(Image.fromarray(GREY), "JPEG")).shape == (6, 9)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_shown_in_its_colours(kind):
    options = {"quality": 95} if kind == "JPEG" else {}
    pixels = shown(saved(Image.fromarray(SMOOTH).convert("CMYK"), kind, **options))
    assert np.abs(pixels.astype(int) - SMOOTH).max() <= 8


@pytest.mark.parametrize(("kind", "options"), [("TIFF", {}), ("PNG", {}), ("WEBP", {"lossless": True})])
def test_the_first_of_several_images_is_taken_and_noted(kind, options):
    others = [Image.fromarray(255 - SMOOTH), Image.fromarray(SMOOTH[::-1])]
    image = RasterImage(saved(Image.fromarray(SMOOTH), kind, save_all=True, append_images=others, **options), Limits())
    assert same(image.pixels(0), SMOOTH)
    count = "several" if kind == "TIFF" else "3"  # a TIFF has no count
    assert (image.frames, image.notes) == (1, (f"first of {count} images in the file",))


def test_a_single_image_needs_no_note():
    assert RasterImage(saved(Image.fromarray(GREY), "PNG"), Limits()).notes == ()


def test_too_many_pixels_are_refused_by_their_declaration():
    with pytest.raises(errors.TooLarge) as caught:
        RasterImage(saved(Image.fromarray(GREY), "PNG"), Limits(max_pixels=53))
    assert caught.value.detail == (
        "6 x 9 pixels are more than imaging.max_pixels (53); raise it if such images are expected"
    )


def test_a_png_that_declares_a_huge_size_is_refused():
    content = bytearray(saved(Image.fromarray(GREY), "PNG"))
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    with pytest.raises(errors.TooLarge):
        shown(bytes(content))


def refused(content: bytes) -> type:
    with pytest.raises(errors.FractureWatchError) as caught:
        shown(content)
    return type(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
def test_a_picture_that_is_cut_off_is_truncated(kind):
    content = saved(Image.fromarray(COLOR.repeat(20, 0).repeat(20, 1)), kind)
    assert refused(content[: len(content) // 2]) is errors.Truncated


def test_a_picture_that_is_only_magic_is_corrupt():
    assert refused(b"\x89PNG\r\n\x1a\n" + bytes(64) + b"IEND") is errors.Corrupt


def test_a_picture_with_damaged_data_is_corrupt():
    content = bytearray(saved(Image.fromarray(COLOR), "PNG"))
    content[60] ^= 0xFF
    assert refused(bytes(content)) is errors.Corrupt


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_a_picture_that_is_cut_off_anywhere_never_shows_another_picture(kind):
    content = saved(Image.fromarray(COLOR), kind)
    whole = shown(content)
    for end in range(16, len(content)):
        try:
            pixels = shown(content[:end])
        except errors.FractureWatchError:
            continue
        assert same(pixels, whole), end


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(["PNG", "JPEG", "TIFF", "WEBP", "BMP"]),
    st.lists(st.tuples(st.integers(4, 400), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_whatever_bytes_are_damaged_the_answer_is_a_picture_or_a_reason(kind, damages):
    content = bytearray(saved(Image.fromarray(COLOR), kind))
    for place, value in damages:
        content[min(place, len(content) - 1)] = value
    try:
        pixels = RasterImage(bytes(content), Limits(max_pixels=1_000_000)).pixels(0)
    except errors.FractureWatchError as error:
        assert error.detail
    else:
        assert pixels.dtype == np.uint8


def test_broken_exif_data_are_ignored_and_noted():
    png = saved(Image.fromarray(SMOOTH), "PNG")
    noise = bytes(range(40))
    chunk = struct.pack(">I", len(noise)) + b"eXIf" + noise + struct.pack(">I", zlib.crc32(b"eXIf" + noise))
    image = RasterImage(png[:33] + chunk + png[33:], Limits())
    assert same(image.pixels(0), SMOOTH)
    assert image.notes == ("broken Exif data ignored",)


def test_a_jpeg_that_is_cut_in_its_header_is_truncated():
    jpeg = saved(Image.fromarray(SMOOTH), "JPEG")
    with pytest.raises(errors.Truncated):
        RasterImage(jpeg[:100], Limits())


def test_a_jpeg_that_declares_far_more_than_it_holds_is_truncated():
    jpeg = saved(Image.fromarray(SMOOTH), "JPEG")
    size = jpeg.index(b"\xff\xc0") + 5
    assert refused(jpeg[:size] + struct.pack(">HH", 1990, 1990) + jpeg[size + 4 :]) is errors.Truncated


def test_what_follows_the_end_of_a_jpeg_is_ignored():
    jpeg = saved(Image.fromarray(SMOOTH), "JPEG")
    assert same(shown(jpeg + bytes(200_000)), shown(jpeg))
