"""Hostile TIFF, WebP and BMP."""

import io
import struct
import zlib
from functools import partial

import numpy as np
from PIL import Image

from tests.imaging.hostile import CLASSIFIED, COLOR, SMALL, UNDEFINED, Case, case, zipped_zeros
from tests.imaging.hostile_raster import ANY, BROKEN, MAX, noise, saved
from tests.imaging.hostile_streams import resized_jpeg

# ---------------------------------------------------------------- TIFF

_SHORT, _LONG, _SIGNED_SHORT = 3, 4, 8
Entries = dict[int, tuple[int, int, int]]


def tiff(changed: Entries | None = None, *, next_ifd: int = 0, data: bytes | None = None, order: str = "<") -> bytes:
    """A TIFF of one strip: tag -> (type, count, value). The strip stands at 8, the index behind it."""
    strip = SMALL.tobytes() if data is None else data
    entries: Entries = {
        256: (_LONG, 1, 40),
        257: (_LONG, 1, 48),
        258: (_SHORT, 1, 8),
        259: (_SHORT, 1, 1),
        262: (_SHORT, 1, 1),
        273: (_LONG, 1, 8),
        277: (_SHORT, 1, 1),
        278: (_LONG, 1, 48),
        279: (_LONG, 1, len(strip)),
    }
    entries |= changed or {}
    at = 8 + len(strip) + len(strip) % 2
    packed = b"".join(
        struct.pack(f"{order}HHI", number, kind, count & UNDEFINED)
        + (
            struct.pack(f"{order}HH", value & 0xFFFF, 0)
            if kind == _SHORT
            else struct.pack(f"{order}I", value & UNDEFINED)
        )
        for number, (kind, count, value) in sorted(entries.items())
    )
    magic = b"II*\0" if order == "<" else b"MM\0*"
    index = struct.pack(f"{order}H", len(entries)) + packed + struct.pack(f"{order}I", next_ifd & UNDEFINED)
    return magic + struct.pack(f"{order}I", at) + strip + bytes(len(strip) % 2) + index


