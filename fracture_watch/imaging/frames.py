"""Pixel data -> the samples of one frame, after every check that needs no decoder."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, ExplicitVRBigEndian, RLELossless

from fracture_watch.errors import Corrupt, Truncated
from fracture_watch.imaging import codecs, streams
from fracture_watch.imaging.grayscale import StoredValues, sign_extended
from fracture_watch.imaging.header import integer, unsigned
from fracture_watch.imaging.limits import Limits
from fracture_watch.imaging.streams import Frame

_BITS = {"PixelData": (1, 8, 16, 32), "FloatPixelData": (32,), "DoubleFloatPixelData": (64,)}
PIXELS = tuple(_BITS)
_ITEM, _DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"


class Frames:
    """The frames of a file whose header is sound.

    Parameters
    ----------
    header : Dataset
        With one of ``PIXELS``.
    photometric : str
        PhotometricInterpretation, one that is known here.
    limits : Limits

    Raises
    ------
    Corrupt, TooLarge, Truncated
    """

    def __init__(self, header: Dataset, photometric: str, limits: Limits) -> None:
        self._header = header
        self._photometric = photometric
        self._keyword = next(keyword for keyword in PIXELS if keyword in header)
        self._syntax = UID(header.file_meta.TransferSyntaxUID)
        # Only integers can be compressed (PS3.5 8.1.2).
        self._encapsulated = self._syntax.is_encapsulated and self._keyword == "PixelData"
        self._data = self._bytes()
        self.frame = self._declared()
        limits.check_pixels(self.frame.rows, self.frame.columns)
        self.count = max(1, integer(header, "NumberOfFrames") or 1)
        self.stored = self._stored_values()
        if self._encapsulated:
            self._check_fragments()
        else:
            self._check_length()

    def gray(self, number: int) -> tuple[NDArray[Any], StoredValues]:
        """A grey frame as it stands in the file, shape (rows, columns), and how its words are to be read."""
        if not self._encapsulated:
            return self._native(number), self.stored
        encoded, stated = self._encoded(number)
        words = codecs.decode(encoded, self._syntax, self.frame)
        stored = self.stored
        if stored.high_bit >= stored.bits_stored and stated.bits > stored.bits_stored:
            # The encoder took the words as they stood, and did not bring the values down to the lowest bits.
            stored = replace(stored, encapsulated=False)
        elif stored.signed and stated.bits > stored.bits_stored and _overshoot(words, stated.bits, stored.limits):
            stored = replace(stored, coded_bits=stated.bits)
        return words, stored

    def colors(self, number: int) -> NDArray[Any]:
        """A colour frame as RGB, shape (rows, columns, 3); palette indices as they are, shape (rows, columns)."""
        if self._encapsulated:
            self._encoded(number)
        return self._by_pydicom(number, raw=False)

    def _native(self, number: int) -> NDArray[Any]:
        rows, columns, bits = self.frame.rows, self.frame.columns, self.frame.bits
        # Bytes in big-endian words come in another order, which pydicom knows.
        sizes = (16,) if self._syntax == ExplicitVRBigEndian else (8, 16)
        if self._keyword != "PixelData" or bits not in sizes:
            return self._by_pydicom(number, raw=True)
        order = ">" if self._syntax == ExplicitVRBigEndian else "<"
        start = number * rows * columns * bits // 8
        words = np.frombuffer(self._data, f"{order}u{bits // 8}", rows * columns, start)
        return words.astype(words.dtype.newbyteorder("="), copy=False).reshape(rows, columns)

    def _by_pydicom(self, number: int, *, raw: bool) -> NDArray[Any]:
        decoder = get_decoder(self._syntax)
        array, _ = decoder.as_array(
            self._header,
            index=number,
            raw=raw,
            decoding_plugin=codecs.LABEL if codecs.LABEL in decoder.available_plugins else "",
            correct_unused_bits=not raw,  # type: ignore[arg-type]  # pydicom declares its options without Unpack
        )
        return array

    def _encoded(self, number: int) -> tuple[bytes, Frame]:
        """A compressed frame that was checked, and what it says of itself."""
        offsets, lengths = (self._header.get(f"ExtendedOffsetTable{suffix}") for suffix in ("", "Lengths"))
        encoded = get_frame(
            self._data,
            number,
            number_of_frames=self.count,
            extended_offsets=(offsets, lengths) if offsets and lengths else None,
        )
        return encoded, streams.check(encoded, self._syntax, self.frame)

    def _bytes(self) -> bytes:
        element = self._header[self._keyword]
        value = element.value or b""
        if not isinstance(value, bytes):
            raise Corrupt(f"{self._keyword} has the VR {element.VR}, which can hold no pixels (PS3.5 8)")
        return value

    def _declared(self) -> Frame:
        gray = self._photometric in ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
        samples = unsigned(self._header, "SamplesPerPixel")
        if samples not in (None, 1 if gray else 3):
            raise Corrupt(
                f"PhotometricInterpretation {self._photometric} and SamplesPerPixel {samples} contradict each other"
            )
        rows, columns = (unsigned(self._header, keyword) or 0 for keyword in ("Rows", "Columns"))
        if rows < 1 or columns < 1:
            raise Corrupt(f"the image is {rows} rows x {columns} columns")
        return Frame(rows, columns, 1 if gray else 3, unsigned(self._header, "BitsAllocated") or 0)

    def _stored_values(self) -> StoredValues:
        allocated = self.frame.bits
        stored = unsigned(self._header, "BitsStored") or allocated
        high = unsigned(self._header, "HighBit")
        high = stored - 1 if high is None else high
        if not 1 <= stored <= allocated or not stored - 1 <= high < allocated:
            raise Corrupt(f"BitsAllocated {allocated}, BitsStored {stored} and HighBit {high} contradict each other")
        if allocated not in _BITS[self._keyword]:
            raise Corrupt(f"BitsAllocated {allocated} is none that {self._keyword} may have ({_BITS[self._keyword]})")
        signed = unsigned(self._header, "PixelRepresentation") == 1
        # RLE packs the words as they stand, so they are read like native ones.
        return StoredValues(stored, high, signed, self._encapsulated and self._syntax != RLELossless)

    def _check_length(self) -> None:
        if self._header[self._keyword].is_undefined_length:
            raise Corrupt(f"the pixel data are compressed, but the header states {self._syntax.name}")
        frame, found = self.frame, len(self._data)
        bits = frame.rows * frame.columns * frame.samples * self.count * frame.bits
        if self._photometric == "YBR_FULL_422":
            bits = bits * 2 // 3
        if found < -(-bits // 8):
            raise Truncated(
                f"the pixel data are {found:,} bytes, but the header declares {-(-bits // 8):,}; send the file again"
            )

    def _check_fragments(self) -> None:
        """Every fragment has to end inside the pixel data (PS3.5 A.4)."""
        data, position = self._data, 0
        while position < len(data):
            if data[position : position + 4] not in (_ITEM, _DELIMITER):
                raise Corrupt(f"byte {position:,} of the compressed pixel data is no fragment's beginning")
            position += 8 + int.from_bytes(data[position + 4 : position + 8], "little")
        if position > len(data):
            raise Truncated("the last fragment of the compressed pixel data is cut off; send the file again")


def _overshoot(words: NDArray[Any], bits: int, limits: tuple[int, int]) -> bool:
    """Whether a lossy codec left signed values a little outside ``limits``; else other things are in the bits above."""
    values, (low, high) = sign_extended(words, bits), limits
    least, greatest, slack = int(values.min()), int(values.max()), (high + 1) // 8
    return low - slack <= least and greatest <= high + slack and (least < low or greatest > high)
