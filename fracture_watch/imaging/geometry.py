"""What is shown of a frame, and in which proportions: shutters, collimators and pixels that are not square."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom import Dataset

from fracture_watch.imaging.header import numbers, text
from fracture_watch.imaging.limits import Limits
from fracture_watch.records import Pixels

_SQUARE = 0.01  # up to here the difference is one of rounding, not worth resampling
_LONGEST_SHAPE = 16  # characters: what a value of its kind may have (PS3.5 6.2, CS)
_MOST = 16.0  # a ratio beyond this is a mistake, not a detector


def exposed(pixels: Pixels, header: Dataset) -> tuple[Pixels, tuple[str, ...]]:
    """Black out what lies outside the Display Shutter (PS3.3 C.7.6.11) and the collimator (C.8.7.3), and say so."""
    notes = []
    shown = np.ones(pixels.shape[:2], bool)
    for name in ("Shutter", "Collimator"):
        shapes = (text(header, f"{name}Shape") or "").upper().split("\\", len(_SHAPES))
        for shape in (shape[:_LONGEST_SHAPE] for shape in shapes[: len(_SHAPES)]):  # one of each kind at most
            draw = _SHAPES.get(shape)
            if not shape:
                continue
            mask = draw(header, name, *pixels.shape[:2]) if draw else None
            if mask is None or not (mask & shown).any():  # with those before it, it would leave nothing to see
                notes.append(f"{name}Shape {shape} ignored: it cannot be applied")
            elif not mask.all():
                shown &= mask
                notes.append(f"{name}Shape {shape} applied")
    if not shown.all():
        pixels = np.where(shown if pixels.ndim == 2 else shown[..., None], pixels, np.uint8(0))
    return pixels, tuple(notes)


def squared(pixels: Pixels, header: Dataset, limits: Limits) -> tuple[Pixels, tuple[str, ...]]:
    """Enlarge the frame along one axis so that its pixels are square, as viewers do, and say so.

    Raises
    ------
    TooLarge
        If it would then have more pixels than allowed.
    """
    ratio = _aspect(header)
    if ratio is None or abs(ratio - 1) <= _SQUARE:
        return pixels, ()
    if not 1 / _MOST <= ratio <= _MOST:
        return pixels, (f"pixels of {ratio:g}:1 cannot be meant; shown as square ones",)
    rows, columns = pixels.shape[:2]
    height, width = (round(rows * ratio), columns) if ratio > 1 else (rows, round(columns / ratio))
    limits.check_pixels(height, width)
    shown = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    return shown, (f"pixels made square: {rows} x {columns} shown as {height} x {width}",)


def _aspect(header: Dataset) -> float | None:
    """Height of a pixel over its width: from its spacing in millimetres, else as PixelAspectRatio states it."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio"):
        pair = numbers(header, keyword)
        if len(pair) == 2 and all(np.isfinite(pair)) and min(pair) > 0:
            return pair[0] / pair[1]
    return None


def _rectangle(header: Dataset, name: str, rows: int, columns: int) -> NDArray[np.bool_] | None:
    """The edges themselves are shown; they count from 1."""
    keywords = "LeftVerticalEdge", "RightVerticalEdge", "UpperHorizontalEdge", "LowerHorizontalEdge"
    edges = [value for keyword in keywords for value in numbers(header, f"{name}{keyword}")[:1]]
    if len(edges) != 4 or not all(np.isfinite(edges)):
        return None
    left, right, upper, lower = (int(np.clip(edge, -1, 1 << 20)) for edge in edges)
    mask = np.zeros((rows, columns), bool)
    mask[max(0, upper - 1) : max(0, lower), max(0, left - 1) : max(0, right)] = True
    return mask


def _circle(header: Dataset, name: str, rows: int, columns: int) -> NDArray[np.bool_] | None:
    """The radius counts along a row; where pixels are not square the circle is an ellipse of pixels."""
    center, radius = numbers(header, f"CenterOfCircular{name}"), numbers(header, f"RadiusOfCircular{name}")
    if len(center) != 2 or not radius or not all(np.isfinite([*center, radius[0]])) or radius[0] <= 0:
        return None
    down = np.arange(1, rows + 1)[:, None] - center[0]
    across = np.arange(1, columns + 1)[None] - center[1]
    return (down * (_aspect(header) or 1.0)) ** 2 + across**2 <= radius[0] ** 2


def _polygon(header: Dataset, name: str, rows: int, columns: int) -> NDArray[np.bool_] | None:
    vertices = numbers(header, f"VerticesOfThePolygonal{name}")
    if len(vertices) < 6 or len(vertices) % 2 or not all(np.isfinite(vertices)):
        return None
    canvas = Image.new("1", (columns, rows))
    corners = [(x - 1, y - 1) for y, x in zip(vertices[::2], vertices[1::2], strict=True)]
    ImageDraw.Draw(canvas).polygon(corners, fill=1, outline=1)
    return np.asarray(canvas)


_SHAPES: dict[str, Callable[[Dataset, str, int, int], NDArray[np.bool_] | None]] = {
    "RECTANGULAR": _rectangle,
    "CIRCULAR": _circle,
    "POLYGONAL": _polygon,
}
