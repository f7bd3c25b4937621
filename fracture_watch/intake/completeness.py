"""Whether a file is structurally whole, from its own declared lengths. Reads headers only, never recurses."""

import os
import zlib
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pydicom.config import IGNORE
from pydicom.uid import UID

from fracture_watch.intake.tiff import tiff
from fracture_watch.records import Format

_MOST_ELEMENTS = 200_000  # a hostile file of tiny elements must not hold up the watcher
_UNDEFINED = 0xFFFFFFFF
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_ITEM, _ITEM_END, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_ZEROS = (0, 0)  # a tag that no file has: the place is there, and its bytes are to come
_MEDIA_STORAGE_SOP_CLASS, _TRANSFER_SYNTAX = (0x0002, 0x0002), (0x0002, 0x0010)
_SOP_CLASS, _ROWS = (0x0008, 0x0016), (0x0028, 0x0010)
_PIXEL_DATA = frozenset({(0x7FE0, 0x0008), (0x7FE0, 0x0009), (0x7FE0, 0x0010)})
_BIG_ENDIAN, _DEFLATED = b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99"


class Completeness(StrEnum):
    """What a file's structure says."""

    COMPLETE = "complete"  # it reaches its own declared end
    INCOMPLETE = "incomplete"  # it ends before that
    UNKNOWN = "unknown"  # its format does not say, or it is none


def opened(path: Path) -> BinaryIO:
    """A file for reading. A pipe that has its name by now is not waited for, and no link is followed.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")


def completeness(path: Path, found: Format) -> Completeness:
    """Check one file whose format was sniffed already.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    check = {
        Format.DICOM: _dicom,
        Format.PNG: _png,
        Format.JPEG: _jpeg,
        Format.TIFF: tiff,
        Format.WEBP: _webp,
        Format.BMP: _bmp,
    }.get(found)
    with opened(path) as file:
        size = file.seek(0, 2)
        if _has_hole(file, size):
            return Completeness.INCOMPLETE
        file.seek(0)
        whole = check(file, size) if check else None
    if whole is None:
        return Completeness.UNKNOWN
    return Completeness.COMPLETE if whole else Completeness.INCOMPLETE


def _has_hole(file: BinaryIO, size: int) -> bool:
    """Whether part of the file was set aside and never written, as senders do that reserve its size first.

    A file system that stores zeros as holes makes whole files look like that: they wait for ``inbox.give_up_seconds``.
    """
    if not size or not hasattr(os, "SEEK_HOLE"):
        return False
    try:
        return os.lseek(file.fileno(), 0, os.SEEK_HOLE) < size
    except OSError:  # the file system does not say
        return False


def _png(file: BinaryIO, size: int) -> bool | None:
    position = 8
    for _ in range(_MOST_ELEMENTS):
        file.seek(position)
        head = file.read(8)
        if len(head) < 8 or head == bytes(8):  # no chunk is called that: the place is there, and its bytes are to come
            return False
        position += 12 + int.from_bytes(head[:4], "big")
        if head[4:] == b"IEND":
            return position <= size
    return None


def _jpeg(file: BinaryIO, size: int) -> bool | None:
    """EOI after the first scan began, near the end: entropy-coded data cannot hold it, and some writers pad after it.

    What stands before the scan may well hold it: a thumbnail is a JPEG of its own.
    """
    position = 2
    for _ in range(_MOST_ELEMENTS):
        file.seek(position)
        head = file.read(4)
        if len(head) < 4:
            return False
        if head[0] != 0xFF:
            return None if any(head) else False
        if head[1] == 0xDA:
            file.seek(max(position, size - 65536))
            return b"\xff\xd9" in file.read()
        # FF may be repeated before a marker; every segment but SOI states its length.
        position += 1 if head[1] == 0xFF else 2 + int.from_bytes(head[2:], "big")
    return None


def _webp(file: BinaryIO, size: int) -> bool | None:
    return int.from_bytes(file.read(8)[4:], "little") + 8 <= size


def _bmp(file: BinaryIO, size: int) -> bool | None:
    head = file.read(6)
    declared = int.from_bytes(head[2:], "little")
    if len(head) == 6 and declared < 26:  # less than any header: its writer did not say
        return None
    return len(head) == 6 and declared <= size


class _FileMeta(NamedTuple):
    end: int | None  # where the data set begins; None: not yet there
    syntax: bytes  # empty: not stated
    sop_class: bytes


class _Start(NamedTuple):
    position: int
    explicit: bool
    order: str
    pixels_due: bool


class _Element(NamedTuple):
    tag: tuple[int, int]
    sequence: bool
    length: int
    end_of_header: int
    explicit: bool  # how what is inside is encoded


def _dicom(file: BinaryIO, size: int) -> bool | None:
    """Walk the elements of PS3.5 7.1 up to pixel data with the bytes they declare or their delimiter."""
    position, syntax, sop_class = _file_meta(file)
    if position is None:
        return False
    if syntax == _DEFLATED:
        return _inflates(file, position)
    order = "big" if syntax == _BIG_ENDIAN or (not syntax and _looks_big_endian(file, position)) else "little"
    explicit = _looks_explicit(file, position)  # whatever is stated: so the decoder reads it, too
    return _reaches_pixels(file, size, _Start(position, explicit, order, _has_pixels(sop_class)))


