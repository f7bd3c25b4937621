"""Whether a TIFF file holds all that its directories point to (TIFF 6.0, section 2)."""

from typing import BinaryIO, Literal, NamedTuple

_MOST_PAGES = 1000
_MOST_ENTRIES = 4096
_MOST_PIECES = 100_000  # strips or tiles of one page
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}  # bytes, by field type
_OFFSETS, _COUNTS = (273, 324), (279, 325)  # of strips and of tiles


class _Field(NamedTuple):
    size: int  # of one value
    values: int
    position: int  # of the first


class _Reader(NamedTuple):
    file: BinaryIO
    size: int
    order: Literal["little", "big"]

    def number(self, position: int, length: int) -> int:
        self.file.seek(position)
        return int.from_bytes(self.file.read(length), self.order)

    def numbers(self, field: _Field) -> list[int]:
        self.file.seek(field.position)
        data = self.file.read(field.size * field.values)
        return [int.from_bytes(data[at : at + field.size], self.order) for at in range(0, len(data), field.size)]


def tiff(file: BinaryIO, size: int) -> bool | None:
    """Whether every directory, the values in it and the strips or tiles it points to lie within the file.

    ``False`` also where the first directory's place is not written yet: many writers put it last. ``None`` where
    the directories lead in a circle or are too many to look at.
    """
    file.seek(0)
    reader = _Reader(file, size, "little" if file.read(2) == b"II" else "big")
    position = reader.number(4, 4)
    if size < 8 or position == 0:
        return False
    seen: set[int] = set()
    while position:
        if position in seen or len(seen) == _MOST_PAGES:
            return None
        seen.add(position)
        entries = reader.number(position, 2)
        whole = _is_whole(reader, position + 2, entries)
        if not whole:
            return whole
        position = reader.number(position + 2 + 12 * entries, 4)
    return True


def _is_whole(reader: _Reader, position: int, entries: int) -> bool | None:
    """Whether one directory, and what its entries point to, is there."""
    if entries == 0 or position + 12 * entries + 4 > reader.size:  # without entries: zeros, yet to be written
        return False
    if entries > _MOST_ENTRIES:
        return None
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
        if fields[offsets].values > _MOST_PIECES:
            return None
        pieces = zip(reader.numbers(fields[offsets]), reader.numbers(fields[counts]), strict=False)
        # No piece begins at 0, where the header is: its place is yet to be written.
        if any(length and (start == 0 or start + length > reader.size) for start, length in pieces):
            return False
    return True
