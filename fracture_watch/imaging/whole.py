"""Whether a picture file holds all of its pixels, where Pillow leaves the rest black and says nothing."""

import zlib
from collections.abc import Iterator
from typing import Any

from PIL import ExifTags, Image

from fracture_watch.errors import Corrupt, Truncated

_TAGS = ExifTags.Base
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # TIFF 6.0, section 15
_TILES, _STRIPS = (324, 325), (_TAGS.StripOffsets, _TAGS.StripByteCounts)
_JPEG = 7  # TIFF's Compression
_PLANES = 2  # TIFF's PlanarConfiguration: a plane for each colour
_END_OF_JPEG = b"\xff\xd9"
_TAIL = 16  # bytes at the end of a piece, in which it has to be
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of PNG's colour types
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
_STEP = 1 << 16  # bytes
ENDED_TOO_EARLY = "the picture ends too early; send it again from its source"


def check_tiff(content: bytes, tags: Any) -> None:
    """Hold strips or tiles to the size that the directory states (TIFF 6.0, sections 3 and 15).

    Raises
    ------
    Truncated
        If there are too few, or one of JPEG does not reach its end.
    Corrupt
        If Pillow would mix the bytes of deep colours up.
    """
    planes = tags.get(_TAGS.SamplesPerPixel, 1) if tags.get(_TAGS.PlanarConfiguration) == _PLANES else 1
    if planes > 1 and tags.get(_TAGS.Compression) == 1 and max(tags.get(_TAGS.BitsPerSample, (1,))) > 8:
        raise Corrupt(
            "its colours have more than 8 bits and stand plane by plane, uncompressed, which no decoder here reads; "
            "save it with PlanarConfiguration 1"
        )
    rows, columns = tags[_TAGS.ImageLength], tags[_TAGS.ImageWidth]
    tiled = _STRIPS[0] not in tags
    high = tags[_TILE_LENGTH] if tiled else tags.get(_TAGS.RowsPerStrip, rows)
    wide = tags[_TILE_WIDTH] if tiled else columns
    offsets, counts = (tags.get(tag, ()) for tag in (_TILES if tiled else _STRIPS))
    if len(offsets) < -(-rows // max(1, high)) * -(-columns // max(1, wide)) * planes:
        raise Truncated(ENDED_TOO_EARLY)
    if tags.get(_TAGS.Compression) == _JPEG:
        ends = (start + count for start, count in zip(offsets, counts, strict=False))
        if any(_END_OF_JPEG not in content[max(0, end - _TAIL) : end] for end in ends):
            raise Truncated(ENDED_TOO_EARLY)


def mark_png(image: Image.Image) -> None:
    """Before a PNG is decoded: fill its canvas, so that rows that nobody writes stand out."""
    image.im = _canvas(image, image.height).im


def check_png(content: bytes, image: Image.Image) -> None:
    """After a marked PNG was decoded: count what is compressed in it if its last row was not written, as it seems.

    To count takes nearly as long as to decode, so it is not done for every picture.

    Raises
    ------
    Truncated
        If there are fewer bytes than the size that IHDR states takes (PNG, sections 8 and 11.2.1).
    """
    interlaced = bool(content[28])
    last = image.crop((0, image.height - 1, *image.size))
    if interlaced or last.tobytes() == _canvas(image, 1).tobytes():
        wanted = _wanted(content, interlaced=interlaced)
        if _inflated(content, wanted) < wanted:
            raise Truncated(ENDED_TOO_EARLY)


def _canvas(image: Image.Image, rows: int) -> Image.Image:
    return Image.new(image.mode, (image.width, rows), 1)


def _wanted(content: bytes, *, interlaced: bool) -> int:
    """How many bytes the rows of all passes take, each with the byte that names its filter."""
    columns, rows = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    bits = content[24] * _CHANNELS[content[25]]
    wanted = 0
    for top, left, down, across in _PASSES if interlaced else ((0, 0, 1, 1),):
        high, wide = -(-(rows - top) // down), -(-(columns - left) // across)
        wanted += high * (1 + -(-wide * bits // 8)) if wide > 0 else 0
    return wanted


def _inflated(content: bytes, most: int) -> int:
    """How many bytes its IDAT chunks hold; no more are counted than there may be."""
    inflater, found = zlib.decompressobj(), 0
    for data in _image_data(content):
        for start in range(0, len(data), _STEP):  # what is pending is copied at every turn
            pending = data[start : start + _STEP]
            while pending and found < most:
                found += len(inflater.decompress(pending, _STEP))
                pending = inflater.unconsumed_tail
    return found + len(inflater.flush()) if found < most else found


def _image_data(content: bytes) -> Iterator[bytes]:
    position = 8
    while position < len(content):
        length = int.from_bytes(content[position : position + 4], "big")
        if content[position + 4 : position + 8] == b"IDAT":
            yield content[position + 8 : position + 8 + length]
        position += 12 + length
