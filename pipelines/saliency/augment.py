"""Scenes as the model takes them, and their random variation in training: one batch at a time, on
the device of the batch, by torch's seed.

Shapes: B scenes, Y x X pixels. Colour, depth and mask are moved together.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .options import SaliencyOptions

# Of ImageNet, with which timm's weights were trained.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DEPTH_MEAN, DEPTH_DEVIATION = 0.5, 0.25
BLANK = 0.5  # depth of a scene without any


def normalise(image: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
    """uint8 (B, 3, Y, X) and depth in [0, 1] (B, 1, Y, X) to what the model takes."""
    return _normalised(image.float() / 255, depth)


def _normalised(image: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
    mean, deviation = (image.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    return (image - mean) / deviation, (depth - DEPTH_MEAN) / DEPTH_DEVIATION


def augment(batch: dict[str, Tensor], options: SaliencyOptions) -> tuple[Tensor, Tensor, Tensor]:
    """Colour and depth as the model takes them, and the mask as floats (B, 1, Y, X), varied."""
    mask = batch["mask"][:, None].float()
    image, depth, mask = vary(batch["image"].float() / 255, batch["depth"], mask, options)
    return *_normalised(image, depth), mask


def vary(
    image: Tensor, depth: Tensor, mask: Tensor, options: SaliencyOptions
) -> tuple[Tensor, Tensor, Tensor]:
    """Colour (B, 3, Y, X), depth and mask (B, 1, Y, X), all in [0, 1]: cropped, rotated and
    mirrored together; colours changed; the depth of some scenes blanked.
    """
    grid = _grid(len(image), (image.shape[2], image.shape[3]), options, image.device)
    moved = F.grid_sample(
        torch.cat([image, depth, mask], 1),
        grid,
        mode="bilinear",
        padding_mode="reflection",
        align_corners=False,
    )
    image, depth, mask = moved[:, :3], moved[:, 3:4], (moved[:, 4:] > 0.5).float()
    if options.colour:
        image = _recoloured(image, options.colour)
    blanked = torch.rand(len(image), 1, 1, 1, device=image.device) < options.blank
    return image, depth.masked_fill(blanked, BLANK), mask


def _grid(
    count: int, size: tuple[int, int], options: SaliencyOptions, device: torch.device
) -> Tensor:
    """Where each pixel of a varied scene is taken from: (B, Y, X, 2) in [-1, 1]."""
    draw = torch.rand(6, count, device=device)
    side_y, side_x = 1 - options.zoom * draw[0], 1 - options.zoom * draw[1]
    y, x = (2 * draw[2] - 1) * (1 - side_y), (2 * draw[3] - 1) * (1 - side_x)
    turn = (2 * draw[4] - 1) * math.radians(options.turn)
    mirror = torch.where(draw[5] < 0.5, -1.0, 1.0) if options.flip else torch.ones_like(turn)
    # The rotation is in pixels, not in shares of unequal sides, so that a square stays a square.
    ratio = size[0] / size[1]
    cos, sin = turn.cos(), turn.sin()
    rows = [
        mirror * side_x * cos,
        -side_x * sin * ratio,
        x,
        mirror * side_y * sin / ratio,
        side_y * cos,
        y,
    ]
    theta = torch.stack(rows, 1).unflatten(1, (2, 3))
    return F.affine_grid(theta, [count, 1, *size], align_corners=False)


def _recoloured(image: Tensor, most: float) -> Tensor:
    """Brightness, contrast and saturation, each by a factor of 1 - most to 1 + most."""
    factor = 1 + most * (2 * torch.rand(3, len(image), 1, 1, 1, device=image.device) - 1)
    image = image * factor[0]
    image = factor[1] * image + (1 - factor[1]) * image.mean((1, 2, 3), keepdim=True)
    return (factor[2] * image + (1 - factor[2]) * image.mean(1, keepdim=True)).clamp(0, 1)
