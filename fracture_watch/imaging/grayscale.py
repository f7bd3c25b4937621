"""Stored values -> display values by PS3.3 and PS3.4: modality, VOI, presentation, 8 bit.

For stored values of up to 16 bits the whole chain is one 65,536-entry table, applied in one pass; wider
integers and floats go through the same functions value by value.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fracture_watch.records import ALL_GREYS, Greys, Pixels

Values = NDArray[np.float64]
WORDS = np.arange(65536, dtype=np.uint16)  # every one that there is
_BLOCK = 16384  # words: `take` makes indices of 8 bytes of them, which then stay in the cache


@dataclass(frozen=True, slots=True)
class StoredValues:
    """How the words of the pixel data are to be read (PS3.5 8.1.1)."""

    bits_stored: int
    high_bit: int
    signed: bool
    encapsulated: bool
    coded_bits: int | None = None  # of a codestream's words, sign bit included, where they are not read by BitsStored

    def of(self, words: NDArray[np.unsignedinteger]) -> Values:
        """The values of words as they stand in the pixel data.

        Bits outside BitsStored are masked in native data (old files keep overlays there). In encapsulated data
        a lossy codec may overshoot BitsStored, which is clipped. Unsigned values of a codestream with a sign lie half
        its range too low.
        """
        low, high = self.limits
        if self.coded_bits:
            raised = 0 if self.signed else 1 << (self.coded_bits - 1)
            return np.clip(sign_extended(words, self.coded_bits).astype(np.float64) + raised, low, high)
        if self.encapsulated and not self.signed:
            return np.clip(words.astype(np.float64), low, high)
        shift = 0 if self.encapsulated else self.high_bit + 1 - self.bits_stored
        values = words.astype(np.int64) >> shift
        if self.signed:
            return sign_extended(values, self.bits_stored).astype(np.float64)
        return (values & ((1 << self.bits_stored) - 1)).astype(np.float64)

    @property
    def limits(self) -> tuple[int, int]:
        """Least and greatest value that BitsStored can hold."""
        if self.signed:
            return -(1 << (self.bits_stored - 1)), (1 << (self.bits_stored - 1)) - 1
        return 0, (1 << self.bits_stored) - 1


def sign_extended(words: NDArray[np.integer[Any]], bits: int) -> NDArray[np.int64]:
    """The lowest ``bits`` of words as a number with sign (two's complement)."""
    lowest = words.astype(np.int64) & ((1 << bits) - 1)
    return lowest - ((lowest >> (bits - 1)) << bits)


@dataclass(frozen=True, slots=True, eq=False)
class Lut:
    """A lookup table of PS3.3 C.11.1 or C.11.2; values before its first and after its last entry take those."""

    first: int
    entries: NDArray[np.uint16]
    bits: int

    def __call__(self, values: Values) -> Values:
        """Look up ``values``."""
        index = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1)
        return np.asarray(self.entries[index.astype(np.int64)], np.float64)


@dataclass(frozen=True, slots=True)
class Window:
    """A VOI window of PS3.3 C.11.2.1.2 or C.11.2.1.3."""

    center: float
    width: float
    function: str = "LINEAR"

    @property
    def valid(self) -> bool:
        """Whether the standard allows it: finite, and wide enough for its function."""
        least = 1.0 if self.function == "LINEAR" else np.nextafter(0, 1)
        return bool(np.isfinite(self.center) and np.isfinite(self.width) and self.width >= least)

    def __call__(self, values: Values) -> Values:
        """Grey, in [0, 1] inside the window; what lies outside it is not clipped yet."""
        if self.function == "SIGMOID":
            exponent = np.clip(-4 * (values - self.center) / self.width, -700, 700)
            return 1 / (1 + np.exp(exponent))
        center, width = self.center, self.width
        if self.function == "LINEAR":
            center, width = center - 0.5, width - 1
        if width == 0:
            return (values > center).astype(np.float64)
        return np.asarray((values - center) / width + 0.5, np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """The grayscale steps that a header asks for. ``voi`` is ``None`` where it has no usable one.

    ``padding`` is the inclusive range of stored values that are no part of the picture; ``greys`` is the part of the
    result that somebody wants to see.
    """

    slope: float = 1.0
    intercept: float = 0.0
    modality_lut: Lut | None = None
    voi: Window | Lut | None = None
    inverse: bool = False
    padding: tuple[float, float] | None = None
    greys: Greys = ALL_GREYS

    def modality(self, stored: Values) -> Values:
        """Stored values -> modality values."""
        if self.modality_lut is not None:
            return self.modality_lut(stored)
        return stored * self.slope + self.intercept

    def display(self, stored: Values, low: float, high: float) -> Pixels:
        """Stored values -> 0..255; without a VOI step, modality values ``low``..``high`` span the greys."""
        with np.errstate(over="ignore", invalid="ignore"):
            grey = np.nan_to_num(self._grey(self.modality(stored), low, high))  # floats near their limits overflow
            grey = self.greys(1 - grey if self.inverse else grey)
        return np.floor(np.clip(grey, 0, 1) * 255 + 0.5).astype(np.uint8)

    def _grey(self, values: Values, low: float, high: float) -> Values:
        if isinstance(self.voi, Lut):
            return self.voi(values) / ((1 << self.voi.bits) - 1)
        if self.voi is not None:
            return self.voi(values)
        return (values - low) / (high - low) if high > low else np.zeros_like(values)

    def spread(self, stored: Values) -> tuple[float, float]:
        """Least and greatest modality value of the finite stored values outside the padding."""
        kept = np.isfinite(stored)
        if self.padding is not None:
            inside = kept & ~((stored >= self.padding[0]) & (stored <= self.padding[1]))
            kept = inside if inside.any() else kept
        values = self.modality(stored[kept])
        return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)


