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
        """The views of one frame.

        Parameters
        ----------
        pixels : ndarray of uint8, shape (rows, columns) or (rows, columns, 3)

        Returns
        -------
        ndarray of uint8, shape (views, size, size) or (views, size, size, 3)
        """
        whole, *tiles = self.boxes(*pixels.shape[:2])
        views = [self._placed(resized(pixels, *whole[2:]), whole)]
        if tiles:
            picture = resized(pixels, *tiles[0][2:])
            views += [self._placed(picture, box) for box in tiles]
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


def _fitted(rows: int, columns: int, side: int) -> tuple[int, int]:
    """Width and height of a picture whose long side is ``side``."""
    scale = side / max(rows, columns)
    return max(1, round(columns * scale)), max(1, round(rows * scale))


def resized(pixels: Pixels, width: int, height: int) -> Pixels:
    """Resize by area averaging (bilinear where the picture grows)."""
    image = Image.fromarray(pixels)
    # `reducing_gap` averages whole blocks first: as good as the full filter, several times faster.
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0))


def thumbnail(pixels: Pixels, side: int = 512) -> Pixels:
    """The picture with its long side at most ``side`` pixels; never enlarged."""
    rows, columns = pixels.shape[:2]
    return resized(pixels, *_fitted(rows, columns, min(side, max(rows, columns))))
