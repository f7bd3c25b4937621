"""Random looks of training pictures that imitate how real radiographs differ.

Random numbers and what they decide come from the CPU, so that a GPU that works on pictures is hardly waited for; only
the noise is drawn where the pictures are.
"""

import math
from functools import cache

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional

from fracture_watch.model.card import Channels

_MARKS = ("L", "R", "AP", "PA", "LAT", "OBL", "L 12", "R AP", "2017", "SUP")


def geometry(centre: Tensor, span: Tensor, random: torch.Generator) -> Tensor:
    """From where on the canvas each view is drawn.

    Rotation within 20 degrees, zoom 0.8 to 1.15 of the side, aspect, shift and mirroring, around the view that was
    asked for.

    Parameters
    ----------
    centre : Tensor, shape (n, 2)
        x and y as fractions of the canvas.
    span : Tensor, shape (n,)
        Side of the view as a fraction of the canvas's.
    random : torch.Generator

    Returns
    -------
    Tensor of float32, shape (n, 2, 3)
        As ``torch.nn.functional.affine_grid`` takes it.
    """
    count = len(centre)
    angle = _uniform(count, -math.pi / 9, math.pi / 9, random)
    zoom = _uniform(count, 0.8, 1.15, random) * span
    aspect = torch.exp(_uniform(count, -0.1, 0.1, random))
    mirror = torch.where(_rand(count, random) < 0.5, -1.0, 1.0)
    shift = (_rand((count, 2), random) - 0.5) * 0.16 * span[:, None] + 2 * centre - 1
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    first = torch.stack([cos * aspect * mirror, -sin / aspect, shift[:, 0]], dim=1)
    second = torch.stack([sin * aspect * mirror, cos / aspect, shift[:, 1]], dim=1)
    return torch.stack([first, second], dim=1)


def augmented(images: Tensor, places: Tensor, size: int, random: torch.Generator) -> Tensor:
    """Draw each view, and vary exposure, sharpness, noise, collimation and markers.

    Parameters
    ----------
    images : Tensor of uint8, shape (n, side, side)
    places : Tensor, shape (n, 2, 3)
        From ``geometry``.
    size : int
        Side of the result in pixels.
    random : torch.Generator

    Returns
    -------
    Tensor of float32, shape (n, 3, size, size), in [0, 1]
    """
    pictures = _drawn(images[:, None].float() / 255, places, size)
    pictures = _marked(_collimated(pictures, random), random)
    return _exposed(pictures, random).expand(-1, 3, -1, -1)


def cells_on_boxes(places: Tensor, boxes: Tensor, cells: int) -> Tensor:
    """Which cells of a view's feature map lie on a fracture.

    Parameters
    ----------
    places : Tensor, shape (n, 2, 3)
    boxes : Tensor, shape (n, k, 4)
        Left, top, right, bottom as fractions of the canvas; nan where a picture has fewer than k.
    cells : int
        Side of the feature map.

    Returns
    -------
    Tensor of bool, shape (n, cells, cells)
    """
    middles = (functional.affine_grid(places, [len(places), 1, cells, cells], align_corners=False) + 1) / 2
    # A box may lie between the cells' middles, so it counts half a cell further out.
    reach = (_widths(places) / cells / 2).view(-1, 1, 1, 1)
    x, y = middles.unsqueeze(1).unbind(-1)
    left, top, right, bottom = boxes[..., None, None, :].unbind(-1)
    return ((x > left - reach) & (x < right + reach) & (y > top - reach) & (y < bottom + reach)).any(dim=1)


def _drawn(pictures: Tensor, places: Tensor, size: int) -> Tensor:
    """Bilinear. Views that shrink the picture by far are drawn from a small copy: serving averages pixels as well."""
    small = _widths(places) * pictures.shape[-1] > 1.5 * size
    views = pictures.new_empty((len(pictures), 1, size, size))
    for chosen, shrink in ((small, True), (~small, False)):
        if chosen.any():
            source = functional.interpolate(pictures[chosen], size, mode="area") if shrink else pictures[chosen]
            where = places[chosen].to(pictures.device, non_blocking=True)
            grid = functional.affine_grid(where, [len(source), 1, size, size], align_corners=False)
            views[chosen] = functional.grid_sample(source, grid, padding_mode="zeros", align_corners=False)
    return views


