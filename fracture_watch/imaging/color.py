"""Palette colours -> RGB (PS3.3 C.7.6.3.1.5 and C.7.9)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from fracture_watch.errors import Corrupt
from fracture_watch.imaging.grayscale import Lut
from fracture_watch.imaging.header import descriptor, lut, words
from fracture_watch.records import Pixels

_DISCRETE, _LINEAR, _INDIRECT = 0, 1, 2


def looked_up(indices: NDArray[Any], header: Dataset, signed: bool) -> Pixels:
    """Palette indices -> RGB, of the same shape and one more axis.

    Raises
    ------
    Corrupt
        If a palette is missing or unusable.
    """
    planes = []
    for color in ("Red", "Green", "Blue"):
        table = lut(header, signed, f"{color}PaletteColorLookupTable") or _segmented(header, signed, color)
        if table is None:
            raise Corrupt(f"{color}PaletteColorLookupTable is missing or broken, so the colours cannot be told")
        planes.append((table(indices).astype(np.uint16) >> (table.bits - 8)).astype(np.uint8))
    return np.stack(planes, axis=-1)


def _segmented(header: Dataset, signed: bool, color: str) -> Lut | None:
    found = descriptor(header, f"{color}PaletteColorLookupTable", signed)
    if found is None:
        return None
    count, first, bits = found
    size = 1 if bits == 8 else 2
    segments = words(header, f"Segmented{color}PaletteColorLookupTableData", size)
    try:
        values = _expanded(segments.tolist(), size, count)
    except (IndexError, ValueError):
        return None
    return Lut(first, np.array(values, np.uint16), bits)


def _expanded(segments: Sequence[int], size: int, count: int) -> list[int]:
    """The first ``count`` entries that segments of ``size`` bytes a word make.

    Raises
    ------
    IndexError, ValueError
        If the segments are broken.
    """
    values: list[int] = []
    position, left = 0, 0
    back: int | None = None  # where to go on after the `left` segments that an indirect one repeats
    while len(values) < count:
        if back is not None and left == 0:
            position, back = back, None
        opcode, length = segments[position : position + 2]
        position += 2
        if opcode == _INDIRECT and back is None:
            parts = segments[position : position + 4 // size]
            offset = sum(part << (8 * size * n) for n, part in enumerate(parts))
            back, left, position = position + len(parts), length, offset // size
            continue
        left -= 1
        if opcode == _DISCRETE:
            added = list(segments[position : position + length])
            position += length
        elif opcode == _LINEAR:
            added = _line(values[-1], segments[position], length)
            position += 1
        else:
            raise ValueError(f"unknown segment {opcode}")
        if not added:  # so that every turn brings the end nearer
            raise ValueError("an empty segment")
        values += added
    return values[:count]


def _line(start: int, end: int, length: int) -> list[int]:
    """``length`` values after ``start``, the last of them ``end``."""
    return [round(start + (end - start) * step / length) for step in range(1, length + 1)]