def render(frame: NDArray[Any], stored: StoredValues, chain: Chain) -> Pixels:
    """One grayscale frame -> display values.

    Parameters
    ----------
    frame : ndarray of 8- or 16-bit words, wider integers or floats, shape (rows, columns)
    stored : StoredValues
    chain : Chain

    Returns
    -------
    ndarray of uint8, shape (rows, columns)
    """
    if frame.dtype.itemsize > 2:
        values = _floats(frame) if frame.dtype.kind == "f" else stored.of(frame.view(f"u{frame.itemsize}"))
        return chain.display(values, *chain.spread(values))
    words = frame.view(f"u{frame.dtype.itemsize}")
    return by_table(words, _table(words, stored, chain))


def by_table(words: NDArray[np.unsignedinteger], table: Pixels) -> Pixels:
    """What stands in a table, shape (65536, ...), for each word, shape (rows, ...)."""
    shown = np.empty(words.shape + table.shape[1:], np.uint8)
    step = max(1, _BLOCK // words[0].size)
    for start in range(0, len(words), step):
        table.take(words[start : start + step], axis=0, out=shown[start : start + step], mode="clip")
    return shown


def eight_bits(samples: NDArray[Any], stored: StoredValues) -> Pixels:
    """Samples of colours, shape (rows, columns, 3), in 8 bits: the upper ones of more; of fewer the greatest is 255."""
    if stored.bits_stored == 8 and samples.dtype == np.uint8:
        return np.ascontiguousarray(samples)
    if samples.dtype.itemsize > 2:
        return _eight(stored.of(samples), stored.bits_stored)
    return by_table(samples, _eight(stored.of(WORDS), stored.bits_stored))


def _eight(values: Values, bits: int) -> Pixels:
    eight = values // (1 << (bits - 8)) if bits >= 8 else np.rint(values * 255 / ((1 << bits) - 1))
    return eight.astype(np.uint8)


def with_greys(pixels: Pixels, greys: Greys) -> Pixels:
    """A picture of 8 bit in another window."""
    return pixels if greys == ALL_GREYS else level_table(256, greys).take(pixels)


def level_table(levels: int, greys: Greys) -> Pixels:
    """What becomes of each of a picture's levels, from black to white, shape (levels,)."""
    return np.floor(np.clip(greys(np.arange(levels) / (levels - 1)), 0, 1) * 255 + 0.5).astype(np.uint8)


def _floats(frame: NDArray[np.floating]) -> Values:
    """Where there is no number, the least one stands; infinities go through the chain as they are."""
    values = frame.astype(np.float64)
    finite = values[np.isfinite(values)]
    return np.nan_to_num(values, nan=finite.min() if finite.size else 0.0, posinf=np.inf, neginf=-np.inf)


def _table(words: NDArray[Any], stored: StoredValues, chain: Chain) -> Pixels:
    values = stored.of(WORDS)
    if chain.voi is not None:
        return chain.display(values, 0, 0)
    if stored.bits_stored <= 8:  # the full range, as viewers show 8-bit data
        low, high = stored.limits
        ends = chain.modality(np.arange(low, high + 1, dtype=np.float64))  # all, since a Modality LUT may turn back
        return chain.display(values, float(ends.min()), float(ends.max()))
    present = np.zeros(65536, bool)
    present[words] = True
    return chain.display(values, *chain.spread(values[present]))
