"""The picture that explains a prediction: the class activation map over the radiograph."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from fracture_watch.disk import write_whole
from fracture_watch.errors import StorageUnavailable
from fracture_watch.model.preprocess import Preprocessor
from fracture_watch.records import Label, Pixels, Prediction, Prepared

Which = Literal["positives", "all", "none"]
Shape = tuple[int, int]  # rows, columns
_STRENGTH = 0.55  # opacity of the hottest point
# Of heat 0 to 255: dark red, orange, yellow; ordered by lightness, so also readable without colour vision.
_PALETTE = np.stack(
    [np.interp(np.arange(256), (0, 127.5, 255), levels) for levels in ((120, 235, 255), (0, 110, 235), (20, 10, 70))],
    axis=-1,
).astype(np.float32)


def aligned(
    evidence: NDArray[np.float32], preprocessor: Preprocessor, shape: Shape, rows: int, columns: int
) -> NDArray[np.float32]:
    """The evidence for *fractured* of all views, laid over the displayed radiograph and added up.

    Parameters
    ----------
    evidence : ndarray of float32, shape (views, h, w)
        Over the model's input, padding included.
    preprocessor : Preprocessor
        Knows where the radiograph lies in each view.
    shape : (int, int)
        Rows and columns of the radiograph that the views were made of: where a smaller one is rounded to another
        aspect ratio, its tiles lie elsewhere.
    rows, columns : int
        Of the radiograph as it is painted.

    Returns
    -------
    ndarray of float32, shape (rows, columns)
    """
    size = preprocessor.size
    boxes = preprocessor.boxes(*shape)
    total = np.zeros((rows, columns), np.float32)
    for view, (left, top, width, height) in zip(evidence, boxes, strict=True):
        enlarged = Image.fromarray(view.astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC)
        # What of the radiograph lies outside a tile is outside the crop's source too, and comes out 0.
        shown = enlarged.crop((left, top, left + width, top + height))
        # A tile's evidence is spread over less of the radiograph than the whole picture's, so there is more to a pixel.
        density = width * height / (boxes[0][2] * boxes[0][3])
        total += np.asarray(shown.resize((columns, rows), Image.Resampling.BILINEAR)) * np.float32(density)
    return total


def overlay(preview: Pixels, evidence: NDArray[np.float32], preprocessor: Preprocessor, shape: Shape) -> Pixels:
    """Paint where the evidence for *fractured* lies over a displayed radiograph.

    Parameters
    ----------
    preview : ndarray of uint8, shape (rows, columns) or (rows, columns, 3)
    evidence : ndarray of float32, shape (views, h, w)
        Only what speaks for *fractured* (over 0) is painted.
    preprocessor : Preprocessor
    shape : (int, int)
        Rows and columns of the radiograph that the views were made of.

    Returns
    -------
    ndarray of uint8, shape (rows, columns, 3)
    """
    heat = _heat(preview, evidence, preprocessor, shape)
    gray = rgb(preview)
    opacity = (heat * np.float32(_STRENGTH))[..., np.newaxis]
    colours = _PALETTE[np.rint(heat * 255).astype(np.uint8)]
    return np.asarray(np.rint(gray + (colours - gray) * opacity), np.uint8)


def rgb(picture: Pixels) -> Pixels:
    """The picture with three channels, shape (rows, columns, 3)."""
    return picture if picture.ndim == 3 else np.repeat(picture[..., np.newaxis], 3, axis=2)


def _heat(
    preview: Pixels, evidence: NDArray[np.float32], preprocessor: Preprocessor, shape: Shape
) -> NDArray[np.float32]:
    """How strongly each pixel speaks for *fractured*, 0 to 1."""
    heat = np.clip(aligned(evidence, preprocessor, shape, *preview.shape[:2]), 0, None)
    return _softened(heat / max(float(heat.max()), 1e-6))


def _softened(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """Without the edges of tiles, which are nothing to look at; 0 to 1, the hottest point 1 again."""
    radius = max(heat.shape) / 50
    soft = Image.fromarray(np.rint(heat * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius))
    levels = np.asarray(soft, np.float32)
    return levels / max(float(levels.max()), 1.0)


def png(pixels: Pixels) -> bytes:
    """A picture as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)  # a radiograph's noise hardly packs, at any level
    return buffer.getvalue()


