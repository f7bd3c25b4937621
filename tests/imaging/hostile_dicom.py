"""Hostile DICOM: files that are cut off, headers that contradict the data, File Meta that lies."""

import struct
from functools import partial

import numpy as np
from pydicom import uid

from tests.dicoms import _ENCODE, bare, dicom
from tests.imaging.hostile import (
    CLASSIFIED,
    COLOR,
    PIXELS,
    SMALL,
    UNDEFINED,
    Case,
    case,
    element,
    implicit_element,
    replaced,
    restated,
    sound,
    split,
    with_text,
)

EXPLICIT, IMPLICIT, BIG, DEFLATED = (
    uid.ExplicitVRLittleEndian,
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
)
NATIVE = {"implicit": IMPLICIT, "explicit": EXPLICIT, "big endian": BIG, "deflated": DEFLATED}
ENCAPSULATED = {
    "RLE": uid.RLELossless,
    "JPEG 8 bit": uid.JPEGBaseline8Bit,
    "JPEG 12 bit": uid.JPEGExtended12Bit,
    "JPEG lossless": uid.JPEGLosslessSV1,
    "JPEG-LS": uid.JPEGLSLossless,
    "JPEG 2000": uid.JPEG2000Lossless,
    "HTJ2K": uid.HTJ2KLossless,
}
NEVER_WHOLE = "truncated", "corrupt"
ANY = CLASSIFIED, *NEVER_WHOLE
MAX = 2**31 - 1


def picture(syntax: str, **elements: object) -> bytes:
    """A sound file in this syntax: 12 bit where the codec can, else 8."""
    if syntax == uid.JPEGBaseline8Bit:
        return dicom(SMALL, syntax=syntax, **elements)
    return dicom(PIXELS, syntax=syntax, **({"BitsStored": 12} | elements))


def frame(syntax: str, pixels: np.ndarray = SMALL, bits: int = 8, photometric: str = "MONOCHROME2") -> bytes:
    """One encoded frame."""
    return _ENCODE[uid.UID(syntax)](pixels, bits, photometric)


# ---------------------------------------------------------------- cut off


def _cut(syntax: str, part: float) -> bytes:
    content = picture(syntax)
    return content[: int(len(content) * part)]


def _size(syntax: str) -> int:
    return len(picture(syntax))


def _cut_at(syntax: str, where: int) -> bytes:
    return picture(syntax)[:where]


def _without_delimiter() -> bytes:
    return picture(uid.RLELossless)[:-8]


