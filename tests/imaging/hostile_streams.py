"""Hostile compressed DICOM: streams that contradict the data set, bombs, fragments and offset tables."""

import gzip
import struct
import zlib
from functools import partial

import numpy as np
from pydicom import uid

from tests.dicoms import dicom
from tests.imaging.hostile import (
    CLASSIFIED,
    COLOR,
    ITEM_END,
    PIXELS,
    SEQUENCE_END,
    SMALL,
    UNDEFINED,
    Case,
    case,
    deflated,
    element,
    encapsulated,
    file_meta,
    implicit_element,
    inserted,
    item,
    restated,
    sound,
    split,
    with_text,
)
from tests.imaging.hostile_dicom import (
    ANY,
    DEFLATED,
    ENCAPSULATED,
    EXPLICIT,
    MAX,
    NEVER_WHOLE,
    frame,
)

# ---------------------------------------------------------------- the stream contradicts the data set


def lying_streams() -> list[Case]:
    cases = []
    for name, syntax in ENCAPSULATED.items():
        other = SMALL[:24]
        cases += [
            case(f"{name} half as high", partial(_holding, syntax, other), *NEVER_WHOLE),
            case(f"{name} twice as high", partial(_holding, syntax, np.vstack([SMALL, SMALL])), "corrupt", *_RLE(name)),
            case(f"{name} turned", partial(_holding, syntax, np.ascontiguousarray(SMALL.T)), "corrupt", *_RLE(name)),
            case(f"{name} in color", partial(_holding, syntax, COLOR, 8, "RGB"), "corrupt"),
            case(f"{name} garbage", partial(_bytes_as, syntax, bytes(range(256)) * 20), *NEVER_WHOLE),
            case(f"{name} zeros", partial(_bytes_as, syntax, bytes(5000)), *NEVER_WHOLE),
            case(f"{name} no marker", partial(_bytes_as, syntax, b"\0\0"), *NEVER_WHOLE),
            case(f"{name} two bytes", partial(_bytes_as, syntax, b"\xff\xd8"), *NEVER_WHOLE),
        ]
        cases += [
            case(f"{name} holds {inner}", partial(_bytes_as, syntax, frame(stream)), "corrupt")
            for inner, stream in _OTHERS.items()
            if not _reads(name, inner)
        ]
    cases += [
        case(f"{name} of 16 bits in 8", partial(_bytes_as, syntax, frame(syntax, PIXELS, 16)), "corrupt")
        for name, syntax in ENCAPSULATED.items()
        if name not in ("JPEG 8 bit", "JPEG 12 bit")
    ]
    return cases + _size_in_the_stream()


_OTHERS = {"JPEG 8 bit": uid.JPEGBaseline8Bit, "JPEG-LS": uid.JPEGLSLossless, "JPEG 2000": uid.JPEG2000Lossless}
_JPEGS = ("JPEG 8 bit", "JPEG 12 bit", "JPEG lossless")


def _RLE(name: str) -> tuple[str, ...]:  # noqa: N802
    """An RLE stream does not say its size: more than enough of it is read as far as it is wanted."""
    return (CLASSIFIED,) if name == "RLE" else ()


def _reads(name: str, inner: str) -> bool:
    """Processes of one family are told apart by the stream, and read whichever the header names."""
    return name == inner or (name in _JPEGS and inner in _JPEGS) or (name == "HTJ2K" and inner == "JPEG 2000")


def _holding(syntax: str, pixels: np.ndarray, bits: int = 8, photometric: str = "MONOCHROME2") -> bytes:
    return dicom(SMALL, syntax=syntax, encoded=[frame(syntax, pixels, bits, photometric)])


def _bytes_as(syntax: str, stream: bytes) -> bytes:
    return dicom(SMALL, syntax=syntax, encoded=[stream + bytes(len(stream) % 2)])


