"""Pictures that lack a part of their pixels, or say of them what Pillow reads otherwise."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fracture_watch import errors
from fracture_watch.imaging.limits import Limits
from fracture_watch.imaging.raster import RasterImage

GREY = np.random.default_rng(1).integers(0, 256, (64, 64), dtype=np.uint8)
COLOR = np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def shown(content: bytes) -> np.ndarray:
    return RasterImage(content, Limits()).pixels(0)


def refused(content: bytes) -> type:
    with pytest.raises(errors.FractureWatchError) as caught:
        shown(content)
    return type(caught.value)


def saved(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


# --- TIFF


def tiff(pieces: list[bytes], offsets: int, counts: int, **numbers: list[int]) -> bytes:
    """A TIFF of strips or tiles, whose tags are ``offsets`` and ``counts``; ``numbers`` are other tags, as ``t256``."""
    starts = [8 + sum(map(len, pieces[:n])) for n in range(len(pieces))]
    tags = {int(tag[1:]): values for tag, values in numbers.items()}
    tags |= {offsets: starts, counts: [len(piece) for piece in pieces]}
    data, index = b"".join(pieces), b""
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}I", *values)
        place = packed if len(values) == 1 else struct.pack("<I", 8 + len(data))
        data += packed if len(values) > 1 else b""
        index += struct.pack("<HHI", tag, 4, len(values)) + place
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + struct.pack("<H", len(tags)) + index + bytes(4)


def strips(pixels: np.ndarray, rows: int, *, left: int | None = None, **numbers: list[int]) -> bytes:
    pieces = [pixels[start : start + rows].tobytes() for start in range(0, len(pixels), rows)]
    size = {"t256": [64], "t257": [64], "t258": [8], "t259": [1], "t262": [1], "t277": [1], "t278": [rows]}
    return tiff(pieces[:left], 273, 279, **size | numbers)


def tiles(pixels: np.ndarray, *, left: int | None = None) -> bytes:
    pieces = [pixels[row : row + 32, column : column + 32].tobytes() for row in (0, 32) for column in (0, 32)]
    size = {"t256": [64], "t257": [64], "t258": [8], "t259": [1], "t262": [1], "t322": [32], "t323": [32]}
    return tiff(pieces[:left], 324, 325, **size)


PLANES = {"t258": [8] * 3, "t262": [2], "t277": [3], "t284": [2]}


def planes(pixels: np.ndarray, rows: int, *, left: int | None = None, **numbers: list[int]) -> bytes:
    parts = [pixels[start : start + rows, :, n].tobytes() for n in range(3) for start in range(0, len(pixels), rows)]
    size = {"t256": [64], "t257": [64], "t259": [1], "t278": [rows]}
    return tiff(parts[:left], 273, 279, **size | PLANES | numbers)


def test_a_tiff_with_all_of_its_pieces_is_read():
    for rows in (16, 20, 64, 1000):
        assert np.array_equal(shown(strips(GREY, rows)), GREY)
    assert np.array_equal(shown(tiles(GREY)), GREY)
    assert np.array_equal(shown(planes(COLOR, 16)), COLOR)


def test_a_tiff_with_too_few_strips_or_tiles_is_truncated():
    assert refused(strips(GREY, 16, left=3)) is errors.Truncated
    assert refused(tiles(GREY, left=3)) is errors.Truncated
    assert refused(planes(COLOR, 16, left=11)) is errors.Truncated


def test_a_strip_of_jpeg_that_does_not_reach_its_end_is_truncated():
    smooth = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    whole = saved(Image.fromarray(smooth), "TIFF", compression="jpeg", quality=95)
    assert np.abs(shown(whole).astype(int) - smooth).max() <= 8
    entry = whole.index(struct.pack("<HHI", 279, 4, 1))
    length = int.from_bytes(whole[entry + 8 : entry + 12], "little") // 2
    assert refused(whole[: entry + 8] + length.to_bytes(4, "little") + whole[entry + 12 :]) is errors.Truncated


def test_deep_colours_plane_by_plane_are_refused_rather_than_mixed_up():
    assert refused(planes(COLOR.astype("<u2") * 257, 64, t258=[16] * 3)) is errors.Corrupt


def test_greys_multiplied_by_their_alpha_are_shown_as_they_are_over_black():
    pair = np.dstack([GREY // 2, np.full_like(GREY, 128)])
    assert np.array_equal(shown(strips(pair, 64, t258=[8, 8], t277=[2], t338=[1])), GREY // 2)


# --- PNG


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    rows: int, columns: int, data: bytes, *, bits: int = 8, kind: int = 0, passes: int = 0, more: bytes = b""
) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, bits, kind, 0, 0, passes))
    return b"\x89PNG\r\n\x1a\n" + head + more + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


PALETTE = chunk(b"PLTE", bytes(range(256)) * 3)


@pytest.mark.parametrize(
    ("kind", "bits"),
    [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (3, 1), (3, 8), (4, 8), (4, 16), (6, 8), (6, 16)],
)
@pytest.mark.parametrize("value", [0, 1, 255])
def test_a_png_with_too_few_rows_is_truncated(kind, bits, value):
    line = b"\0" + bytes([value]) * (9 * bits * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind] // 8 + (bits < 8))
    more = PALETTE if kind == 3 else b""
    assert shown(png(6, 9, line * 6, kind=kind, bits=bits, more=more)).shape[:2] == (6, 9)
    assert refused(png(6, 9, line * 5, kind=kind, bits=bits, more=more)) is errors.Truncated


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 3), (6, 9), (9, 6), (64, 64)])
def test_an_interlaced_png_that_lacks_a_row_is_truncated(size):
    picture = GREY[: size[0], : size[1]]
    data, last = b"", 0
    for top, left, down, across in zip(
        (0, 0, 4, 0, 2, 0, 1), (0, 4, 0, 2, 0, 1, 0), (8, 8, 8, 4, 4, 2, 2), (8, 8, 4, 4, 2, 2, 1), strict=True
    ):
        lines = [line.tobytes() for line in picture[top::down, left::across] if line.size]
        data += b"".join(b"\0" + line for line in lines)
        last = len(lines[-1]) + 1 if lines else last
    assert np.array_equal(shown(png(*size, data, passes=1)), picture)
    assert refused(png(*size, data[:-last], passes=1)) is errors.Truncated


def test_a_png_may_say_more_than_its_rows():
    line = b"\0" + bytes([1]) * 9
    assert np.array_equal(shown(png(6, 9, line * 6 + bytes(200_000))), np.full((6, 9), 1))


@pytest.mark.parametrize(
    ("bits", "data", "clear", "greys"),
    [
        (2, [0b00011011], 1, [0, 0, 170, 255]),
        (2, [0b00011011], 3, [0, 85, 170, 0]),
        (4, [0x0F, 0x81], 15, [0, 0, 136, 17]),
        (4, [0x0F, 0x81], 8, [0, 255, 0, 17]),
        (8, [10, 200, 100, 50], 200, [10, 0, 100, 50]),
    ],
)
def test_a_transparent_grey_of_few_bits_is_black(bits, data, clear, greys):
    transparency = chunk(b"tRNS", struct.pack(">H", clear))
    assert shown(png(1, 4, bytes([0, *data]), bits=bits, more=transparency)).tolist() == [greys]


# --- BMP


def bmp(bits: int, palette: list[int], data: bytes) -> bytes:
    """Four greys in a row; the palette's are grey, too."""
    colors = b"".join(bytes([grey] * 3 + [0]) for grey in palette)
    header = struct.pack("<IiiHHIIiiII", 40, 4, 1, 1, bits, 0, len(data), 0, 0, len(palette), 0)
    place = 14 + len(header) + len(colors)
    return b"BM" + struct.pack("<IHHI", place + len(data), 0, 0, place) + header + colors + data


def test_a_bitmap_of_more_bits_than_its_greys_take_is_refused_rather_than_mixed_up():
    assert shown(bmp(1, [0, 255], bytes([0b01100000, 0, 0, 0]))).tolist() == [[0, 255, 255, 0]]
    assert shown(bmp(8, list(range(16)), bytes([0, 1, 2, 15]))).tolist() == [[0, 1, 2, 15]]
    assert refused(bmp(8, [0, 255], bytes([0, 1, 1, 0]))) is errors.Corrupt
    assert refused(bmp(4, [0, 255], bytes([0x01, 0x10, 0, 0]))) is errors.Corrupt
    assert refused(bmp(4, list(range(16)), bytes([0x01, 0x1F, 0, 0]))) is errors.Corrupt
