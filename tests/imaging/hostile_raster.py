"""Hostile PNG and JPEG, pictures that are cut off, and what only looks like one."""

import io
import struct
import zlib
from functools import partial

import numpy as np
from PIL import Image

from tests.dicoms import dicom
from tests.imaging.hostile import CLASSIFIED, COLOR, PIXELS, SMALL, UNDEFINED, Case, case, zipped_zeros
from tests.imaging.hostile_streams import resized_jpeg

BROKEN = "corrupt", "truncated"
ANY = (CLASSIFIED, *BROKEN)
SPOILT = CLASSIFIED, "corrupt", "too_large"
MAX = 2**31 - 1


def saved(kind: str, pixels: np.ndarray = SMALL, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


KINDS = {
    "PNG": partial(saved, "PNG"),
    "PNG 16 bit": partial(saved, "PNG", PIXELS),
    "JPEG": partial(saved, "JPEG"),
    "JPEG progressive": partial(saved, "JPEG", COLOR, progressive=True),
    "TIFF": partial(saved, "TIFF"),
    "TIFF deflate": partial(saved, "TIFF", compression="tiff_adobe_deflate"),
    "WebP": partial(saved, "WEBP", lossless=True),
    "BMP": partial(saved, "BMP"),
}
# Of each format its magic alone, and what else people drop.
MAGIC = {
    "PNG": b"\x89PNG\r\n\x1a\n",
    "JPEG": b"\xff\xd8\xff",
    "TIFF": b"II*\0",
    "TIFF big endian": b"MM\0*",
    "BMP": b"BM",
    "WebP": b"RIFF\0\0\0\0WEBP",
    "DICOM": bytes(128) + b"DICM",
}
NO_IMAGE = {
    "one byte": b"\0",
    "one letter": b"x",
    "zeros": bytes(5000),
    "FF": b"\xff" * 5000,
    "text": b"Dear colleague,\n" * 100,
    "PDF": b"%PDF-1.7\n" + bytes(1000),
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n" + b"(%pipe%id) (w) file\n" * 9,
    "SVG": b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "&a;&a;">]><svg>&a;</svg>',
    "HTML": b"<html><script>alert(1)</script></html>" * 20,
    "zip": b"PK\x03\x04" + bytes(500),
    "ELF": b"\x7fELF\x02\x01\x01" + bytes(500),
    "GIF": b"GIF89a" + bytes(500),
    "pickle": b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R.",
    "shell": b"#!/bin/sh\nrm -rf /\n",
    "RIFF WAVE": b"RIFF\x24\0\0\0WAVEfmt " + bytes(500),
}


def groups() -> dict[str, list[Case]]:
    return {
        "picture cut": cuts(),
        "no picture": no_pictures(),
        "PNG": pngs(),
        "JPEG": jpegs(),
    }


