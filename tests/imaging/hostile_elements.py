"""Hostile DICOM elements: nesting, counting, lengths, value representations and values."""

import struct
from functools import partial

import numpy as np
from pydicom import Dataset, Sequence, uid

from tests.dicoms import dicom
from tests.imaging.hostile import (
    CLASSIFIED,
    ITEM_END,
    PIXELS,
    SEQUENCE_END,
    SMALL,
    UNDEFINED,
    Case,
    case,
    deflated,
    element,
    file_meta,
    implicit_element,
    inserted,
    item,
    replaced,
    sound,
    split,
    tag,
    with_text,
)
from tests.imaging.hostile_dicom import (
    ANY,
    DEFLATED,
    IMPLICIT,
    MAX,
    NEVER_WHOLE,
    picture,
)

# ---------------------------------------------------------------- nesting and counting


def nesting() -> list[Case]:
    depth = 20_000
    return [
        case("undefined, explicit", partial(_nested, depth, None, False), "corrupt", CLASSIFIED),
        case("undefined, implicit", partial(_nested, depth, None, True), "corrupt", CLASSIFIED),
        case("explicit length, explicit VR", partial(_nested, 20_000, 1, False), "corrupt", CLASSIFIED),
        case("explicit length, implicit VR", partial(_nested, 20_000, 1, True), "corrupt", CLASSIFIED),
        case("undefined, never closed", partial(_opened, depth), *NEVER_WHOLE),
        case("in the VOI LUT", partial(_nested, depth, None, False, (0x28, 0x3010)), "corrupt", CLASSIFIED),
        case("in the VOI LUT by length", partial(_nested, depth, 1, False, (0x28, 0x3010)), "corrupt", CLASSIFIED),
        case("in the Modality LUT by length", partial(_nested, depth, 1, False, (0x28, 0x3000)), "corrupt", CLASSIFIED),
        case("in a UN of undefined length", partial(_un_nested, depth), "corrupt", CLASSIFIED),
        case("deflated", lambda: _redeflated(_nested(depth, None, False)), "corrupt", CLASSIFIED),
        case("in the File Meta", partial(_nested_meta, depth), *ANY),
        case("400 deep", partial(_nested, 400, None, False), "corrupt", CLASSIFIED),
        case("100,000 empty items", partial(_many_items, item(b"") * 100_000), "corrupt", "too_large", CLASSIFIED),
        case(
            "100,000 empty items in the VOI LUT",
            partial(_many_items, item(b"") * 100_000, (0x28, 0x3010)),
            *("corrupt", "too_large", CLASSIFIED),
        ),
        case(
            "100,000 open items",
            partial(_many_items, (item(b"", UNDEFINED) + ITEM_END) * 100_000),
            *("corrupt", "too_large", CLASSIFIED),
        ),
        case("100,000 sequences", lambda: inserted(sound(), _private_sequences(100_000)), *_MANY),
        case("100,000 elements", lambda: inserted(sound(), _private_elements(100_000)), *_MANY),
        case(
            "one tag 100,000 times", lambda: inserted(sound(), element(0x29, 0x1001, "UL", bytes(4)) * 100_000), *_MANY
        ),
        case("100,000 delimiters", lambda: inserted(sound(), SEQUENCE_END * 100_000), *ANY),
        case("100,000 window values", lambda: _windows(100_000), CLASSIFIED, "corrupt"),
        case("zero-length item for ever", lambda: inserted(sound(), _zero_sequence()), *ANY),
    ]


_MANY = ("corrupt", "too_large", CLASSIFIED)


def _nested(depth: int, explicit: int | None, implicit: bool, where: tuple[int, int] = (0x40, 0x275)) -> bytes:
    """A sequence in a sequence in a sequence, before the picture."""
    raw = _by_length(depth, implicit, where) if explicit else _undefined(depth, implicit, where)
    if implicit:
        return inserted(dicom(PIXELS, syntax=IMPLICIT), raw)
    return inserted(sound(), raw)


def _undefined(depth: int, implicit: bool, where: tuple[int, int]) -> bytes:
    head = implicit_element(*where, b"", UNDEFINED) if implicit else element(*where, "SQ", b"", UNDEFINED)
    return (head + item(b"", UNDEFINED)) * depth + (ITEM_END + SEQUENCE_END) * depth


