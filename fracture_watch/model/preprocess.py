"""A displayed radiograph -> the small uint8 tensor that the model sees. Used alike in training and serving.

Imports NumPy and Pillow only: it runs in the decoding workers, which never load torch.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from fracture_watch.records import Pixels

Resize = Literal["stretch", "letterbox"]


@dataclass(frozen=True, slots=True)
class Preprocessor:
    """Resizes to ``size`` x ``size`` pixels by the card's policy.

    Parameters
    ----------
    size : int
        Side of the model's input in pixels.
    resize : {"stretch", "letterbox"}
        ``stretch`` ignores the aspect ratio; ``letterbox`` keeps it, centred on black.
    """

    size: int = 224
    resize: Resize = "letterbox"

    def box(self, rows: int, columns: int) -> tuple[int, int, int, int]:
        """Where the picture lies in the input: (left, top, width, height) in pixels."""
        if self.resize == "stretch":
            return 0, 0, self.size, self.size
        scale = self.size / max(rows, columns)
        width, height = max(1, round(columns * scale)), max(1, round(rows * scale))
        return (self.size - width) // 2, (self.size - height) // 2, width, height

    def __call__(self, pixels: Pixels) -> Pixels:
        """Resize one frame.

        Parameters
        ----------
        pixels : ndarray of uint8, shape (rows, columns) or (rows, columns, 3)

        Returns
        -------
        ndarray of uint8, shape (size, size) or (size, size, 3)
        """
        left, top, width, height = self.box(*pixels.shape[:2])
        canvas = np.zeros((self.size, self.size, *pixels.shape[2:]), np.uint8)
        canvas[top : top + height, left : left + width] = resized(pixels, width, height)
        return canvas


def resized(pixels: Pixels, width: int, height: int) -> Pixels:
    """Resize by area averaging (bilinear where the picture grows)."""
    image = Image.fromarray(pixels)
    # `reducing_gap` averages whole blocks first: as good as the full filter, several times faster.
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0))


def thumbnail(pixels: Pixels, side: int = 512) -> Pixels:
    """The picture with its long side at most ``side`` pixels; never enlarged."""
    rows, columns = pixels.shape[:2]
    scale = min(1.0, side / max(rows, columns))
    return resized(pixels, max(1, round(columns * scale)), max(1, round(rows * scale)))
