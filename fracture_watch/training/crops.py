"""Which part of which picture is shown next: whole pictures, crops around fractures, crops without any."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fracture_watch.training.data import Pictures

_JITTER = 0.25  # of the crop's side: how far off its centre a fracture may lie, as with tiles that overlap by half
_MARGIN = 1.25  # of the crop's side: kept free of fractures around a crop that is to show none
_FROM_FRACTURED = 0.3  # of the crops without a fracture, so that implants and casts are seen without one
_TRIES = 20


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """What to show, one row a view.

    Attributes
    ----------
    picture : ndarray of int, shape (n,)
    fractured : ndarray of bool, shape (n,)
        What the view shows.
    centre : ndarray of float, shape (n, 2)
        x and y as fractions of the canvas.
    span : ndarray of float, shape (n,)
        Side of the view as a fraction of the canvas's; 1 shows the whole of it.
    """

    picture: NDArray[np.int64]
    fractured: NDArray[np.bool_]
    centre: NDArray[np.float64]
    span: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sampler:
    """Draws views at random.

    Parameters
    ----------
    pictures : Pictures
    fractured : ndarray of bool, shape (n,)
    fractured_share : float
        Of the views, on average; drawn with replacement, since fractures are rare.
    crop_share : float
        Of the views; crops need pictures with boxes.
    span : float
        Side of a crop as a fraction of the canvas's.
    """

    pictures: Pictures
    fractured: NDArray[np.bool_]
    fractured_share: float
    crop_share: float
    span: float

    def draw(self, count: int, random: np.random.Generator) -> Views:
        """``count`` views."""
        views = [self._one(random) for _ in range(count)]
        picture, fractured, centre, span = zip(*views, strict=True)
        return Views(np.array(picture), np.array(fractured), np.array(centre), np.array(span))

    def _one(self, random: np.random.Generator) -> tuple[int, bool, tuple[float, float], float]:
        fractured = bool(random.random() < self.fractured_share)
        if random.random() >= self.crop_share:
            return self._any(fractured, random), fractured, (0.5, 0.5), 1.0
        picture, centre = self._around_fracture(random) if fractured else self._without_fracture(random)
        return picture, fractured, centre, self.span

    @cached_property
    def _with_boxes(self) -> NDArray[np.int64]:
        return np.flatnonzero([len(boxes) > 0 for boxes in self.pictures.boxes])

    def _any(self, fractured: bool, random: np.random.Generator) -> int:
        return int(random.choice(np.flatnonzero(self.fractured == fractured)))

    def _boxed(self, random: np.random.Generator) -> int:
        return int(random.choice(self._with_boxes))

    def _around_fracture(self, random: np.random.Generator) -> tuple[int, tuple[float, float]]:
        picture = self._boxed(random)
        left, top, right, bottom = random.choice(self.pictures.boxes[picture])
        off = random.uniform(-_JITTER, _JITTER, 2) * self.span
        low, high = self._room(picture)
        x, y = np.clip(np.array([left + right, top + bottom]) / 2 + off, low, high)
        return picture, (float(x), float(y))

    def _without_fracture(self, random: np.random.Generator) -> tuple[int, tuple[float, float]]:
        picture = self._boxed(random) if random.random() < _FROM_FRACTURED else self._any(False, random)
        for _ in range(_TRIES):
            x, y = random.uniform(*self._room(picture))
            reach = self.span * _MARGIN / 2
            left, top, right, bottom = self.pictures.boxes[picture].T
            if not ((left < x + reach) & (right > x - reach) & (top < y + reach) & (bottom > y - reach)).any():
                return picture, (float(x), float(y))
        picture = self._any(False, random)
        x, y = random.uniform(*self._room(picture))
        return picture, (float(x), float(y))

    def _room(self, picture: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lowest and highest centre of a crop that stays inside the picture."""
        left, top, right, bottom = self.pictures.areas[picture]
        low, high = np.array([left, top]) + self.span / 2, np.array([right, bottom]) - self.span / 2
        middle = (low + high) / 2
        return np.minimum(low, middle), np.maximum(high, middle)
