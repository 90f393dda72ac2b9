"""Pictures as the model takes them, and how training varies them: on the device, a batch at once,
by torch's seed.

Shapes: B pictures, Y x X pixels of the classifier's, y x x of the body's. Both are moved together.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .options import MedicalOptions

# Of ImageNet, all colours together; timm's weights were trained with these.
MEAN, DEVIATION = 0.449, 0.226
STRETCHED = 0.3  # share of the pictures whose aspect ratio changes


def normalise(picture: Tensor, small: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 1, Y, X) and (B, 1, y, x) in [0, 1] to what the model takes: the first by the statistics
    of ImageNet, the second by its own.
    """
    return (picture - MEAN) / DEVIATION, standardise(small)


def standardise(small: Tensor) -> Tensor:
    """Each picture (B, 1, y, x) minus its mean, divided by its deviation."""
    centred = small - small.mean((2, 3), keepdim=True)
    return centred / centred.square().mean((2, 3), keepdim=True).sqrt().clamp_min(1e-4)


def augment(picture: Tensor, small: Tensor, options: MedicalOptions) -> tuple[Tensor, Tensor]:
    """Both pictures in [0, 1] varied at random, as the model takes them."""
    maps = random_maps(len(picture), options, picture.device)
    varied = [move(x, maps) for x in (picture, small)]
    draw = torch.rand(len(picture), 1, 1, 1, device=picture.device)
    factor = 1 + options.brightness * (2 * draw - 1)
    return normalise(*((x * factor).clamp(0, 1) for x in varied))


def random_maps(count: int, options: MedicalOptions, device: torch.device) -> Tensor:
    """Random affine maps of places in [-1, 1], (B, 2, 3): rotation, shift, zoom, aspect ratio and
    mirror image.
    """
    o = options
    draw = 2 * torch.rand(7, count, device=device) - 1
    zoom = 1 / (1 + o.zoom * draw[0])
    stretch = torch.where(
        draw[1] < 2 * STRETCHED - 1, 1 + o.aspect * draw[2], torch.ones_like(zoom)
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


def move(x: Tensor, maps: Tensor) -> Tensor:
    """Pictures (B, 1, Y, X) moved by `random_maps`; 0 (black) enters where there was nothing."""
    grid = F.affine_grid(maps, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
