"""Random views of training pictures that imitate how real radiographs differ."""

import math

import torch
from torch import Tensor
from torch.nn import functional


def augmented(images: Tensor, size: int, random: torch.Generator) -> Tensor:
    """Geometry, exposure, blur and noise, drawn anew for every picture.

    Parameters
    ----------
    images : Tensor of uint8, shape (n, side, side)
    size : int
        Side of the result in pixels.
    random : torch.Generator

    Returns
    -------
    Tensor of float32, shape (n, 3, size, size), in [0, 1]
    """
    pictures = images[:, None].float() / 255
    grid = functional.affine_grid(_affine(len(pictures), random), [len(pictures), 1, size, size], align_corners=False)
    pictures = functional.grid_sample(pictures, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return _exposure(pictures, random).expand(-1, 3, -1, -1)


def _uniform(count: int, low: float, high: float, random: torch.Generator) -> Tensor:
    return torch.rand(count, generator=random) * (high - low) + low


def _affine(count: int, random: torch.Generator) -> Tensor:
    """Rotation within 20 degrees, zoom 0.8 to 1.1 of the side, aspect, shift, and mirroring."""
    angle = _uniform(count, -math.pi / 9, math.pi / 9, random)
    zoom = _uniform(count, 0.8, 1.1, random)
    aspect = torch.exp(_uniform(count, -0.1, 0.1, random))
    mirror = torch.where(torch.rand(count, generator=random) < 0.5, -1.0, 1.0)
    shift_x, shift_y = _uniform(count, -0.08, 0.08, random), _uniform(count, -0.08, 0.08, random)
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    first = torch.stack([cos * aspect * mirror, -sin / aspect, shift_x], dim=1)
    second = torch.stack([sin * aspect * mirror, cos / aspect, shift_y], dim=1)
    return torch.stack([first, second], dim=1)


def _exposure(pictures: Tensor, random: torch.Generator) -> Tensor:
    """Gamma, contrast, brightness; a tenth inverted; a fifth softened; detector noise."""
    count = len(pictures)

    def each(low: float, high: float) -> Tensor:
        return _uniform(count, low, high, random).view(-1, 1, 1, 1)

    pictures = pictures.clamp(0, 1) ** torch.exp(each(-0.35, 0.35))
    pictures = (pictures - 0.5) * each(0.8, 1.25) + 0.5 + each(-0.1, 0.1)
    pictures = torch.where(each(0, 1) < 0.1, 1 - pictures, pictures)
    soft = functional.avg_pool2d(pictures, 3, stride=1, padding=1)
    pictures = torch.where(each(0, 1) < 0.2, soft, pictures)
    noise = torch.randn(pictures.shape, generator=random) * each(0, 0.03)
    return (pictures + noise).clamp(0, 1)