def _by_length(depth: int, implicit: bool, where: tuple[int, int]) -> bytes:
    head = 8 if implicit else 12
    heads = []
    for level in range(depth):
        rest = (depth - level - 1) * (head + 8)
        opened = implicit_element(*where, b"", rest + 8) if implicit else element(*where, "SQ", b"", rest + 8)
        heads.append(opened + item(b"", rest))
    return b"".join(heads)


def _opened(depth: int) -> bytes:
    return inserted(sound(), (element(0x40, 0x275, "SQ", b"", UNDEFINED) + item(b"", UNDEFINED)) * depth)


def _un_nested(depth: int) -> bytes:
    raw = item(_undefined(depth, True, (0x40, 0x275)), UNDEFINED) + ITEM_END + SEQUENCE_END
    return inserted(sound(), element(0x29, 0x1001, "UN", raw, UNDEFINED))


def _nested_meta(depth: int) -> bytes:
    meta, data = split(sound())
    return meta + _undefined(depth, False, (2, 0x200)) + data


def _redeflated(content: bytes) -> bytes:
    return file_meta(DEFLATED) + deflated(split(content)[1])


def _many_items(items: bytes, where: tuple[int, int] = (0x40, 0x275)) -> bytes:
    return inserted(sound(), element(*where, "SQ", items + SEQUENCE_END, UNDEFINED))


def _private_sequences(count: int) -> bytes:
    return b"".join(element(0x29 + 2 * (n >> 15), 0x1000 + (n & 0x7FFF), "SQ", b"") for n in range(count))


def _private_elements(count: int) -> bytes:
    return b"".join(element(0x29 + 2 * (n >> 15), 0x1000 + (n & 0x7FFF), "LO", b"") for n in range(count))


def _windows(count: int) -> bytes:
    values = b"\\".join([b"1"] * count)
    raw = element(0x28, 0x1050, "UN", values) + element(0x28, 0x1051, "UN", values)
    return inserted(sound(), raw)


def _zero_sequence() -> bytes:
    return element(0x40, 0x275, "SQ", bytes(4096), 4096)


# ---------------------------------------------------------------- lengths, VRs, values


def elements() -> list[Case]:
    return _lengths() + _vrs() + _values()


