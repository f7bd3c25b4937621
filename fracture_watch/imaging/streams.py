"""What a compressed frame says of itself, held to the data set before a decoder takes memory for it."""

from dataclasses import dataclass
from itertools import pairwise

from pydicom.uid import UID, JPEG2000TransferSyntaxes, RLELossless

from fracture_watch.errors import Corrupt, Truncated

_END = b"\xff\xd9"  # EOI
_TAIL = 65536  # bytes at the end that are searched for it, since some writers pad
_SOC_SIZ, _SOT = b"\xff\x4f\xff\x51", b"\xff\x90"
_NO_FRAME_HEADER = frozenset((0xC4, 0xC8, 0xCC))  # DHT, JPG and DAC stand among the SOF markers C0 to CF
_BASELINE, _EXTENDED, _LOSSLESS, _JPEG_LS_FRAME_HEADER = 0xC0, 0xC1, 0xC3, 0xF7


@dataclass(frozen=True, slots=True)
class Frame:
    """Size of one frame; ``bits`` is per sample."""

    rows: int
    columns: int
    samples: int
    bits: int

    def __str__(self) -> str:
        samples = "" if self.samples == 1 else f" with {self.samples} samples"
        return f"{self.rows} rows x {self.columns} columns{samples} at {self.bits} bit"


def check(encoded: bytes, syntax: UID, header: Frame) -> Frame:
    """Hold one compressed frame to the data set, whose ``bits`` are BitsAllocated; what it says of itself.

    Raises
    ------
    Corrupt
        If the two contradict each other.
    Truncated
        If the frame does not reach its own end. Decoders fill the rest with grey and say nothing.
    """
    if syntax == RLELossless:
        _check_rle(encoded, header)
        return header
    jpeg_2000 = syntax in JPEG2000TransferSyntaxes
    stated = _jpeg_2000(encoded) if jpeg_2000 else _jpeg(encoded)
    if stated is None:
        raise Corrupt(f"the pixel data are not encoded as {syntax.name}, which the header states")
    same = (stated.rows, stated.columns, stated.samples) == (header.rows, header.columns, header.samples)
    if not same or stated.bits > header.bits:
        raise Corrupt(f"the compressed picture has {stated}, but the header says {header}")
    if not (_reaches_its_last_tile(encoded) if jpeg_2000 else is_whole_jpeg(encoded)):
        raise Truncated("the compressed picture ends too early; send the file again")
    return stated


def _jpeg(encoded: bytes) -> Frame | None:
    """The frame header of JPEG (ITU-T T.81 B.2.2) and JPEG-LS (T.87 C.2.2)."""
    start = _frame_header(encoded)
    return None if start is None else _frame_at(encoded, start)


def _frame_at(encoded: bytes, start: int) -> Frame:
    rows, columns = (int.from_bytes(encoded[start + n : start + n + 2], "big") for n in (5, 7))
    return Frame(rows, columns, encoded[start + 9], encoded[start + 4])


def _frame_header(encoded: bytes) -> int | None:
    if encoded[:2] != b"\xff\xd8":
        return None
    position = 2
    while position + 10 <= len(encoded) and encoded[position] == 0xFF:
        marker = encoded[position + 1]
        if marker == 0xFF:  # fill bytes may stand before a marker
            position += 1
        elif marker == _JPEG_LS_FRAME_HEADER or (0xC0 <= marker <= 0xCF and marker not in _NO_FRAME_HEADER):
            return position
        else:
            position += 2 + int.from_bytes(encoded[position + 2 : position + 4], "big")
    return None


def is_whole_jpeg(encoded: bytes) -> bool:
    """Whether the end marker is there, and as many bits as the shortest codes for such a picture take.

    What has no frame header is left to the decoder to complain of.
    """
    start = _frame_header(encoded)
    if start is None:
        return True
    frame = _frame_at(encoded, start)
    codes = {
        _BASELINE: frame.rows * frame.columns // 64 * 2,  # a block takes a code for its mean and one for its end
        _EXTENDED: frame.rows * frame.columns // 64 * 2,
        _LOSSLESS: frame.rows * frame.columns,
    }
    # Coded data cannot hold the marker; a thumbnail has one, but stands before the frame header.
    return encoded.find(_END, start) >= 0 and len(encoded) * 8 >= codes.get(encoded[start + 1], 0)


def _jpeg_2000(encoded: bytes) -> Frame | None:
    """The SIZ segment (ITU-T T.800 A.5.1); some writers put the boxes of a JP2 file before it."""
    start = encoded.find(_SOC_SIZ, 0, 4096)
    if start < 0 or start + 43 > len(encoded):
        return None
    right, lower, left, upper = (int.from_bytes(encoded[start + n : start + n + 4], "big") for n in (8, 12, 16, 20))
    samples = int.from_bytes(encoded[start + 40 : start + 42], "big")
    return Frame(lower - upper, right - left, samples, (encoded[start + 42] & 0x7F) + 1)


def _reaches_its_last_tile(encoded: bytes) -> bool:
    """Follow the lengths of the tile-parts (T.800 A.4.2); the end marker is often missing in sound files."""
    position = _first_tile_part(encoded)
    while 0 <= position <= len(encoded) - 12 and encoded[position : position + 2] == _SOT:
        length = int.from_bytes(encoded[position + 6 : position + 10], "big")
        if length == 0:  # the last one, up to the end marker
            return _END in encoded[-_TAIL:]
        position += max(length, 12)
    return 0 < position <= len(encoded)


def _first_tile_part(encoded: bytes) -> int:
    """Behind the segments of the main header (T.800 A.3), in which anything may stand, such as in a comment."""
    position = encoded.find(_SOC_SIZ) + 2
    while position + 4 <= len(encoded) and encoded[position] == 0xFF and encoded[position : position + 2] != _SOT:
        position += 2 + int.from_bytes(encoded[position + 2 : position + 4], "big")
    return position


def _check_rle(encoded: bytes, header: Frame) -> None:
    """The header of PS3.5 G.5: a segment for each byte of a pixel, each long enough to fill the frame."""
    count, starts = _rle_header(encoded)
    wanted = header.samples * header.bits // 8
    if len(encoded) < 64 or count != wanted or starts != sorted(starts) or min(starts, default=0) < 64:
        raise Corrupt(f"the RLE header is wrong: {count} segments, where the header asks for {wanted}")
    least = -(-header.rows * header.columns // 128) * 2  # 128 pixels take two bytes at best
    if any(end - start < least for start, end in pairwise([*starts, len(encoded)])):
        raise Truncated("an RLE segment is too short for the picture; send the file again")


def rle_segments(encoded: bytes) -> list[bytes]:
    """The segments of a frame whose header is sound (PS3.5 G.5)."""
    _, starts = _rle_header(encoded)
    return [encoded[start:end] for start, end in pairwise([*starts, len(encoded)])]


def _rle_header(encoded: bytes) -> tuple[int, list[int]]:
    offsets = [int.from_bytes(encoded[n : n + 4], "little") for n in range(0, 64, 4)]
    return offsets[0], offsets[1 : offsets[0] + 1]