def tiffs() -> list[Case]:
    strip = SMALL.nbytes
    deflate = 8
    return [
        case("as it should be", tiff, CLASSIFIED),
        case("big endian", lambda: tiff(order=">"), CLASSIFIED),
        case("60000 x 60000", lambda: tiff({256: (_LONG, 1, 60000), 257: (_LONG, 1, 60000)}), "too_large"),
        case("2^32-1 wide", lambda: tiff({256: (_LONG, 1, -1)}), "too_large", "corrupt"),
        case("0 wide", lambda: tiff({256: (_LONG, 1, 0)}), "corrupt"),
        case("3.9 megapixels of nothing", lambda: tiff({256: (_LONG, 1, 1990), 257: (_LONG, 1, 1990)}), *BROKEN),
        case("strip behind the end", lambda: tiff({273: (_LONG, 1, 1 << 30)}), *BROKEN),
        case("strip of 2^32-1 bytes", lambda: tiff({279: (_LONG, 1, -1)}), *ANY),
        case("strip of no bytes", lambda: tiff({279: (_LONG, 1, 0)}), *ANY),
        case("no strip", lambda: tiff({273: (_LONG, 0, 0)}), *BROKEN),
        case("2^31-1 strips", lambda: tiff({273: (_LONG, MAX, 8)}), *BROKEN),
        case("2^31-1 rows a strip", lambda: tiff({278: (_LONG, 1, MAX)}), CLASSIFIED, *BROKEN),
        case("no rows a strip", lambda: tiff({278: (_LONG, 1, 0)}), *ANY),
        case("64 bit", lambda: tiff({258: (_SHORT, 1, 64)}), "corrupt"),
        case("0 bit", lambda: tiff({258: (_SHORT, 1, 0)}), "corrupt"),
        case("65535 samples", lambda: tiff({277: (_SHORT, 1, 65535)}), "corrupt"),
        case("0 samples", lambda: tiff({277: (_SHORT, 1, 0)}), *ANY),
        case("photometric 999", lambda: tiff({262: (_SHORT, 1, 999)}), "corrupt"),
        case(
            "palette of numbers below zero",
            lambda: tiff({262: (_SHORT, 1, 3), 320: (8, 768, 8)}, data=b"\x80" * 1920),
            "corrupt",
        ),
        case("compression 999", lambda: tiff({259: (_SHORT, 1, 999)}), "corrupt"),
        case("planar 9", lambda: tiff({284: (_SHORT, 1, 9)}), *ANY),
        case("type 99", lambda: tiff({256: (99, 1, 40)}), "corrupt"),
        case("deflate bomb", lambda: tiff({259: (_SHORT, 1, deflate)}, data=zipped_zeros(256 << 20)), *ANY),
        case("deflate of noise", lambda: tiff({259: (_SHORT, 1, deflate)}, data=noise(900)), *BROKEN),
        case(
            "deflate that ends early", lambda: tiff({259: (_SHORT, 1, deflate)}, data=zlib.compress(bytes(40))), *BROKEN
        ),
        case("LZW of noise", lambda: tiff({259: (_SHORT, 1, 5)}, data=noise(900)), *BROKEN),
        case("PackBits of noise", lambda: tiff({259: (_SHORT, 1, 32773)}, data=noise(900)), *ANY),
        case("fax of noise", lambda: tiff({258: (_SHORT, 1, 1), 259: (_SHORT, 1, 4)}, data=noise(900)), *ANY),
        case("JPEG of noise", lambda: tiff({259: (_SHORT, 1, 7)}, data=noise(900)), *BROKEN),
        case(
            "JPEG of 60000 x 60000 in it",
            lambda: tiff({259: (_SHORT, 1, 7)}, data=resized_jpeg(saved("JPEG"), 60000, 60000)),
            *BROKEN,
        ),
        case("old JPEG of noise", lambda: tiff({259: (_SHORT, 1, 6)}, data=noise(900)), *BROKEN),
        case(
            "tiles of 2^31-1",
            lambda: tiff({322: (_LONG, 1, MAX), 323: (_LONG, 1, MAX), 324: (_LONG, 1, 8), 325: (_LONG, 1, strip)}),
            *ANY,
        ),
        case(
            "deflated tiles of 60000",
            lambda: tiff(
                {
                    259: (_SHORT, 1, deflate),
                    322: (_LONG, 1, 60000),
                    323: (_LONG, 1, 60000),
                    324: (_LONG, 1, 8),
                    325: (_LONG, 1, strip),
                },
                data=zipped_zeros(256 << 20)[:5000],
            ),
            *BROKEN,
        ),
        case(
            "tiles of 0",
            lambda: tiff({322: (_LONG, 1, 0), 323: (_LONG, 1, 0), 324: (_LONG, 1, 8), 325: (_LONG, 1, strip)}),
            *ANY,
        ),
        case("index points to itself", lambda: tiff(next_ifd=8 + strip), CLASSIFIED),
        case("index points to the header", lambda: tiff(next_ifd=0x4), CLASSIFIED, "corrupt"),
        case("index behind the end", lambda: tiff(next_ifd=1 << 30), CLASSIFIED, *BROKEN),
        case("first index behind the end", lambda: b"II*\0" + struct.pack("<I", 1 << 30) + bytes(100), *BROKEN),
        case("first index is the header", lambda: b"II*\0" + struct.pack("<I", 0) + bytes(100), *BROKEN),
        case(
            "index of 65535 entries",
            lambda: tiff().replace(struct.pack("<HHH", 9, 256, 4), struct.pack("<HHH", 65535, 256, 4)),
            *ANY,
        ),
        case("indexes in a ring of two", _ring, CLASSIFIED),
        case("20,000 indexes", partial(_chain, 20_000), *ANY),
        case("Exif index is the first one", lambda: tiff({34665: (_LONG, 1, 8 + strip)}), CLASSIFIED),
        case("subindexes point to themselves", lambda: tiff({330: (_LONG, 1, 8 + strip)}), CLASSIFIED),
        case("orientation 99", lambda: tiff({274: (_SHORT, 1, 99)}), CLASSIFIED),
        case("orientation of 2^31-1 values", lambda: tiff({274: (_SHORT, MAX, 6)}), *ANY),
        case("color map of nothing", lambda: tiff({262: (_SHORT, 1, 3), 320: (_SHORT, 768, 8)}), *ANY),
        case("tag twice", lambda: _with_wider(tiff()), *ANY, "too_large"),
        case("BigTIFF", lambda: b"II+\0\x08\0\0\0" + bytes(100), "not_an_image", *BROKEN),
        case("float of NaN", lambda: saved("TIFF", np.full((48, 40), np.nan, np.float32)), CLASSIFIED, "corrupt"),
        case("float of infinity", lambda: saved("TIFF", np.full((48, 40), np.inf, np.float32)), CLASSIFIED, "corrupt"),
        case("1,000 pages", lambda: _pages(1000), CLASSIFIED),
    ]


def _index_at(content: bytes) -> int:
    return struct.unpack_from("<I", content, 4)[0]


def _ring() -> bytes:
    first = tiff(next_ifd=8 + SMALL.nbytes + 2 + 9 * 12 + 4)
    index = first[_index_at(first) :]
    return first + index[:-4] + struct.pack("<I", _index_at(first))


def _chain(count: int) -> bytes:
    """Pages that share one strip, each 114 bytes."""
    first = tiff()
    start, index = _index_at(first), first[_index_at(first) :]
    pages = [index[:-4] + struct.pack("<I", start + len(index) * (n + 1)) for n in range(count)]
    return first[:start] + b"".join(pages) + index