def plain(pixels: Pixels, side: int | None) -> bytes:
    """The radiograph as a PNG file, its long side at most ``side`` pixels."""
    return png(shrunk(pixels, side))


def painted(
    pixels: Pixels, side: int | None, evidence: NDArray[np.float32] | None, preprocessor: Preprocessor
) -> bytes:
    """Like ``plain``, under the evidence for *fractured*, if there is any."""
    shown = shrunk(pixels, side)
    return png(shown if evidence is None else overlay(shown, evidence, preprocessor, pixels.shape[:2]))


def layer(pixels: Pixels, side: int | None, evidence: NDArray[np.float32] | None, preprocessor: Preprocessor) -> bytes:
    """The evidence alone, as a PNG file to lay over the radiograph; transparent where nothing speaks for a fracture."""
    small = shrunk(pixels, side)
    heat = np.zeros(small.shape[:2]) if evidence is None else _heat(small, evidence, preprocessor, pixels.shape[:2])
    levels = np.rint(heat * 255).astype(np.uint8)
    return png(np.dstack([np.rint(_PALETTE[levels]).astype(np.uint8), levels]))


def shrunk(pixels: Pixels, side: int | None) -> Pixels:
    """The picture with its long side at most ``side`` pixels; never enlarged."""
    if side is None:
        return pixels
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)  # never enlarges
    return np.asarray(image)


def data_url(content: bytes, kind: str = "image/png") -> str:
    """A file as part of a page or an answer."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


@dataclass(frozen=True, slots=True)
class Illustrator:
    """Draws a file's heat map.

    Parameters
    ----------
    preprocessor : Preprocessor
    which : {"positives", "all", "none"}
    """

    preprocessor: Preprocessor
    which: Which = "all"

    def paints(self, prediction: Prediction) -> bool:
        """Whether there is a heat map of it, and one is wanted."""
        wanted = self.which == "all" or (self.which == "positives" and prediction.label is Label.FRACTURED)
        return wanted and prediction.evidence is not None

    def png(self, prepared: Prepared, prediction: Prediction) -> bytes | None:
        """The overlay as PNG; ``None`` where none is wanted."""
        if prediction.evidence is None or not self.paints(prediction):
            return None
        preview, shape = prepared.previews[prediction.frame], prepared.shapes[prediction.frame]
        return png(overlay(preview, prediction.evidence, self.preprocessor, shape))


@dataclass(frozen=True, slots=True)
class Gallery:
    """Keeps heat maps in a folder, named by content and model: the same result again is the same picture."""

    illustrator: Illustrator
    folder: Path

    def __call__(self, prepared: Prepared, prediction: Prediction) -> str | None:
        """Draw and keep one; returns its path.

        Raises
        ------
        StorageUnavailable
            If the folder cannot be written.
        """
        picture = self.illustrator.png(prepared, prediction)
        if picture is None:
            return None
        path = self.place(prepared, prediction)
        self.keep(path, picture)
        return str(path)

    def place(self, prepared: Prepared, prediction: Prediction) -> Path:
        """Where the picture of a result lies."""
        return self.folder / prepared.sha256[:2] / f"{prepared.sha256}-{prediction.model.id}.png"

    @staticmethod
    def keep(path: Path, picture: bytes) -> None:
        """Put a picture in its place, unless the same one is there; raises as a call does."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Of a copy that was cut off here, half a picture would stay for good: it is a duplicate by the next start.
            if not path.exists() or path.stat().st_size != len(picture):
                write_whole(path, picture)
        except OSError as error:
            raise StorageUnavailable(f"the heat map {path} cannot be written: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class DataUrl:
    """Draws heat maps into a data URL, for answers that are not kept."""

    illustrator: Illustrator

    def __call__(self, prepared: Prepared, prediction: Prediction) -> str | None:
        """Draw one."""
        picture = self.illustrator.png(prepared, prediction)
        return None if picture is None else data_url(picture)