def _reaches_pixels(file: BinaryIO, size: int, start: _Start) -> bool | None:
    position, explicit, order, pixels_due = start
    levels = [explicit]  # those of undefined length that are open; each says whether it is explicit VR inside
    for _ in range(_MOST_ELEMENTS):
        if position >= size:
            return position == size and len(levels) == 1 and not pixels_due
        element = _element(file, position, levels[-1], order)
        if element is None:
            return False
        if element.tag == _ZEROS:
            return False
        position = element.end_of_header
        if element.tag in (_ITEM_END, _SEQUENCE_END):
            del levels[max(1, len(levels) - 1) :]  # the outermost one stays open
            continue
        if len(levels) == 1:
            if element.tag in _PIXEL_DATA:
                return _pixels_end(file, element, size, order)
            if element.tag == _SOP_CLASS:
                pixels_due = _has_pixels(_value(file, element))
            pixels_due |= element.tag == _ROWS
        if element.length == _UNDEFINED:
            levels.append(element.explicit)
        else:
            position += element.length
    return None


def _has_pixels(sop_class: bytes) -> bool:
    """Whether objects of this class end with pixel data; also where the class is not known yet."""
    return not sop_class or "Image" in UID(sop_class.decode("ascii", "replace"), IGNORE).name


def _file_meta(file: BinaryIO) -> _FileMeta:
    file.seek(128)
    position = 132 if file.read(4) == b"DICM" else 0
    syntax = sop_class = b""
    explicit = _looks_explicit(file, position)  # as it always should be (PS3.10 7.1)
    for _ in range(1000):
        element = _element(file, position, explicit, "little")
        if element is None:
            return _FileMeta(None, syntax, sop_class)
        if element.tag[0] != 2:
            break
        if element.tag == _TRANSFER_SYNTAX:
            syntax = _value(file, element)
        elif element.tag == _MEDIA_STORAGE_SOP_CLASS:
            sop_class = _value(file, element)
        position = element.end_of_header + element.length
    return _FileMeta(position, syntax, sop_class)


def _value(file: BinaryIO, element: _Element) -> bytes:
    """A UID as it stands in the file."""
    file.seek(element.end_of_header)
    return file.read(min(element.length, 64)).rstrip(b"\0 ")


def _looks_explicit(file: BinaryIO, position: int) -> bool:
    """Whether two capitals follow the first tag; a length that looks like that would be over 16 KiB."""
    file.seek(position + 4)
    vr = file.read(2)
    return vr.isalpha() and vr.isupper()


def _looks_big_endian(file: BinaryIO, position: int) -> bool:
    """Whether a data set begins with an element of group 0008 in that order."""
    file.seek(position)
    return file.read(2) == b"\x00\x08"


def _element(file: BinaryIO, position: int, explicit: bool, order: str) -> _Element | None:
    """The element header at ``position``; ``None`` where the file ends inside it."""
    file.seek(position)
    head = file.read(12)
    if len(head) < 8:
        return None
    tag = _int(head[:2], order), _int(head[2:4], order)
    if tag[0] == 0xFFFE or not explicit:
        return _Element(tag, False, _int(head[4:8], order), position + 8, explicit)
    vr = head[4:6]
    if vr in _LONG_VRS:
        if len(head) < 12:
            return None
        # PS3.5 6.2.2: inside UN of undefined length everything is implicit VR.
        return _Element(tag, vr == b"SQ", _int(head[8:12], order), position + 12, vr != b"UN")
    return _Element(tag, False, _int(head[6:8], order), position + 8, explicit)


def _pixels_end(file: BinaryIO, pixels: _Element, size: int, order: str) -> bool | None:
    """Whether pixel data have the bytes they declare; encapsulated: reach their delimiter (PS3.5 A.4)."""
    position = pixels.end_of_header
    if pixels.length != _UNDEFINED:
        return position + pixels.length <= size
    for _ in range(_MOST_ELEMENTS):
        element = _element(file, position, False, order)
        if element is None or position >= size or element.tag == _ZEROS:
            return False
        if element.tag == _SEQUENCE_END:
            return True
        position = element.end_of_header + element.length
    return None


def _inflates(file: BinaryIO, position: int) -> bool | None:
    """Whether the deflated data set reaches the end of its stream; gives up on a bomb."""
    file.seek(position)
    inflater, produced = zlib.decompressobj(-zlib.MAX_WBITS), 0
    try:
        while not inflater.eof:
            chunk = inflater.unconsumed_tail or file.read(1 << 16)
            step = len(inflater.decompress(chunk, 1 << 20))
            if not chunk and not step:  # without input, there may still be output to come
                return False
            produced += step
            if produced > 1 << 30:
                return None
    except zlib.error:
        return None
    return True


def _int(data: bytes, order: str) -> int:
    return int.from_bytes(data, "big" if order == "big" else "little")