def _size_in_the_stream() -> list[Case]:
    """60,000 x 60,000 in the stream, in the data set, in both: refused before memory is taken."""
    cases = []
    for name, syntax in ENCAPSULATED.items():
        if name != "RLE":
            cases.append(case(f"{name} stream 60000", partial(_enormous, syntax, 60000, 48), "corrupt"))
            # Wavelets have no shortest code: how much of such a picture is there, nobody can say.
            shown = {CLASSIFIED} if name == "HTJ2K" else set()
            expected = {"corrupt", "truncated"} | shown
            cases.append(case(f"{name} both 1990", partial(_enormous, syntax, 1990, 1990), *expected))
        cases += [
            case(f"{name} header 60000", partial(_enormous, syntax, 48, 60000), "too_large"),
            case(f"{name} both 60000", partial(_enormous, syntax, 60000, 60000), "too_large"),
        ]
    return cases


def _enormous(syntax: str, stream: int, header: int) -> bytes:
    """The frame's own header and the data set claim squares of these sides; the data stay small."""
    encoded = frame(syntax)
    if syntax in (uid.JPEG2000Lossless, uid.HTJ2KLossless):
        encoded = resized_j2k(encoded, stream, stream)
    elif syntax != uid.RLELossless:
        encoded = resized_jpeg(encoded, stream, stream)
    return dicom(SMALL, syntax=syntax, encoded=[encoded], Rows=header, Columns=header)


def resized_jpeg(stream: bytes, rows: int, columns: int, **fields: int) -> bytes:
    """Another size, precision or component count in the frame header (SOF, or SOF55 of JPEG-LS)."""
    for marker in (0xC0, 0xC1, 0xC2, 0xC3, 0xF7):
        place = stream.find(bytes([0xFF, marker, 0]))
        if place > 0:
            bits, samples = fields.get("bits", stream[place + 4]), fields.get("samples", stream[place + 9])
            changed = struct.pack(">BHHB", bits, rows, columns, samples)
            return stream[: place + 4] + changed + stream[place + 10 :]
    raise ValueError


def resized_j2k(stream: bytes, rows: int, columns: int, tile: tuple[int, int] | None = None) -> bytes:
    """Another size in SIZ; one tile unless told otherwise."""
    place = stream.index(b"\xff\x51")
    size = struct.pack(">II", columns, rows)
    tiles = struct.pack(">II", *(tile or (columns, rows)))
    return stream[: place + 6] + size + stream[place + 14 : place + 22] + tiles + stream[place + 30 :]


# ---------------------------------------------------------------- bombs