def truncations() -> list[Case]:
    cases = []
    for name, syntax in (NATIVE | ENCAPSULATED).items():
        # The last byte but 9 is in every syntax the picture's own, not padding or a delimiter.
        cases += [
            case(f"{name} cut at {n}/21", partial(_cut, syntax, n / 21), *_of_stump(_size(syntax) * n // 21))
            for n in range(1, 21)
        ]
        cases.append(case(f"{name} less 9 bytes", partial(_cut_at, syntax, -9), "truncated"))
    cases += [
        case(f"explicit less {n} bytes", partial(_cut_at, EXPLICIT, -n), "truncated") for n in (1, 2, 3, 100, 1000)
    ]
    cases += [case(f"explicit, {n} bytes", partial(_cut_at, EXPLICIT, n), *_of_stump(n)) for n in _STUMPS]
    cases.append(case("no sequence delimiter", _without_delimiter, "truncated"))
    return cases


_STUMPS = (0, 1, 127, 128, 131, 132, 133, 140, 144, 150, 200)


def _of_stump(size: int) -> tuple[str, ...]:
    """A preamble alone is no image yet; with its magic it is DICOM that ends too early."""
    return ("corrupt", "truncated") if size == 0 else ("not_an_image",) if size < 132 else ("truncated",)


# ---------------------------------------------------------------- the header lies


def _us(name: str, group: int, number: int, value: int, *expected: str, base: bytes | None = None) -> Case:
    raw = element(group, number, "US", struct.pack("<H", value))
    return case(f"{name} {value}", lambda: replaced(base or sound(), group, number, raw), *expected)


def lying_headers() -> list[Case]:
    cases = [_us("Rows", 0x28, 0x10, value, *codes) for value, codes in _SIZES]
    cases += [_us("Columns", 0x28, 0x11, value, *codes) for value, codes in _SIZES]
    cases += [
        *[_us("BitsAllocated", 0x28, 0x100, n, *NEVER_WHOLE) for n in (0, 1, 7, 8, 12, 24, 32, 64, 65535)],
        *[_us("BitsStored", 0x28, 0x101, n, "corrupt") for n in (17, 200, 65535)],
        *[_us("HighBit", 0x28, 0x102, n, "corrupt") for n in (0, 10, 16, 255, 65535)],
        *[_us("SamplesPerPixel", 0x28, 2, n, "corrupt") for n in (0, 2, 3, 4, 65535)],
        _us("PixelRepresentation", 0x28, 0x103, 7, "corrupt", CLASSIFIED),
        case("Rows absent", lambda: dicom(PIXELS, Rows=None), "corrupt"),
        case("Columns absent", lambda: dicom(PIXELS, Columns=None), "corrupt"),
        case("BitsAllocated absent", lambda: dicom(PIXELS, BitsAllocated=None), "corrupt"),
        case("no photometric", lambda: dicom(PIXELS, PhotometricInterpretation=None), "corrupt"),
        case("photometric FOO", lambda: dicom(PIXELS, PhotometricInterpretation="FOO"), "corrupt"),
        case("photometric CMYK", lambda: dicom(SMALL, PhotometricInterpretation="CMYK"), "corrupt"),
        case("gray said to be RGB", lambda: dicom(SMALL, PhotometricInterpretation="RGB"), "corrupt"),
        case(
            "RGB of 1 sample",
            lambda: dicom(SMALL, PhotometricInterpretation="RGB", SamplesPerPixel=None),
            *NEVER_WHOLE,
        ),
        case("color said to be gray", lambda: dicom(COLOR, photometric="RGB", SamplesPerPixel=1), "corrupt"),
        case(
            "planar 9",
            lambda: dicom(COLOR, photometric="RGB").replace(
                element(0x28, 6, "US", b"\0\0"), element(0x28, 6, "US", b"\x09\0")
            ),
            "corrupt",
            CLASSIFIED,
        ),
        case("two Rows", lambda: replaced(sound(), 0x28, 0x10, element(0x28, 0x10, "US", b"\x30\0\x30\0")), *ANY),
        case("Rows of one byte", lambda: replaced(sound(), 0x28, 0x10, element(0x28, 0x10, "US", b"\x30")), "corrupt"),
        case("Rows empty", lambda: replaced(sound(), 0x28, 0x10, element(0x28, 0x10, "US", b"")), "corrupt"),
        case("palette without tables", lambda: dicom(SMALL, photometric="PALETTE COLOR"), "corrupt"),
    ]
    return cases + _frame_counts()


_SIZES = (
    (0, ("corrupt",)),
    (49, ("truncated",)),
    (96, ("truncated",)),
    (60000, ("truncated",)),
    (65535, ("truncated",)),
)


def _frame_counts() -> list[Case]:
    counts = {"2": ("truncated",), str(MAX): ("truncated",), "9" * 12: ("truncated",)}
    counts |= dict.fromkeys(("0", "-5", "abc", "", "1e400", "nan"), (CLASSIFIED, "corrupt"))
    native = [
        case(f"frames {count!r}", partial(with_text, sound(), 0x28, 8, "IS", count), *codes)
        for count, codes in counts.items()
    ]
    streams = [
        case(
            f"{name} frames {count}",
            partial(with_text, picture(syntax), 0x28, 8, "IS", count),
            *NEVER_WHOLE,
        )
        for name, syntax in ENCAPSULATED.items()
        for count in ("2", "1000", str(MAX))
    ]
    return native + streams


# ---------------------------------------------------------------- File Meta and what stands before it


def metas() -> list[Case]:
    meta, data = split(sound())
    syntax = element(2, 0x10, "UI", EXPLICIT.encode() + b"\0")

    def group_length(value: int) -> bytes:
        return meta[:140] + struct.pack("<I", value & UNDEFINED) + meta[144:] + data

    def again(other: str) -> bytes:
        second = element(2, 0x10, "UI", other.encode() + bytes(len(other) % 2))
        longer = meta.replace(syntax, syntax + second)
        return longer[:140] + struct.pack("<I", len(longer) - 144) + longer[144:] + data

    def encoded(stated: str, actual: str) -> bytes:
        return restated(picture(actual), actual, stated)

    cases = [case(f"group length {n}", partial(group_length, n), CLASSIFIED) for n in (0, 1, 60, 5000, MAX, -1)]
    cases += [
        case("syntax stated twice, then deflated", partial(again, DEFLATED), *NEVER_WHOLE, CLASSIFIED),
        case("syntax stated twice, then big endian", partial(again, BIG), *ANY),
        case("syntax stated twice, then RLE", partial(again, uid.RLELossless), *ANY),
        case("syntax 1.2.3", lambda: restated(sound(), EXPLICIT, "1.2.3"), "unsupported_transfer_syntax"),
        case("syntax MPEG2", lambda: restated(sound(), EXPLICIT, uid.MPEG2MPML), "unsupported_transfer_syntax"),
        case(
            "syntax of a SOP class",
            lambda: restated(sound(), EXPLICIT, uid.CTImageStorage),
            "unsupported_transfer_syntax",
        ),
        case(
            "syntax of text",
            lambda: restated(sound(), EXPLICIT, "<b>../..\n"),
            "unsupported_transfer_syntax",
            "corrupt",
        ),
        case(
            "syntax of 60,000 bytes",
            lambda: restated(sound(), EXPLICIT, "1." * 30_000),
            "unsupported_transfer_syntax",
            "corrupt",
        ),
        case("syntax empty", lambda: restated(sound(), EXPLICIT, ""), CLASSIFIED),
        case("syntax absent", lambda: sound().replace(syntax, b""), CLASSIFIED),
        case("no File Meta but the magic", lambda: sound()[:132] + data, CLASSIFIED),
        case("File Meta alone", lambda: meta, "truncated"),
        case("File Meta twice", lambda: meta + meta[132:] + data, *ANY),
        case("explicit named implicit", lambda: encoded(IMPLICIT, EXPLICIT), CLASSIFIED, "corrupt"),
        case("implicit named explicit", lambda: encoded(EXPLICIT, IMPLICIT), CLASSIFIED, "corrupt"),
        case("big endian named explicit", lambda: encoded(EXPLICIT, BIG), *NEVER_WHOLE),
        case("explicit named big endian", lambda: encoded(BIG, EXPLICIT), *NEVER_WHOLE),
        case("deflated named explicit", lambda: encoded(EXPLICIT, DEFLATED), *NEVER_WHOLE),
        case("explicit named deflated", lambda: encoded(DEFLATED, EXPLICIT), *NEVER_WHOLE),
        case("implicit named deflated", lambda: encoded(DEFLATED, IMPLICIT), *NEVER_WHOLE),
        case("no preamble, explicit", lambda: bare(sound()), CLASSIFIED),
        case("no preamble, implicit", lambda: bare(sound(), implicit=True), CLASSIFIED),
        case("no preamble, big endian", lambda: split(dicom(PIXELS, syntax=BIG, BitsStored=12))[1], CLASSIFIED),
        case("no preamble, deflated", lambda: split(dicom(PIXELS, syntax=DEFLATED))[1], "not_an_image"),
        case("no preamble, File Meta", lambda: sound()[132:], CLASSIFIED),
        case("no preamble, DICM", lambda: sound()[128:], *ANY, "not_an_image"),
        case("preamble of a TIFF", lambda: b"II*\0\x08\0\0\0" + sound()[8:], CLASSIFIED),
        case("preamble of a PNG", lambda: b"\x89PNG\r\n\x1a\n" + sound()[8:], CLASSIFIED),
        case("magic in lower case", lambda: sound().replace(b"DICM", b"dicm"), "not_an_image"),
        case("command set first", lambda: meta + implicit_element(0, 0, bytes(4)) + data, *ANY),
        case("no preamble, JPEG", lambda: bare(picture(uid.JPEGBaseline8Bit)), *NEVER_WHOLE, CLASSIFIED),
    ]
    return cases


def groups() -> dict[str, list[Case]]:
    return {"cut": truncations(), "header": lying_headers(), "meta": metas()}