def cuts() -> list[Case]:
    return [
        case(f"{name} cut at {n}/21", partial(_cut, make, n / 21), *_of_cut(name, len(make()) * n // 21))
        for name, make in KINDS.items()
        for n in range(1, 21)
    ]


def _cut(make: partial[bytes], part: float) -> bytes:
    content = make()
    return content[: int(len(content) * part)]


def _of_cut(name: str, size: int) -> tuple[str, ...]:
    """TIFF has no end of its own, and its index may stand anywhere: what lies beyond the end was never valid."""
    if name == "WebP" and size < 12:
        return ("not_an_image",)
    return BROKEN if name.startswith("TIFF") or size < 40 else ("truncated",)


def no_pictures() -> list[Case]:
    cases = [case(f"magic of {name}", lambda magic=magic: magic, *BROKEN) for name, magic in MAGIC.items()]
    for name, magic in MAGIC.items():
        codes = ("not_an_image",) if name == "BMP" else BROKEN  # whose magic is too short to say it alone
        cases.append(case(f"{name} and garbage", lambda magic=magic: magic + noise(3000), *codes))
        cases.append(case(f"{name} and zeros", lambda magic=magic: magic + bytes(3000), *codes))
    return cases + [case(name, lambda content=content: content, "not_an_image") for name, content in NO_IMAGE.items()]


def noise(size: int) -> bytes:
    return np.random.default_rng(5).bytes(size)


# ---------------------------------------------------------------- PNG


def chunk(kind: bytes, data: bytes, length: int | None = None, crc: int | None = None) -> bytes:
    size = len(data) if length is None else length
    check = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", size & UNDEFINED) + kind + data + struct.pack(">I", check)


def png(
    *chunks: bytes,
    rows: int = 48,
    columns: int = 40,
    header: tuple[int, ...] = (8, 0, 0, 0, 0),
    idat: bytes | None = None,
) -> bytes:
    """A PNG by its parts: bit depth, colour type, compression, filter, interlace."""
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in SMALL)) if idat is None else idat
    ihdr = chunk(b"IHDR", struct.pack(">II5B", columns & UNDEFINED, rows & UNDEFINED, *header))
    return MAGIC["PNG"] + ihdr + b"".join(chunks) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def pngs() -> list[Case]:
    large = 256 << 20  # more than any worker may take here
    return [
        case("as it should be", png, CLASSIFIED),
        case("60000 x 60000", lambda: png(rows=60000, columns=60000), "too_large"),
        case("2^31-1 wide", lambda: png(rows=1, columns=MAX), "too_large"),
        case("2^32-1 wide", lambda: png(rows=-1, columns=-1), "too_large", "corrupt"),
        case("0 rows", lambda: png(rows=0), "corrupt"),
        case("3.9 megapixels of nothing", lambda: png(rows=1990, columns=1990, idat=zlib.compress(b"")), *BROKEN),
        case(  # whole by its own structure; libpng, too, shows the rest black
            "3.9 megapixels of one row",
            lambda: png(rows=1990, columns=1990, idat=zlib.compress(bytes(1991))),
            *ANY,
        ),
        case("IDAT bomb", lambda: png(idat=zipped_zeros(large)), CLASSIFIED, "corrupt"),
        case("IDAT is no zlib", lambda: png(idat=noise(900)), *BROKEN),
        case("IDAT empty", lambda: png(idat=b""), *BROKEN),
        case("no IDAT", lambda: png()[:33] + chunk(b"IEND", b""), *BROKEN),
        case("100,000 empty IDAT", lambda: png(*[chunk(b"IDAT", b"")] * 100_000), *ANY),
        case("100,000 text chunks", lambda: png(*[chunk(b"tEXt", b"a\0b")] * 100_000), *ANY),
        case(
            "zTXt bomb", lambda: png(chunk(b"zTXt", b"C\0\0" + zipped_zeros(large))), CLASSIFIED, "corrupt", "too_large"
        ),
        case(
            "500 zTXt bombs",
            lambda: png(*[chunk(b"zTXt", b"C\0\0" + zipped_zeros(1 << 20))] * 500),
            *SPOILT,
        ),
        case(
            "iTXt bomb",
            lambda: png(chunk(b"iTXt", b"C\0\1\0\0\0" + zipped_zeros(large))),
            *SPOILT,
        ),
        case(
            "iCCP bomb", lambda: png(chunk(b"iCCP", b"p\0\0" + zipped_zeros(large))), CLASSIFIED, "corrupt", "too_large"
        ),
        case("eXIf of noise", lambda: png(chunk(b"eXIf", noise(400))), CLASSIFIED),
        case("eXIf that goes round", lambda: png(chunk(b"eXIf", exif_circle()[6:])), CLASSIFIED),
        case("eXIf orientation 99", lambda: png(chunk(b"eXIf", exif(99)[6:])), CLASSIFIED),
        case("bit depth 3", lambda: png(header=(3, 0, 0, 0, 0)), "corrupt"),
        case("color type 7", lambda: png(header=(8, 7, 0, 0, 0)), "corrupt"),
        case("palette without PLTE", lambda: png(header=(8, 3, 0, 0, 0)), *ANY),
        case("PLTE of 256 colors and one", lambda: png(chunk(b"PLTE", bytes(771)), header=(8, 3, 0, 0, 0)), *ANY),
        case("tRNS too long", lambda: png(chunk(b"tRNS", bytes(5000))), *ANY),
        case("compression 9", lambda: png(header=(8, 0, 9, 0, 0)), *ANY),
        case("interlace 2", lambda: png(header=(8, 0, 0, 0, 2)), *ANY),
        case("interlaced by word only", lambda: png(header=(8, 0, 0, 0, 1)), *ANY),
        case("chunk of 2^31", lambda: png(chunk(b"tEXt", b"a\0b", 1 << 31)), *BROKEN),
        case("chunk of -1", lambda: png(chunk(b"tEXt", b"a\0b", -1)), *BROKEN),
        case("chunk without a name", lambda: png(chunk(b"\0\0\0\0", b"")), *ANY),
        case("wrong checksum of IHDR", lambda: png()[:29] + b"abcd" + png()[33:], "corrupt"),
        case("wrong checksum of IDAT", lambda: png()[:-16] + b"abcd" + png()[-12:], *ANY),
        case(
            "IHDR twice",
            lambda: png(chunk(b"IHDR", struct.pack(">II5B", 60000, 60000, 8, 0, 0, 0, 0))),
            *ANY,
            "too_large",
        ),
        case("IHDR of one byte", lambda: MAGIC["PNG"] + chunk(b"IHDR", b"a") + chunk(b"IEND", b""), *BROKEN),
        case("APNG of 2^31-1 frames", lambda: png(chunk(b"acTL", struct.pack(">II", MAX, 0))), CLASSIFIED),
        case("APNG of no frame", lambda: png(chunk(b"acTL", bytes(8))), CLASSIFIED),
        case(
            "APNG, first frame of 60000",
            lambda: png(
                chunk(b"acTL", struct.pack(">II", 2, 0)),
                chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 60000, 60000, 0, 0, 1, 1, 0, 0)),
            ),
            *ANY,
            "too_large",
        ),
        case("PNG twice", lambda: png() + png(), CLASSIFIED),
        case("PNG and a DICOM", lambda: png() + dicom(SMALL), CLASSIFIED),
        case("JPEG named by PNG's magic", lambda: MAGIC["PNG"] + saved("JPEG"), *BROKEN),
    ]