def _lengths() -> list[Case]:
    pixel_data = element(0x7FE0, 0x10, "OW", PIXELS.tobytes())
    head = sound()[: sound().index(tag(0x7FE0, 0x10), 132)]
    return [
        case(
            "length behind the end", lambda: inserted(sound(), element(0x29, 0x1001, "OB", b"", 1 << 30)), *NEVER_WHOLE
        ),
        case("length 2^32-2", lambda: inserted(sound(), element(0x29, 0x1001, "OB", b"", UNDEFINED - 1)), *NEVER_WHOLE),
        case(
            "undefined length of OB",
            lambda: inserted(sound(), element(0x29, 0x1001, "OB", b"", UNDEFINED)),
            *NEVER_WHOLE,
        ),
        case(
            "undefined length of UT",
            lambda: inserted(sound(), element(0x29, 0x1001, "UT", b"", UNDEFINED)),
            *NEVER_WHOLE,
        ),
        case("length too small", lambda: inserted(sound(), element(0x29, 0x1001, "LO", b"abcdef", 4)), *ANY),
        case("odd length", lambda: inserted(sound(), element(0x29, 0x1001, "LO", b"abc")), CLASSIFIED),
        case("US of three bytes", lambda: inserted(sound(), element(0x29, 0x1001, "US", b"abc")), CLASSIFIED),
        case("FD of five bytes", lambda: inserted(sound(), element(0x29, 0x1001, "FD", b"abcde")), CLASSIFIED),
        case("AT of one byte", lambda: inserted(sound(), element(0x29, 0x1001, "AT", b"a")), CLASSIFIED),
        case("SQ of one byte", lambda: inserted(sound(), element(0x29, 0x1001, "SQ", b"a")), CLASSIFIED, "corrupt"),
        case(
            "item longer than its sequence",
            lambda: inserted(sound(), element(0x40, 0x275, "SQ", item(b"", 9999))),
            *ANY,
        ),
        case("item in no sequence", lambda: inserted(sound(), item(b"abcd")), *ANY),
        case("pixel data empty", lambda: head + element(0x7FE0, 0x10, "OW", b""), "truncated"),
        case(
            "pixel data of undefined length",
            lambda: head + element(0x7FE0, 0x10, "OW", PIXELS.tobytes(), UNDEFINED),
            *NEVER_WHOLE,
        ),
        case(
            "pixel data say twice their length",
            lambda: head + element(0x7FE0, 0x10, "OW", PIXELS.tobytes(), 7680),
            "truncated",
        ),
        case(
            "pixel data say half their length",
            lambda: head + element(0x7FE0, 0x10, "OW", PIXELS.tobytes(), 1920),
            *NEVER_WHOLE,
        ),
        case("pixel data twice as long", lambda: head + element(0x7FE0, 0x10, "OW", PIXELS.tobytes() * 2), CLASSIFIED),
        case("pixel data twice", lambda: head + pixel_data * 2, CLASSIFIED, "corrupt"),
        case(
            "pixel data before the header",
            lambda: split(sound())[0] + pixel_data + split(head)[1],
            CLASSIFIED,
            "corrupt",
        ),
        case(
            "pixel data in an item",
            lambda: head + element(0x88, 0x200, "SQ", item(pixel_data)),
            "truncated",
            "no_pixel_data",
        ),
        case(
            "pixel data and float pixel data", lambda: head + element(0x7FE0, 8, "OF", bytes(7680)) + pixel_data, *ANY
        ),
        case("zeros after the data set", lambda: sound() + bytes(5000), CLASSIFIED),
        case("one zero after the data set", lambda: sound() + b"\0", CLASSIFIED),
        case("text after the data set", lambda: sound() + b"and so on\r\n" * 20, *ANY),
        case("FF after the data set", lambda: sound() + b"\xff" * 500, *ANY),
        case("the file twice", lambda: sound() + sound(), *ANY),
        case("zeros after a compressed one", lambda: picture(uid.RLELossless) + bytes(512), CLASSIFIED),
        case("text after a compressed one", lambda: picture(uid.RLELossless) + b"and so on\r\n" * 20, *ANY),
        case("trailing padding element", lambda: sound() + element(0xFFFC, 0xFFFC, "OB", bytes(100)), CLASSIFIED),
    ]


def _vrs() -> list[Case]:
    rows = struct.pack("<H", 48)

    def with_rows(vr: bytes) -> bytes:
        return replaced(sound(), 0x28, 0x10, element(0x28, 0x10, vr, rows))

    def with_pixel_vr(vr: bytes) -> bytes:
        content = sound()
        place = content.index(tag(0x7FE0, 0x10), 132)
        return content[:place] + tag(0x7FE0, 0x10) + vr + content[place + 6 :]

    odd = {"XX": b"XX", "lower case": b"us", "blank": b"  ", "zeros": b"\0\0", "digits": b"42", "FF": b"\xff\xff"}
    return [
        case("Rows as UN", lambda: with_rows(b"UN"), CLASSIFIED),
        case("Rows as OB", lambda: with_rows(b"OB"), *ANY),
        case("Rows as SS", lambda: with_rows(b"SS"), CLASSIFIED),
        case("Rows as LO", lambda: with_rows(b"LO"), "corrupt"),
        case("Rows as SQ", lambda: with_rows(b"SQ"), "corrupt"),
        case(
            "Rows as DS", lambda: replaced(sound(), 0x28, 0x10, element(0x28, 0x10, "DS", b"48")), CLASSIFIED, "corrupt"
        ),
        case("Rows of 10^300", lambda: replaced(sound(), 0x28, 0x10, element(0x28, 0x10, "DS", b"1e300 ")), "corrupt"),
        case("Rows as PN", lambda: with_rows(b"PN"), "corrupt"),
        *[case(f"Rows as {name}", partial(with_rows, vr), *ANY) for name, vr in odd.items()],
        *[
            case(f"private {name}", lambda vr=vr: inserted(sound(), element(0x29, 0x1001, vr, b"abcd")), *ANY)
            for name, vr in odd.items()
        ],
        case("pixel data as UN", lambda: with_pixel_vr(b"UN"), CLASSIFIED),
        case("pixel data as OB", lambda: with_pixel_vr(b"OB"), CLASSIFIED),
        case("pixel data as OF", lambda: with_pixel_vr(b"OF"), CLASSIFIED, "corrupt"),
        case("pixel data as UT", lambda: with_pixel_vr(b"UT"), CLASSIFIED, "corrupt"),
        case("pixel data as SQ", lambda: with_pixel_vr(b"SQ"), *NEVER_WHOLE),
        case("pixel data as ow", lambda: with_pixel_vr(b"ow"), *ANY),
        case("pixel data as LO", lambda: with_pixel_vr(b"LO"), *NEVER_WHOLE),
        case("pixel data as FL", lambda: with_pixel_vr(b"FL"), *NEVER_WHOLE),
        case("pixel data as ZZ", lambda: with_pixel_vr(b"ZZ"), *NEVER_WHOLE),
        case(
            "PatientID as OB",
            lambda: replaced(sound(), 0x10, 0x20, element(0x10, 0x20, "OB", b"\xff\0\x1b[31m")),
            CLASSIFIED,
        ),
        case(
            "PatientID as SQ", lambda: replaced(sound(), 0x10, 0x20, element(0x10, 0x20, "SQ", item(b""))), CLASSIFIED
        ),
        case(
            "PatientID as a broken SQ",
            lambda: replaced(sound(), 0x10, 0x20, element(0x10, 0x20, "SQ", item(item(b"")))),
            CLASSIFIED,
        ),
        case("PatientID as FD", lambda: replaced(sound(), 0x10, 0x20, element(0x10, 0x20, "FD", bytes(8))), CLASSIFIED),
        case(
            "Modality as SQ",
            lambda: replaced(sound(), 8, 0x60, element(8, 0x60, "SQ", item(b""))),
            CLASSIFIED,
            "out_of_scope",
            "corrupt",
        ),
        case("StudyDate as US", lambda: replaced(sound(), 8, 0x20, element(8, 0x20, "US", b"ab")), CLASSIFIED),
        case("photometric as US", lambda: replaced(sound(), 0x28, 4, element(0x28, 4, "US", b"ab")), "corrupt"),
        case("window as SQ", lambda: inserted(sound(), element(0x28, 0x1050, "SQ", item(b""))), CLASSIFIED),
    ]