def _with_wider(content: bytes) -> bytes:
    entry = struct.pack("<HHII", 257, 4, 1, 48)
    return content.replace(entry, struct.pack("<HHII", 256, 4, 1, 60000))


def _pages(count: int) -> bytes:
    buffer = io.BytesIO()
    pages = [Image.fromarray(SMALL[:4, :4])] * count
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:])
    return buffer.getvalue()


# ---------------------------------------------------------------- WebP, BMP


def animation(frames: int = 3) -> bytes:
    buffer = io.BytesIO()
    pages = [Image.fromarray(COLOR ^ np.uint8(n & 255)) for n in range(frames)]
    pages[0].save(buffer, "WEBP", save_all=True, append_images=pages[1:], lossless=True)
    return buffer.getvalue()


def patched(content: bytes, marker: bytes, offset: int, raw: bytes) -> bytes:
    place = content.index(marker) + offset
    return content[:place] + raw + content[place + len(raw) :]


def bmp(size: tuple[int, int] = (40, 48), bits: int = 8, compression: int = 0, **fields: int) -> bytes:
    header = struct.pack(
        "<IiiHHIIiiII", fields.get("header", 40), *size, 1, bits, compression, 0, 0, 0, fields.get("colors", 0), 0
    )
    palette = b"".join(bytes([n, n, n, 0]) for n in range(256))
    offset = fields.get("offset", 14 + 40 + 1024)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, offset) + header + palette + SMALL.tobytes()


def others() -> list[Case]:
    webp = saved("WEBP", COLOR, lossless=True)
    return [
        case("WebP as it should be", lambda: webp, CLASSIFIED),
        case("WebP animation", animation, CLASSIFIED),
        case(
            "WebP animation, canvas 2^24",
            lambda: patched(animation(), b"VP8X", 12, b"\xff" * 6),
            "too_large",
            "corrupt",
        ),
        case("WebP animation, frame of 2^24", lambda: patched(animation(), b"ANMF", 14, b"\xff" * 6), *BROKEN),
        case(
            "WebP animation, frame behind the end",
            lambda: patched(animation(), b"ANMF", 4, b"\xff\xff\xff\x7f"),
            *BROKEN,
        ),
        case("WebP animation, 65535 loops", lambda: patched(animation(), b"ANIM", 12, b"\xff\xff"), CLASSIFIED),
        case("WebP animation, last frame cut", lambda: animation()[:-60], *BROKEN),
        case("WebP animation of 200 frames", partial(animation, 200), CLASSIFIED),
        case("WebP 16384 x 16384", lambda: patched(webp, b"VP8L", 9, b"\xff\xff\xff\x0f"), "too_large", "corrupt"),
        case("WebP chunk behind the end", lambda: patched(webp, b"VP8L", 4, b"\xff\xff\xff\x7f"), *BROKEN),
        case("WebP says it is smaller", lambda: patched(webp, b"RIFF", 4, b"\x14\0\0\0"), *BROKEN),
        case("WebP says it is larger", lambda: patched(webp, b"RIFF", 4, b"\xff\xff\xff\x7f"), "truncated"),
        case("WebP of zeros", lambda: webp[:20] + bytes(len(webp) - 20), *BROKEN),
        case("BMP as it should be", bmp, CLASSIFIED),
        case("BMP 60000 x 60000", lambda: bmp((60000, 60000)), "too_large"),
        case("BMP 2^31-1 wide", lambda: bmp((MAX, 1)), "too_large", *BROKEN),
        case("BMP -40 wide", lambda: bmp((-40, 48)), *ANY, "too_large"),
        case("BMP -2^31 high", lambda: bmp((40, -(1 << 31))), "too_large", *BROKEN),
        case("BMP 0 high", lambda: bmp((40, 0)), "corrupt"),
        case("BMP 3.9 megapixels of nothing", lambda: bmp((1990, 1990)), *BROKEN),
        case("BMP 3 bit", lambda: bmp(bits=3), "corrupt"),
        case("BMP 0 bit", lambda: bmp(bits=0), "corrupt"),
        case("BMP 2^32-1 colors", lambda: bmp(colors=UNDEFINED), *BROKEN, CLASSIFIED),
        case("BMP compression 9", lambda: bmp(compression=9), "corrupt"),
        case("BMP RLE of 3.9 megapixels", lambda: bmp((1990, 1990), compression=1), *ANY),
        case("BMP JPEG inside", lambda: bmp(compression=4), "corrupt"),
        case("BMP header of 2^32-1", lambda: bmp(header=UNDEFINED), "not_an_image"),
        case("BMP pixels behind the end", lambda: bmp(offset=1 << 30), *BROKEN),
        case("BMP pixels in the header", lambda: bmp(offset=2), *ANY),
    ]


def groups() -> dict[str, list[Case]]:
    return {"TIFF": tiffs(), "WebP and BMP": others()}