def bombs() -> list[Case]:
    """Small files that would become large ones. No code here is ``out_of_memory``: each says its size beforehand."""
    stripes = np.zeros((1900, 1900), np.uint8)
    return [
        case("deflate bomb of 512 MiB", partial(_deflate_bomb, 512 << 20), "too_large"),
        case("deflate bomb before the picture", partial(_deflate_bomb, 200 << 20, behind=sound()), "too_large"),
        case("deflate within deflate", _deflated_twice, *NEVER_WHOLE, "no_pixel_data"),
        case("deflated nonsense", lambda: file_meta(DEFLATED) + b"\x07" * 500, "corrupt"),
        case("deflated nothing", lambda: file_meta(DEFLATED), "truncated"),
        case("deflated, then garbage", lambda: dicom(PIXELS, syntax=DEFLATED) + b"garbage!", CLASSIFIED, "corrupt"),
        case("RLE bomb of 400 MB", partial(_rle_bomb, 6_000_000), CLASSIFIED, "corrupt"),
        case("RLE of nothing for 3.6 megapixels", partial(_rle_void, 1900), *NEVER_WHOLE),
        case("RLE 15 segments", lambda: _bytes_as(uid.RLELossless, struct.pack("<16I", 15, *[64] * 15)), "corrupt"),
        case("RLE 2^32-1 segments", lambda: _bytes_as(uid.RLELossless, b"\xff" * 64 + bytes(99)), "corrupt"),
        case("RLE offset 2^32-1", partial(_rle_offset, UNDEFINED), *NEVER_WHOLE),
        case("RLE offset 0", partial(_rle_offset, 0), *NEVER_WHOLE),
        case("RLE offset behind the end", partial(_rle_offset, 100_000), *NEVER_WHOLE),
        case("JPEG-LS of one grey", lambda: _large(uid.JPEGLSLossless, stripes), CLASSIFIED),
        case("J2K of one grey", lambda: _large(uid.JPEG2000Lossless, stripes), CLASSIFIED),
        case("J2K tiles of 1 x 1", partial(_j2k_tiles, 1), *NEVER_WHOLE),
        case("J2K tiles of 8 x 8", partial(_j2k_tiles, 8), *NEVER_WHOLE),
        case("J2K tiles of 0 x 0", partial(_j2k_tiles, 0), *NEVER_WHOLE),
        case("J2K 16384 components", _j2k_components, "corrupt"),
        case("J2K 33 resolutions", partial(_j2k_cod, 5, 33), *NEVER_WHOLE, CLASSIFIED),
        case("J2K 65535 layers", _j2k_layers, *NEVER_WHOLE, CLASSIFIED),
        case("J2K precincts of 1 x 1", _j2k_precincts, *NEVER_WHOLE, "out_of_memory", CLASSIFIED),
        case("frames 2^31-1 of no pixel", lambda: _bare_frames(MAX), *NEVER_WHOLE),
        case("segmented palette, indirect bomb", partial(_segmented, _indirect_bomb()), "corrupt"),
        case("segmented palette, points to itself", partial(_segmented, [0, 1, 7, 2, 9, 0, 0]), "corrupt"),
        case("segmented palette, backwards", partial(_segmented, [2, 1, UNDEFINED & 0xFFFF, 0xFFFF]), "corrupt"),
        case(
            "segmented palette, linear bomb",
            partial(_segmented, [0, 1, 7] + [1, 65535, 9] * 20_000),
            "corrupt",
            CLASSIFIED,
        ),
        case("segmented palette, empty", partial(_segmented, []), "corrupt"),
        case("segmented palette, unknown opcode", partial(_segmented, [7, 7, 7]), "corrupt"),
        case("segmented palette, cut", partial(_segmented, [0, 60_000, 1, 2, 3]), "corrupt"),
        case("gzip of a file", lambda: gzip.compress(sound()), "not_an_image"),
        case("gzip of gzip", lambda: gzip.compress(gzip.compress(bytes(50 << 20))), "not_an_image"),
    ]


def _deflate_bomb(size: int, behind: bytes = b"") -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    parts = [packer.compress(element(0x9, 0x1001, "OB", b"", size))]
    parts += [packer.compress(bytes(1 << 24)) for _ in range(size >> 24)]
    parts += [packer.compress(split(behind)[1]) if behind else b"", packer.flush()]
    return file_meta(DEFLATED) + b"".join(parts)


def _deflated_twice() -> bytes:
    return file_meta(DEFLATED) + deflated(deflated(split(sound())[1]))


