"""A displayed radiograph -> the small uint8 views that the model sees. Used alike in training and serving.

Imports NumPy and Pillow only: it runs in the decoding workers, which never load torch.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from fracture_watch.records import Pixels

Resize = Literal["stretch", "letterbox"]
Box = tuple[int, int, int, int]  # left, top, width, height
_SHRUNK = 896  # pixels that the long side has at least after whole blocks were averaged: enough for previews
_GAP = 2.0


class Picture:
    """A frame of which smaller pictures are made; whole blocks of it are averaged once for all of them.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (rows, columns) or (rows, columns, 3)
    side : int
        Long side of the largest picture that is made of it, in pixels; blocks leave twice as many.
    """

    def __init__(self, pixels: Pixels, side: int) -> None:
        self.rows, self.columns = pixels.shape[:2]
        factor = max(1, max(self.rows, self.columns) // max(_SHRUNK, 2 * side))
        image = Image.fromarray(pixels)
        self._image = image.reduce(factor) if factor > 1 else image
        self._box = 0, 0, self.columns / factor, self.rows / factor  # the last blocks may be cut

    def resized(self, width: int, height: int) -> Pixels:
        """Resize by area averaging (bilinear where the picture grows)."""
        # `reducing_gap` averages whole blocks first: as good as the full filter, several times faster.
        size = width, height
        return np.asarray(self._image.resize(size, Image.Resampling.BILINEAR, box=self._box, reducing_gap=_GAP))

    def thumbnail(self, side: int = 512) -> Pixels:
        """The picture with its long side at most ``side`` pixels; never enlarged."""
        longest = max(self.rows, self.columns)
        return self.resized(*_fitted(self.rows, self.columns, min(side, longest)))


@dataclass(frozen=True, slots=True)
class Preprocessor:
    """Makes views of ``size`` x ``size`` pixels by the card's policy: the whole picture, then tiles of it.

    Parameters
    ----------
    size : int
        Side of the model's input in pixels.
    resize : {"stretch", "letterbox"}
        How the whole picture is fitted in: ``stretch`` ignores the aspect ratio; ``letterbox`` keeps it, centred on
        black.
    tiles : (int, int), optional
        How many tiles along the picture's long side and across it; none by default.
    long_side : int
        Of the picture, in pixels, when the tiles are cut from it.
    """

    size: int = 224
    resize: Resize = "letterbox"
    tiles: tuple[int, int] | None = None
    long_side: int = 448

    @property
    def largest(self) -> int:
        """Long side of the largest picture that views are made of, in pixels."""
        return self.size if self.tiles is None else max(self.size, self.long_side)

    def boxes(self, rows: int, columns: int) -> list[Box]:
        """Where the picture lies in each view: (left, top, width, height) in pixels; over a tile's edges."""
        whole = self._whole(rows, columns)
        if self.tiles is None:
            return [whole]
        width, height = _fitted(rows, columns, self.long_side)
        along, across = self.tiles
        down, right = (along, across) if rows >= columns else (across, along)
        lefts, tops = self._offsets(width, right), self._offsets(height, down)
        return [whole, *((left, top, width, height) for top in tops for left in lefts)]

    def __call__(self, pixels: Pixels) -> Pixels:
        """The views of one frame, uint8, shape (rows, columns) or (rows, columns, 3)."""
        return self.views(Picture(pixels, self.largest))

    def views(self, picture: Picture) -> Pixels:
        """The views of one frame.

        Returns
        -------
        ndarray of uint8, shape (views, size, size) or (views, size, size, 3)
        """
        whole, *tiles = self.boxes(picture.rows, picture.columns)
        views = [self._placed(picture.resized(*whole[2:]), whole)]
        if tiles:
            scaled = picture.resized(*tiles[0][2:])
            views += [self._placed(scaled, box) for box in tiles]
        return np.stack(views)

    def _whole(self, rows: int, columns: int) -> Box:
        if self.resize == "stretch":
            return 0, 0, self.size, self.size
        width, height = _fitted(rows, columns, self.size)
        return (self.size - width) // 2, (self.size - height) // 2, width, height

    def _offsets(self, length: int, count: int) -> list[int]:
        """Where the picture begins in each of ``count`` evenly spaced tiles; one centred tile where it is short."""
        room = length - self.size
        if room <= 0 or count == 1:
            return [-room // 2]
        return [-round(room * i / (count - 1)) for i in range(count)]

    def _placed(self, picture: Pixels, box: Box) -> Pixels:
        left, top = box[:2]
        canvas = np.zeros((self.size, self.size, *picture.shape[2:]), np.uint8)
        part = picture[max(0, -top) : self.size - top, max(0, -left) : self.size - left]
        rows, columns = part.shape[:2]
        canvas[max(0, top) : max(0, top) + rows, max(0, left) : max(0, left) + columns] = part
        return canvas


@dataclass(frozen=True, slots=True)
class Small:
    """Everything small that is made of a frame: the views that the model sees, and a preview for people."""

    preprocessor: Preprocessor

    def __call__(self, pixels: Pixels) -> tuple[Pixels, Pixels]:
        """Views and preview of a frame, uint8."""
        picture = Picture(pixels, self.preprocessor.largest)
        return self.preprocessor.views(picture), picture.thumbnail()


def _fitted(rows: int, columns: int, side: int) -> tuple[int, int]:
    """Width and height of a picture whose long side is ``side``."""
    scale = side / max(rows, columns)
    return max(1, round(columns * scale)), max(1, round(rows * scale))