def _widths(places: Tensor) -> Tensor:
    """Mean side of each view as a fraction of the canvas's, shape (n,)."""
    widths: Tensor = places[:, :, :2].norm(dim=1).mean(dim=1)
    return widths


def _rand(shape: int | tuple[int, int], random: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=random)


def _uniform(count: int, low: float, high: float, random: torch.Generator) -> Tensor:
    return _rand(count, random) * (high - low) + low


def _collimated(pictures: Tensor, random: torch.Generator) -> Tensor:
    """A seventh gets the dark edges of a tilted collimator."""
    count, size = len(pictures), pictures.shape[-1]
    angle = _uniform(count, -0.3, 0.3, random)
    right, up = (_uniform(count, 0.7, 1.15, random) for _ in range(2))
    offset = _uniform(count, -0.1, 0.1, random)
    line = torch.linspace(-1, 1, size, device=pictures.device)
    y, x = torch.meshgrid(line, line, indexing="ij")
    left_out = _rand(count, random) >= 1 / 7
    cos, sin, right, up, offset, left_out = (
        part.view(-1, 1, 1).to(pictures.device, non_blocking=True)
        for part in (angle.cos(), angle.sin(), right, up, offset, left_out)
    )
    across, along = x * cos + y * sin, y * cos - x * sin
    inside = ((across - offset).abs() < right) & (along.abs() < up)
    return pictures * (inside | left_out)[:, None]


def _marked(pictures: Tensor, random: torch.Generator) -> Tensor:
    """A fifth gets a bright marker near its edge, as burnt-in side letters and labels lie."""
    count, size = len(pictures), pictures.shape[-1]
    chosen = _rand(count, random) < 0.2
    numbers = _rand((count, 4), random)
    for i, (which, along, edge, level) in zip(
        chosen.nonzero().flatten().tolist(), numbers[chosen].tolist(), strict=True
    ):
        mark = _mark(_MARKS[int(which * len(_MARKS))], size).to(pictures.device, non_blocking=True)
        rows, columns = mark.shape
        far = int(along * (size - columns)), int(along * (size - rows))
        left, top = [(far[0], 0), (far[0], size - rows), (0, far[1]), (size - columns, far[1])][int(edge * 4)]
        target = pictures[i, 0, top : top + rows, left : left + columns]
        target.copy_(torch.maximum(target, mark * (0.6 + 0.4 * level)))
    return pictures


@cache
def _mark(text: str, size: int) -> Tensor:
    font = ImageFont.load_default(max(8, size // 14))
    left, top, right, bottom = font.getbbox(text)
    image = Image.new("L", (int(right - left) + 6, int(bottom - top) + 6))
    ImageDraw.Draw(image).text((3 - left, 3 - top), text, fill=255, font=font)
    return torch.from_numpy(np.asarray(image, np.float32)[: size // 2, : size // 2] / 255)


def _exposed(pictures: Tensor, random: torch.Generator) -> Tensor:
    """Gamma, contrast, brightness; a tenth inverted; a fifth softened; detector noise."""
    count = len(pictures)

    def each(low: float, high: float) -> Tensor:
        return _uniform(count, low, high, random).view(-1, 1, 1, 1).to(pictures.device, non_blocking=True)

    pictures = pictures.clamp(0, 1) ** torch.exp(each(-0.35, 0.35))
    pictures = (pictures - 0.5) * each(0.8, 1.25) + 0.5 + each(-0.1, 0.1)
    pictures = torch.where(each(0, 1) < 0.1, 1 - pictures, pictures)
    soft = functional.avg_pool2d(pictures, 3, stride=1, padding=1)
    pictures = torch.where(each(0, 1) < 0.2, soft, pictures)
    seed = int(torch.randint(2**62, (), generator=random))
    own = torch.Generator(pictures.device).manual_seed(seed)
    noise = torch.randn(pictures.shape, generator=own, device=pictures.device) * each(0, 0.03)
    return (pictures + noise).clamp(0, 1)


def normalised(images: Tensor, mean: Channels, std: Channels) -> Tensor:
    """RGB in [0, 1] -> what the network takes, by the statistics of its card."""
    middle, spread = (images.new_tensor(values).view(3, 1, 1) for values in (mean, std))
    return ((images - middle) / spread).contiguous(memory_format=torch.channels_last)