_BAD_NUMBERS = (
    "abc",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "-1e308",
    "1e308",
    "1e-320",
    "0",
    "-1",
    "",
    "1\\\\2",
    "\0",
    "0x10",
)


def _values() -> list[Case]:
    keywords = {
        "center": (0x28, 0x1050, "DS"),
        "width": (0x28, 0x1051, "DS"),
        "intercept": (0x28, 0x1052, "DS"),
        "slope": (0x28, 0x1053, "DS"),
    }
    windowed = dicom(PIXELS, BitsStored=12, WindowCenter=2048, WindowWidth=4096)
    cases = [
        case(f"{name} {value!r}", partial(with_text, windowed, *where, value), CLASSIFIED)
        for name, where in keywords.items()
        for value in _BAD_NUMBERS
    ]
    spacing = (
        "60000\\1",
        "1\\60000",
        "0\\0",
        "-1\\1",
        "abc\\def",
        "1e308\\1e-308",
        "1e-320\\1e-320",
        "nan\\nan",
        "1",
        "1\\2\\3",
    )
    cases += [case(f"PixelSpacing {v}", partial(with_text, sound(), 0x28, 0x30, "DS", v), CLASSIFIED) for v in spacing]
    ratios = ("60000\\1", "1\\60000", f"{MAX}\\1", "0\\0", "1\\0", "-3\\1", "abc", "1")
    cases += [
        case(f"PixelAspectRatio {v}", partial(with_text, sound(), 0x28, 0x34, "IS", v), CLASSIFIED) for v in ratios
    ]
    large = np.zeros((1000, 1000), np.uint8)
    return [
        *cases,
        case(
            "PixelAspectRatio 16:1 of a megapixel",
            lambda: with_text(dicom(large), 0x28, 0x34, "IS", "16\\1"),
            "too_large",
            CLASSIFIED,
        ),
        *_luts(),
        *_geometry(),
        *_texts(),
        *_floats(),
        *_kinds(),
    ]