def exif(orientation: int) -> bytes:
    entry = struct.pack("<HHII", 0x112, 3, 1, orientation)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 1) + entry + bytes(4)


def exif_circle() -> bytes:
    """The Exif and GPS indexes point back to the first."""
    entries = b"".join(struct.pack("<HHII", number, 4, 1, 8) for number in (0x8769, 0x8825, 0xA005))
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 3) + entries + struct.pack("<I", 8)


# ---------------------------------------------------------------- JPEG


def segment(marker: int, data: bytes, length: int | None = None) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2 if length is None else length) + data


def with_segments(*raw: bytes, content: bytes | None = None) -> bytes:
    content = saved("JPEG") if content is None else content
    return content[:2] + b"".join(raw) + content[2:]


def jpegs() -> list[Case]:
    plain = saved("JPEG")
    whole_icc = b"ICC_PROFILE\0"
    return [
        case("as it should be", lambda: plain, CLASSIFIED),
        case("60000 x 60000", lambda: resized_jpeg(plain, 60000, 60000), "too_large"),
        case("65535 x 61", lambda: resized_jpeg(plain, 65535, 61), *ANY),
        case("0 rows", lambda: resized_jpeg(plain, 0, 40), "corrupt"),
        case("0 columns", lambda: resized_jpeg(plain, 48, 0), "corrupt"),
        case("12 bit", lambda: resized_jpeg(plain, 48, 40, bits=12), "corrupt"),
        case("0 bit", lambda: resized_jpeg(plain, 48, 40, bits=0), "corrupt"),
        case("200 components", lambda: resized_jpeg(plain, 48, 40, samples=200), "corrupt"),
        case("no components", lambda: resized_jpeg(plain, 48, 40, samples=0), "corrupt"),
        case("3.9 megapixels of nothing", lambda: resized_jpeg(plain, 1990, 1990), *BROKEN),
        case("no scan", lambda: plain[: plain.index(b"\xff\xda")] + b"\xff\xd9", *BROKEN),
        case("no tables", lambda: plain.replace(b"\xff\xc4", b"\xff\xec"), *ANY),
        case("no quantisation", lambda: plain.replace(b"\xff\xdb", b"\xff\xec"), "corrupt"),
        case("no end", lambda: plain[:-2], "truncated"),
        case("half the scan, and an end", lambda: plain[: len(plain) - 200] + b"\xff\xd9", *BROKEN),
        case("scan of zeros", lambda: plain[: plain.index(b"\xff\xda") + 10] + bytes(2000) + b"\xff\xd9", *ANY),
        case("scan of FF", lambda: plain[: plain.index(b"\xff\xda") + 10] + b"\xff" * 2000 + b"\xff\xd9", *ANY),
        case("500 scans", partial(_scans, 500), *ANY),
        case("restarts that nobody declared", lambda: plain[:-100] + b"\xff\xd0\xff\xd7" + plain[-100:], *ANY),
        case("segment of length 0", lambda: with_segments(segment(0xE5, b"", 0)), *ANY),
        case("segment of length 1", lambda: with_segments(segment(0xE5, b"", 1)), *ANY),
        case("segment longer than the file", lambda: with_segments(segment(0xE5, b"abc", 65535)), *BROKEN),
        case("100,000 comments", lambda: with_segments(segment(0xFE, b"") * 100_000), CLASSIFIED),
        case("1 MB of fill bytes", lambda: with_segments(b"\xff" * 1_000_000), *ANY),
        case(
            "65,000 profile parts",
            lambda: with_segments(*[segment(0xE2, whole_icc + b"\1\xff" + bytes(900))] * 9000),
            CLASSIFIED,
        ),
        case("profile of noise", lambda: with_segments(segment(0xE2, whole_icc + b"\1\1" + noise(900))), CLASSIFIED),
        case("Exif of noise", lambda: with_segments(segment(0xE1, b"Exif\0\0" + noise(900))), CLASSIFIED),
        case("Exif that goes round", lambda: with_segments(segment(0xE1, exif_circle())), CLASSIFIED),
        case("Exif orientation 99", lambda: with_segments(segment(0xE1, exif(99))), CLASSIFIED),
        case(
            "Exif orientation 6 twice",
            lambda: with_segments(segment(0xE1, exif(6)), segment(0xE1, exif(3))),
            CLASSIFIED,
        ),
        case("Exif of one byte", lambda: with_segments(segment(0xE1, b"Exif\0\0I")), CLASSIFIED),
        case(
            "Exif entry of 2^32-1 values",
            lambda: with_segments(
                segment(0xE1, exif(6).replace(struct.pack("<HI", 3, 1), struct.pack("<HI", 12, UNDEFINED)))
            ),
            CLASSIFIED,
        ),
        case(
            "XMP of noise",
            lambda: with_segments(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + noise(900))),
            CLASSIFIED,
        ),
        case(
            "XMP orientation by the thousand",
            lambda: with_segments(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b'tiff:Orientation="' * 3000)),
            CLASSIFIED,
        ),
        case("MPF of 2^32-1 pictures", lambda: with_segments(segment(0xE2, _mpf(UNDEFINED))), CLASSIFIED),
        case("MPF of no picture", lambda: with_segments(segment(0xE2, _mpf(0))), CLASSIFIED),
        case("MPF of noise", lambda: with_segments(segment(0xE2, b"MPF\0" + noise(300))), CLASSIFIED),
        case("Adobe transform 9", lambda: with_segments(segment(0xEE, b"Adobe\0\x64\0\0\0\0\x09")), *ANY),
        case("JPEG twice", lambda: plain + plain, CLASSIFIED),
        case("garbage behind", lambda: plain + noise(5000), CLASSIFIED),
    ]


def _scans(count: int) -> bytes:
    """A progressive picture whose last scan comes again and again: each costs a pass over the whole of it."""
    content = saved("JPEG", COLOR, progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * count + b"\xff\xd9"


def _mpf(count: int) -> bytes:
    entries = struct.pack("<HHI4s", 0xB000, 7, 4, b"0100") + struct.pack("<HHII", 0xB001, 4, 1, count)
    entries += struct.pack("<HHII", 0xB002, 7, 16, 50)
    return b"MPF\0II*\0\x08\0\0\0" + struct.pack("<H", 3) + entries + bytes(4) + bytes(16)
