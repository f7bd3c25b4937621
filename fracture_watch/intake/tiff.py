"""Whether a TIFF file holds all that its directories point to (TIFF 6.0, section 2)."""

from dataclasses import dataclass
from typing import BinaryIO, Literal, NamedTuple

_MOST_NUMBERS = 500_000  # of all pages; it takes under a second to read them
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}  # bytes, by field type
_OFFSETS, _COUNTS = (273, 324), (279, 325)  # of strips and of tiles


class _Field(NamedTuple):
    size: int  # of one value
    values: int
    position: int  # of the first


class _TooMany(Exception):
    """There are more numbers in it than anybody would read to see whether it is whole."""


@dataclass(slots=True)
class _Reader:
    file: BinaryIO
    size: int
    order: Literal["little", "big"]
    left: int = _MOST_NUMBERS

    def number(self, position: int, length: int) -> int:
        self._spend(1)
        self.file.seek(position)
        return int.from_bytes(self.file.read(length), self.order)

    def numbers(self, field: _Field) -> list[int]:
        self._spend(field.values)
        self.file.seek(field.position)
        data = self.file.read(field.size * field.values)
        return [int.from_bytes(data[at : at + field.size], self.order) for at in range(0, len(data), field.size)]

    def _spend(self, numbers: int) -> None:
        self.left -= numbers
        if self.left < 0:
            raise _TooMany


def tiff(file: BinaryIO, size: int) -> bool | None:
    """Whether every directory, the values in it and the strips or tiles it points to lie within the file.

    ``False`` also where the first directory's place is not written yet: many writers put it last. ``None`` where
    the directories lead in a circle or are too many to look at.
    """
    file.seek(0)
    reader = _Reader(file, size, "little" if file.read(2) == b"II" else "big")
    try:
        return _has_all_pages(reader)
    except _TooMany:
        return None


def _has_all_pages(reader: _Reader) -> bool | None:
    position = reader.number(4, 4)
    if reader.size < 8 or position == 0:
        return False
    seen: set[int] = set()
    while position:
        if position in seen:
            return None
        seen.add(position)
        entries = reader.number(position, 2)
        if not _is_whole(reader, position + 2, entries):
            return False
        position = reader.number(position + 2 + 12 * entries, 4)
    return True


def _is_whole(reader: _Reader, position: int, entries: int) -> bool:
    """Whether one directory, and what its entries point to, is there."""
    if entries == 0 or position + 12 * entries + 4 > reader.size:  # without entries: zeros, yet to be written
        return False
    fields: dict[int, _Field] = {}
    for start in range(position, position + 12 * entries, 12):
        tag, kind, count = reader.number(start, 2), reader.number(start + 2, 2), reader.number(start + 4, 4)
        size = _SIZES.get(kind, 1)
        place = start + 8 if size * count <= 4 else reader.number(start + 8, 4)
        if place + size * count > reader.size:
            return False
        fields[tag] = _Field(size, count, place)
    for offsets, counts in zip(_OFFSETS, _COUNTS, strict=True):
        if offsets not in fields or counts not in fields:
            continue
        pieces = zip(reader.numbers(fields[offsets]), reader.numbers(fields[counts]), strict=False)
        # No piece begins at 0, where the header is: its place is yet to be written.
        if any(length and (start == 0 or start + length > reader.size) for start, length in pieces):
            return False
    return True