def _luts() -> list[Case]:
    """A broken table is left out; a broken palette leaves no picture."""

    def table(sequence: str, descriptor: list[int], data: bytes) -> bytes:
        entry = Dataset()
        entry.LUTDescriptor, entry.LUTData = descriptor, data
        entry["LUTDescriptor"].VR, entry["LUTData"].VR = "US", "OW"
        return dicom(PIXELS, BitsStored=12, **{sequence: Sequence([entry])})

    def palette(descriptor: list[int], data: bytes) -> bytes:
        colors = ("Red", "Green", "Blue")
        parts = {f"{color}PaletteColorLookupTableDescriptor": descriptor for color in colors}
        parts |= {f"{color}PaletteColorLookupTableData": data for color in colors}
        return dicom(SMALL, photometric="PALETTE COLOR", **parts)

    lies = {
        "65536 entries of 2": ([0, 0, 16], b"\1\2\3\4"),
        "256 entries of none": ([256, 0, 16], b""),
        "0 bits": ([2, 0, 0], b"\1\2\3\4"),
        "65535 bits": ([2, 0, 65535], b"\1\2\3\4"),
        "two numbers": ([2, 0], b"\1\2\3\4"),
        "no number": ([], b"\1\2\3\4"),
    }
    cases = [case(f"palette, {name}", partial(palette, *lie), "corrupt") for name, lie in lies.items()]
    cases += [
        case(f"{sequence}, {name}", partial(table, sequence, *lie), CLASSIFIED)
        for sequence in ("VOILUTSequence", "ModalityLUTSequence")
        for name, lie in lies.items()
    ]
    first = case("VOI LUT far away", partial(table, "VOILUTSequence", [2, 65535, 16], b"\1\2\3\4"), CLASSIFIED)
    return [*cases, first, case("VOI LUT empty item", lambda: dicom(PIXELS, VOILUTSequence=[Dataset()]), CLASSIFIED)]


def _geometry() -> list[Case]:
    """Shutters that cannot be meant."""
    wild = (f"{MAX}", f"-{MAX}", "99999999999999", "abc", "")

    def shutter(shape: str, **elements: tuple[int, str]) -> bytes:
        raw = element(0x18, 0x1600, "CS", shape.encode() + b" " * (len(shape) % 2))
        for number, value in elements.values():
            raw += element(0x18, number, "IS", value.encode() + b" " * (len(value) % 2))
        return inserted(sound(), raw, tag(0x28, 2))

    cases = [
        case(
            f"rectangular {v!r}",
            partial(shutter, "RECTANGULAR", a=(0x1602, v), b=(0x1604, v), c=(0x1606, v), d=(0x1608, v)),
            CLASSIFIED,
        )
        for v in wild
    ]
    cases += [
        case(f"circular {v!r}", partial(shutter, "CIRCULAR", a=(0x1610, "9\\9"), b=(0x1612, v)), CLASSIFIED)
        for v in wild
    ]
    corners = "\\".join(str(n * 7919 % 48) for n in range(20_000))
    cases += [
        case("polygonal, 10,000 corners", partial(shutter, "POLYGONAL", a=(0x1620, corners)), CLASSIFIED),
        case(
            "polygonal, far away",
            partial(shutter, "POLYGONAL", a=(0x1620, f"{MAX}\\-{MAX}\\-{MAX}\\{MAX}\\5\\5")),
            CLASSIFIED,
        ),
        case("polygonal, odd", partial(shutter, "POLYGONAL", a=(0x1620, "1\\2\\3\\4\\5")), CLASSIFIED),
        case("shape unknown", partial(shutter, "HEXAGONAL"), CLASSIFIED),
        case("shapes by the thousand", partial(shutter, "\\".join(["CIRCULAR"] * 5000)), CLASSIFIED, "corrupt"),
        case(
            "overlay of 60000 x 60000",
            lambda: sound() + element(0x6000, 0x10, "US", struct.pack("<H", 60000)),
            CLASSIFIED,
        ),
    ]
    return cases


