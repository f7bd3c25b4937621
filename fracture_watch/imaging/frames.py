"""Pixel data -> the samples of one frame, after every check that needs no decoder."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from fracture_watch.errors import Corrupt, Truncated
from fracture_watch.imaging import codecs, streams
from fracture_watch.imaging.grayscale import StoredValues, sign_extended
from fracture_watch.imaging.header import integer, unsigned
from fracture_watch.imaging.limits import Limits
from fracture_watch.imaging.streams import Frame

_BITS = {"PixelData": (1, 8, 16, 32), "FloatPixelData": (32,), "DoubleFloatPixelData": (64,)}
PIXELS = tuple(_BITS)
_LOSSLESS = (*codecs.LOSSLESS_JPEG, JPEGLSLossless, JPEG2000Lossless, HTJ2KLossless, HTJ2KLosslessRPCL)
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
        """A grey frame or palette indices as they stand in the file, shape (rows, columns), and how to read them."""
        if not self._encapsulated:
            return self._native(number), self.stored
        encoded, stated = self._encoded(number)
        words = codecs.decode(encoded, self._syntax, self.frame)
        if words.dtype.kind == "i":
            words = words.astype(f"i{self.frame.bits // 8}", copy=False)
        return words, self._as_coded(words, stated.bits)

    def colors(self, number: int) -> tuple[NDArray[Any], StoredValues, bool]:
        """A colour frame, shape (rows, columns, 3), how its samples are to be read, and whether they are YCbCr."""
        encoded, stated = self._encoded(number) if self._encapsulated else (b"", self.frame)
        photometric = self._photometric
        if self._syntax == RLELossless:
            samples = codecs.decode(encoded, self._syntax, self.frame)
        else:
            samples, found = self._by_pydicom(number)
            if self._syntax not in codecs.LOSSLESS_JPEG:  # whose markers change nothing of that (PS3.5 8.2.1)
                photometric = found
        stored = self._as_coded(samples, stated.bits)
        if stated.bits < stored.bits_stored:
            stored = replace(stored, bits_stored=stated.bits, high_bit=stated.bits - 1)
        return samples, stored, photometric.startswith("YBR_FULL")

    def _as_coded(self, words: NDArray[Any], bits: int) -> StoredValues:
        """How the words of a codestream of so many ``bits`` are to be read.

        Lossy codecs leave values outside BitsStored, which are clipped. A lossless one may have such values from lossy
        data that were packed anew; what it has farther out is no part of the values (PS3.5 8.1.1).
        """
        stored = self.stored
        if not stored.encapsulated:
            return stored
        if not stored.signed and words.dtype.kind == "i" and words.min() < 0:
            return replace(stored, coded_bits=min(bits, stored.bits_stored))
        if bits <= stored.bits_stored:
            return stored
        (low, high), slack = stored.limits, (stored.limits[1] + 1) // 8
        values = sign_extended(words, bits) if stored.signed else words
        beyond = values.min() < low - slack or values.max() > high + slack
        # With a higher HighBit the encoder took the words as they stood, and did not bring the values to the lowest.
        if stored.high_bit >= stored.bits_stored or (beyond and self._syntax in _LOSSLESS):
            return replace(stored, encapsulated=False)
        return replace(stored, coded_bits=bits) if stored.signed else stored

    def _native(self, number: int) -> NDArray[Any]:
        if self._keyword != "PixelData":
            return self._by_pydicom(number)[0]
        rows, columns, bits = self.frame.rows, self.frame.columns, self.frame.bits
        size, first = rows * columns, number * rows * columns
        if bits == 1:  # frames follow each other without a gap (PS3.5 8.1.1)
            part = np.frombuffer(self._data, np.uint8)[first // 8 : -(-(first + size) // 8)]
            words = np.unpackbits(part, bitorder="little")[first % 8 :][:size]
        else:
            words = np.frombuffer(self._data, f"<u{bits // 8}", size, first * bits // 8)
        return words.reshape(rows, columns)

    def _by_pydicom(self, number: int) -> tuple[NDArray[Any], str]:
        """A frame's samples, and the colours in which they are; what the header leaves out is what we took for it."""
        decoder = get_decoder(self._syntax)
        array, properties = decoder.as_array(
            self._header,
            index=number,
            raw=True,
            decoding_plugin=codecs.LABEL if codecs.LABEL in decoder.available_plugins else "",
            correct_unused_bits=False,  # type: ignore[arg-type]  # pydicom declares its options without Unpack
            samples_per_pixel=self.frame.samples,  # type: ignore[arg-type]
            planar_configuration=unsigned(self._header, "PlanarConfiguration") or 0,  # type: ignore[arg-type]
            bits_stored=self.stored.bits_stored,  # type: ignore[arg-type]
            pixel_representation=int(self.stored.signed),  # type: ignore[arg-type]
        )
        return array, str(properties["photometric_interpretation"])

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
        wide = (unsigned(self._header, "BitsAllocated") or 0) > 8
        if self._syntax == ExplicitVRBigEndian and (element.VR == "OW" or wide):
            # PS3.5 6.2 and 7.3: it is words of 16 bits that are swapped, whatever they hold.
            return np.frombuffer(value[: len(value) // 2 * 2], ">u2").astype("<u2").tobytes()
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
        signed = unsigned(self._header, "PixelRepresentation") == 1 and self.frame.samples == 1
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