def _rle_bomb(size: int) -> bytes:
    return _bytes_as(uid.RLELossless, struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x00" * (size // 2))


def _rle_void(side: int) -> bytes:
    stream = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x00" * 10
    return dicom(SMALL, syntax=uid.RLELossless, encoded=[stream], Rows=side, Columns=side)


def _rle_offset(offset: int) -> bytes:
    return _bytes_as(uid.RLELossless, struct.pack("<16I", 1, offset, *[0] * 14) + b"\x81\x00" * 40)


def _large(syntax: str, pixels: np.ndarray) -> bytes:
    return dicom(pixels, syntax=syntax)


def _j2k_tiles(side: int) -> bytes:
    stream = resized_j2k(frame(uid.JPEG2000Lossless), 1990, 1990, (side, side))
    return dicom(SMALL, syntax=uid.JPEG2000Lossless, encoded=[stream], Rows=1990, Columns=1990)


def _j2k_components() -> bytes:
    stream = frame(uid.JPEG2000Lossless)
    place = stream.index(b"\xff\x51")
    more = struct.pack(">H", 38 + 3 * 16384) + stream[place + 4 : place + 38]
    stream = stream[: place + 2] + more + struct.pack(">H", 16384) + b"\x07\x01\x01" * 16384 + stream[place + 43 :]
    return _bytes_as(uid.JPEG2000Lossless, stream)


def _j2k_cod(field: int, value: int) -> bytes:
    """A byte of the coding style: 5 resolutions, 6 and 7 code-block size."""
    stream = bytearray(frame(uid.JPEG2000Lossless))
    stream[stream.index(b"\xff\x52") + 4 + field] = value
    return _bytes_as(uid.JPEG2000Lossless, bytes(stream))


def _j2k_layers() -> bytes:
    stream = bytearray(frame(uid.JPEG2000Lossless))
    place = stream.index(b"\xff\x52") + 6
    stream[place : place + 2] = b"\xff\xff"
    return _bytes_as(uid.JPEG2000Lossless, bytes(stream))


def _j2k_precincts() -> bytes:
    """Precincts of one sample each make a structure for every pixel."""
    stream = resized_j2k(frame(uid.JPEG2000Lossless), 1200, 1200)
    place = stream.index(b"\xff\x52")
    levels = stream[place + 9]
    length = struct.unpack_from(">H", stream, place + 2)[0]
    body = bytes([stream[place + 4] | 1]) + stream[place + 5 : place + 14] + b"\x11" * (levels + 1)
    stream = stream[: place + 2] + struct.pack(">H", len(body) + 2) + body + stream[place + 2 + length :]
    return dicom(SMALL, syntax=uid.JPEG2000Lossless, encoded=[stream], Rows=1200, Columns=1200)


def _bare_frames(frames: int) -> bytes:
    return with_text(dicom(SMALL[:1, :1]), 0x28, 8, "IS", str(frames))


def _segmented(words: list[int]) -> bytes:
    """A palette in segments (PS3.3 C.7.9.2)."""
    data = struct.pack(f"<{len(words)}H", *(word & 0xFFFF for word in words))
    tables = {f"Segmented{color}PaletteColorLookupTableData": data for color in ("Red", "Green", "Blue")}
    descriptors = {f"{color}PaletteColorLookupTableDescriptor": [256, 0, 16] for color in ("Red", "Green", "Blue")}
    return dicom(SMALL, photometric="PALETTE COLOR", **descriptors, **tables)


def _indirect_bomb() -> list[int]:
    """Each level repeats the one before it eight times: 8^12 entries out of a few hundred words."""
    words, start, count = [0, 4, 1, 2, 3, 4], 0, 1
    for _ in range(12):
        here = len(words)
        words += [2, count, start * 2 & 0xFFFF, 0] * 8
        start, count = here, 8
    return words


# ---------------------------------------------------------------- fragments and offset tables


def fragments() -> list[Case]:
    jpeg = frame(uid.JPEGBaseline8Bit)
    jpeg += bytes(len(jpeg) % 2)
    rle = frame(uid.RLELossless)
    empty = item(b"")

    def file(raw: bytes, **header: object) -> bytes:
        return encapsulated(raw, uid.JPEGBaseline8Bit, **header)

    table = struct.Struct("<I").pack
    good = item(jpeg)
    two = file(empty + good + good + SEQUENCE_END)
    return [
        case("as it should be", lambda: file(empty + good + SEQUENCE_END), CLASSIFIED),
        case("no offset table", lambda: file(good + SEQUENCE_END), *ANY),
        case("nothing at all", lambda: file(b""), "truncated"),
        case("delimiter alone", lambda: file(SEQUENCE_END), *NEVER_WHOLE),
        case("table alone", lambda: file(empty + SEQUENCE_END), *NEVER_WHOLE),
        case("table behind the end", lambda: file(item(table(1 << 30)) + good + SEQUENCE_END), *ANY),
        case("table 2^32-1", lambda: file(item(table(UNDEFINED)) + good + SEQUENCE_END), *ANY),
        case("table into the fragment", lambda: file(item(table(20)) + good + SEQUENCE_END), *ANY),
        case("table of 3 bytes", lambda: file(item(b"abc") + good + SEQUENCE_END), *ANY),
        case("table of 5000 entries", lambda: file(item(table(0) * 5000) + good + SEQUENCE_END), *ANY),
        case(
            "table backwards, 2 frames",
            lambda: with_text(
                two.replace(empty + good, item(table(len(good)) + table(0)) + good, 1), 0x28, 8, "IS", "2"
            ),
            *ANY,
        ),
        case("table longer than the file", lambda: file(item(b"", 1 << 30) + good + SEQUENCE_END), *NEVER_WHOLE),
        case("table of undefined length", lambda: file(item(b"", UNDEFINED) + good + SEQUENCE_END), *NEVER_WHOLE),
        case("fragment longer than the file", lambda: file(empty + item(jpeg, 1 << 30) + SEQUENCE_END), *NEVER_WHOLE),
        case("fragment of 2^32-2", lambda: file(empty + item(jpeg, UNDEFINED - 1) + SEQUENCE_END), *NEVER_WHOLE),
        case("fragment of undefined length", lambda: file(empty + item(jpeg, UNDEFINED) + SEQUENCE_END), *NEVER_WHOLE),
        case("fragment of odd length", lambda: file(empty + item(jpeg + b"\0", len(jpeg) + 1) + SEQUENCE_END), *ANY),
        case("fragment swallows the delimiter", lambda: file(empty + item(jpeg, len(jpeg) + 8) + SEQUENCE_END), *ANY),
        case("fragment of length 0", lambda: file(empty + empty + SEQUENCE_END), *NEVER_WHOLE),
        case("empty ones around a good one", lambda: file(empty + empty * 3 + good + empty * 3 + SEQUENCE_END), *ANY),
        case("100,000 empty ones", lambda: file(empty + empty * 100_000 + SEQUENCE_END), *NEVER_WHOLE),
        case("100,000 empty ones and one good", lambda: file(empty + empty * 100_000 + good + SEQUENCE_END), *ANY),
        case("one byte each", lambda: file(empty + b"".join(item(bytes([b])) for b in jpeg) + SEQUENCE_END), *ANY),
        case("no delimiter", lambda: file(empty + good), "truncated"),
        case("delimiter with a length", lambda: file(empty + good + implicit_element(0xFFFE, 0xE0DD, b"", 512)), *ANY),
        case(
            "another tag among the items",
            lambda: file(empty + element(0x10, 0x20, "LO", b"ab") + good + SEQUENCE_END),
            *NEVER_WHOLE,
        ),
        case("an item delimiter among the items", lambda: file(empty + ITEM_END + good + SEQUENCE_END), *ANY),
        case("more fragments than frames", lambda: file(empty + good * 5 + SEQUENCE_END), *ANY),
        case("2,000 fragments for 2 frames", lambda: file(empty + good * 2000 + SEQUENCE_END, NumberOfFrames=2), *ANY),
        case("native data named RLE", lambda: restated(sound(), EXPLICIT, uid.RLELossless), *NEVER_WHOLE),
        case("native data named JPEG", lambda: restated(sound(), EXPLICIT, uid.JPEGBaseline8Bit), *NEVER_WHOLE),
        case(
            "RLE named native",
            lambda: restated(
                encapsulated(empty + item(rle) + SEQUENCE_END, uid.RLELossless), uid.RLELossless, EXPLICIT
            ),
            *NEVER_WHOLE,
        ),
        *[case(f"extended offset table {n}", partial(_extended, n), *ANY) for n in (1, 1 << 40, (1 << 64) - 1)],
    ]


def _extended(offset: int) -> bytes:
    frames = [frame(uid.JPEGBaseline8Bit), frame(uid.JPEGBaseline8Bit)]
    content = dicom(np.stack([SMALL, SMALL]), syntax=uid.JPEGBaseline8Bit, encoded=frames)
    table = element(0x7FE0, 1, "OV", struct.pack("<QQ", 0, offset))
    return inserted(content, table + element(0x7FE0, 2, "OV", struct.pack("<QQ", offset, offset)))


def groups() -> dict[str, list[Case]]:
    return {"stream": lying_streams(), "bomb": bombs(), "fragment": fragments()}