def _texts() -> list[Case]:
    sets = ("FOO\\BAR", "ISO 2022 IR 87\\ISO 2022 IR 999", "GB18030\\GB18030", "\\\\\\\\", "../../etc/passwd", "")
    cases = [
        case(
            f"character set {name!r}",
            partial(with_text, dicom(PIXELS, SpecificCharacterSet="ISO_IR 100"), 8, 5, "CS", name),
            CLASSIFIED,
        )
        for name in sets
    ]
    names = {
        "escapes": b"\x1b$B\xff\xfe\x1b[2J",
        "latin": b"M\xfcller^\xff ",
        "zeros": bytes(64),
        "lines": b"a\r\nb\nc'\";--",
    }
    cases += [
        case(f"PatientID {name}", partial(_patient, raw), CLASSIFIED)
        for name, raw in (names | {"60,000 bytes": b"x" * 60_000}).items()
    ]
    cases += [
        case(
            "PatientID of 20 MB",
            lambda: replaced(sound(), 0x10, 0x20, element(0x10, 0x20, "UT", b"y" * 20_000_000)),
            CLASSIFIED,
        ),
        case(
            "PatientName of 60,000 groups",
            lambda: replaced(sound(), 0x10, 0x10, element(0x10, 0x10, "PN", b"=^" * 30_000)),
            CLASSIFIED,
        ),
        case(
            "StudyInstanceUID of 60,000 bytes",
            lambda: replaced(sound(), 0x20, 0xD, element(0x20, 0xD, "UI", b"1." * 30_000)),
            CLASSIFIED,
        ),
        case(
            "StudyInstanceUID of markup",
            lambda: replaced(sound(), 0x20, 0xD, element(0x20, 0xD, "UI", b"<script>' OR 1=1")),
            CLASSIFIED,
        ),
        *[
            case(f"StudyDate {d!r}", partial(with_text, sound(), 8, 0x20, "DA", d), CLASSIFIED)
            for d in ("20241399", "0", "99999999", "2024W011", "\0\0", "today")
        ],
        case(
            "Modality of 60,000 values",
            lambda: replaced(sound(), 8, 0x60, element(8, 0x60, "CS", b"DX\\" * 20_000)),
            "out_of_scope",
            CLASSIFIED,
        ),
        case("Modality CT", lambda: with_text(sound(), 8, 0x60, "CS", "CT"), "out_of_scope"),
    ]
    return cases


def _patient(raw: bytes) -> bytes:
    return replaced(sound(), 0x10, 0x20, element(0x10, 0x20, "LO", raw + b" " * (len(raw) % 2)))


def _floats() -> list[Case]:
    def floats(values: np.ndarray) -> bytes:
        number, vr, bits = (8, "OF", 32) if values.itemsize == 4 else (9, "OD", 64)
        content = dicom(PIXELS, BitsAllocated=bits, BitsStored=None, HighBit=None, PixelRepresentation=None)
        place = content.index(tag(0x7FE0, 0x10), 132)
        return content[:place] + element(0x7FE0, number, vr, values.tobytes())

    shape = PIXELS.shape
    return [
        case("all NaN", lambda: floats(np.full(shape, np.nan, np.float32)), CLASSIFIED, "corrupt"),
        case("all infinite", lambda: floats(np.full(shape, np.inf, np.float64)), CLASSIFIED, "corrupt"),
        case("as far as floats go", lambda: floats(np.linspace(-1, 1, PIXELS.size) * 1.7e308), CLASSIFIED),
        case("denormal", lambda: floats(np.full(shape, 5e-324)), CLASSIFIED),
        case("too few floats", lambda: floats(np.zeros((47, 40), np.float32)), "truncated"),
        case("too few doubles", lambda: floats(np.zeros((10, 10), np.float64)), "truncated"),
        case("no float", lambda: floats(np.zeros((0, 10), np.float32)), "truncated"),
    ]


def _kinds() -> list[Case]:
    """Sound in themselves, and not for us."""
    return [
        case("a report", lambda: dicom(None, SOPClassUID=uid.BasicTextSRStorage, Modality="SR"), "no_pixel_data"),
        case(
            "a PDF",
            lambda: dicom(None, SOPClassUID=uid.EncapsulatedPDFStorage, EncapsulatedDocument=bytes(9000)),
            "no_pixel_data",
        ),
        case("a directory", lambda: dicom(None, SOPClassUID=uid.MediaStorageDirectoryStorage), "no_pixel_data"),
        case(
            "raw detector data", lambda: dicom(PIXELS, PresentationIntentType="FOR PROCESSING"), "not_for_presentation"
        ),
        case("what we wrote", lambda: dicom(PIXELS, ManufacturerModelName="fracture_watch"), "own_output"),
    ]


def groups() -> dict[str, list[Case]]:
    return {"nesting": nesting(), "element": elements()}
