"""Pictures as the model takes them, and how training varies them: on the device, a batch at once,
by torch's seed.

Shapes: B pictures, Y x X pixels of the classifier's, y x x of the body's. Both are moved together.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MEAN, DEVIATION = (
    0.449,
    0.226,
)  # of ImageNet, all colours together, by which timm's weights were trained
CHANGED = 0.3  # share of the pictures whose ratio of sides changes


def normalise(picture: Tensor, small: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 1, Y, X) and (B, 1, y, x) in [0, 1] to what the model takes: by ImageNet, and each by
    itself.
    """
    return (picture - MEAN) / DEVIATION, standardised(small)


def standardised(small: Tensor) -> Tensor:
    """Each picture (B, 1, y, x) minus its mean, by its deviation."""
    centred = small - small.mean((2, 3), keepdim=True)
    return centred / centred.square().mean((2, 3), keepdim=True).sqrt().clamp_min(1e-4)


def augment(batch: dict[str, Tensor], options: Any) -> tuple[Tensor, Tensor]:
    """Both pictures as the model takes them, varied; 0 (black) comes in where nothing was."""
    o = options
    picture, small = batch["picture"], batch["small"]
    theta = moves(len(picture), o, picture.device)
    varied = [moved(x, theta) for x in (picture, small)]
    factor = 1 + o.brightness * (2 * torch.rand(len(picture), 1, 1, 1, device=picture.device) - 1)
    return normalise(*((x * factor).clamp(0, 1) for x in varied))


def moves(count: int, options: Any, device: torch.device) -> Tensor:
    """Affine maps of places in [-1, 1], (B, 2, 3): turned, shifted, zoomed, stretched, mirrored."""
    o = options
    draw = 2 * torch.rand(7, count, device=device) - 1
    zoom = 1 / (1 + o.zoom * draw[0])
    stretch = torch.where(
        draw[1] < 2 * CHANGED - 1, 1 + o.aspect * draw[2], torch.ones_like(zoom)
    ).sqrt()
    turn = math.radians(o.turn) * draw[3]
    mirror = torch.where(draw[6] < 0, -1.0, 1.0) if o.flip else torch.ones_like(turn)
    cos, sin = turn.cos() * zoom, turn.sin() * zoom
    rows = [
        mirror * stretch * cos,
        -stretch * sin,
        2 * o.shift * draw[4],
        mirror * sin / stretch,
        cos / stretch,
        2 * o.shift * draw[5],
    ]
    return torch.stack(rows, 1).unflatten(1, (2, 3))


def moved(x: Tensor, theta: Tensor) -> Tensor:
    """Pictures (B, 1, Y, X) moved by `moves`; black comes in where nothing was."""
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
