"""Bytes -> pydicom's Dataset, whatever is missing or broken around it, and never more memory than the limits allow."""

import io
import struct
import zlib
from collections.abc import Iterator

from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_dataset, read_partial, read_preamble
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from fracture_watch.errors import Corrupt, FractureWatchError, Truncated
from fracture_watch.imaging.header import text
from fracture_watch.imaging.limits import Limits

_ITEMS = b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00"  # the item tag in either byte order
_MOST_ITEMS = 50_000
_PIXELS = 0x7FE0  # the group of pixel data, which are large, and no sequence unless they say so
_DECIDING = (0x0028, 0x2050, _PIXELS)  # groups: the image, its presentation, its pixels
_PIXEL_DATA = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_UNDEFINED = 0xFFFFFFFF


def parse(content: bytes, limits: Limits) -> Dataset:
    """A whole DICOM file, with or without preamble and File Meta; ``file_meta.TransferSyntaxUID`` is always there.

    Raises
    ------
    Truncated, Corrupt, TooLarge
    """
    try:
        header = _read(content, limits)
        _check_items(header)
    except FractureWatchError:
        raise
    except (EOFError, struct.error) as error:
        raise Truncated(f"the DICOM file ends in the middle of an element: {error}; send it again") from error
    except RecursionError as error:
        raise Corrupt("the DICOM sequences are nested too deeply to be real") from error
    except MemoryError:
        raise
    except Exception as error:  # pydicom raises many kinds on broken headers
        if isinstance(error.__context__, FractureWatchError):  # and puts one of them around ours
            raise error.__context__ from None
        raise Corrupt(f"the DICOM header cannot be read: {error}") from error
    if text(header.file_meta, "TransferSyntaxUID") is None:
        header.file_meta.TransferSyntaxUID = _syntax_found(header)
    return header


class _Counted(io.BytesIO):
    """A file whose items are counted as they are read: a million empty ones in 8 MB keep pydicom busy for a minute."""

    _items = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """As ever.

        Raises
        ------
        Corrupt
            At the item that is one too many.
        """
        data = super().read(size)
        if data[:4] in _ITEMS:
            self._items += 1
            _bound(self._items)
        return data


class _Once:
    """Asked by pydicom, element by element, whether to stop: no element may stand twice in a data set (PS3.5 7.1).

    pydicom would take the last one, and others the first. That matters where it decides the picture; elsewhere sound
    files have it. What some writers leave behind the pixel data is no element.
    """

    def __init__(self) -> None:
        self._met: set[BaseTag] = set()

    def __call__(self, tag: BaseTag, vr: str | None, length: int) -> bool:
        """Never.

        Raises
        ------
        Corrupt
            At an element that was there before.
        """
        if tag in self._met and len(self._met) > 1:  # it asks of the first one twice where VRs are not as stated
            raise Corrupt(f"the element {tag} stands twice in the data set; send the file again from its source")
        if tag.group in _DECIDING and self._met.isdisjoint(_PIXEL_DATA):
            self._met.add(tag)
        return False


def _check_items(header: Dataset) -> None:
    """Items of sequences with a length, too, which pydicom reads when it is asked for them."""
    _bound(sum(_unread_items(header)))


def _unread_items(header: Dataset) -> Iterator[int]:
    for element in header.values():
        if isinstance(element, RawDataElement):
            if element.VR == "SQ" or (element.VR in (None, "UN") and element.tag.group != _PIXELS):
                yield max((element.value or b"").count(item) for item in _ITEMS)
        elif element.VR == "SQ":
            for item in element.value:
                yield from _unread_items(item)


def _bound(items: int) -> None:
    if items > _MOST_ITEMS:
        raise Corrupt(f"the header has over {_MOST_ITEMS:,} sequence items, more than a radiograph can have")


def check_whole(header: Dataset) -> None:
    """Hold every element to its length: pydicom returns what there is of one that is cut off, and says nothing.

    Raises
    ------
    Truncated
    """
    for element in header.values():
        if isinstance(element, RawDataElement) and element.length != _UNDEFINED:
            found = len(element.value or b"")
            if found < element.length:
                raise Truncated(
                    f"the file ends inside the element {element.tag}: {found:,} of {element.length:,} bytes are there; "
                    "send it again"
                )


def _read(content: bytes, limits: Limits) -> Dataset:
    file = _Counted(content)
    read_preamble(file, force=True)
    # The same reading that `read_partial` begins with: a hostile file must not show one syntax here and another there.
    meta = read_dataset(file, is_implicit_VR=False, is_little_endian=True, stop_when=_behind_file_meta)
    if text(meta, "TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        inflated = _inflated(content[file.tell() :], limits)
        header = read_dataset(_Counted(inflated), is_implicit_VR=False, is_little_endian=True, stop_when=_Once())
        header.file_meta = FileMetaDataset(meta)
        return header
    header = read_partial(_Counted(content), stop_when=_Once(), force=True)
    if len(header) == 0:  # what pydicom makes of pixel data without their delimiter; the facts are still there
        header = dcmread(_Counted(content), force=True, stop_before_pixels=True)
    return header


def _behind_file_meta(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag.group != 2


def _syntax_found(header: Dataset) -> UID:
    """PS3.10 wants it stated; what was written without it is encoded in one of the three plain ways."""
    implicit, little = header.original_encoding
    if little is False:
        return ExplicitVRBigEndian
    return ExplicitVRLittleEndian if implicit is False else ImplicitVRLittleEndian


def _inflated(data: bytes, limits: Limits) -> bytes:
    """Inflate a data set (PS3.5 A.5) in steps: `dcmread` would inflate it whole, however large it becomes."""
    inflater, pending, inflated = zlib.decompressobj(-zlib.MAX_WBITS), data, bytearray()
    try:
        while not inflater.eof:
            step = inflater.decompress(pending, 1 << 20)
            inflated += step
            limits.check_bytes(len(inflated))
            pending = inflater.unconsumed_tail
            if not step and not pending:  # with all input taken in, there may still be output to come
                break
    except zlib.error as error:
        raise Corrupt(f"the deflated data set cannot be inflated: {error}; send the file again") from error
    if not inflater.eof:
        raise Truncated("the deflated data set ends too early; send the file again")
    return bytes(inflated)
