"""Pictures as the model takes them, and random changes in training: on the device, one batch at a
time, by torch's seed.

Shapes: B pictures, Y x X pixels.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .options import ReidOptions

# The normalisation of TransReID and DCAL for pictures of people and vehicles: colours to [-1, 1].
MEAN, DEVIATION = 0.5, 0.5
# Random erasing (arXiv 1708.04896): shares of the picture's area; least ratio of height to width.
ERASED_AREA, ERASED_SHAPE = (0.02, 0.4), 0.3


def normalise(images: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 (B, 3, Y, X) to floats (B, 3, *size), cropped to the centre."""
    return _scaled(centre_of(images, size))


def centre_of(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures (..., Y, X) cropped to their centre, (..., *size)."""
    y, x = (images.shape[-2] - size[0]) // 2, (images.shape[-1] - size[1]) // 2
    return images[..., y : y + size[0], x : x + size[1]]


def denormalised(image: Tensor) -> np.ndarray:
    """A normalised picture (3, Y, X) as colours in [0, 1], (Y, X, 3)."""
    return (image * DEVIATION + MEAN).clamp(0, 1).permute(1, 2, 0).numpy()


def augment(images: Tensor, options: ReidOptions) -> Tensor:
    """uint8 (B, 3, Y, X) to floats (B, 3, *options.size): padded, cropped at random, mirrored,
    partly erased."""
    x = _scaled(images)
    if options.pad:
        x = F.pad(x, [options.pad] * 4)
    height, width = options.size
    batch, device = len(x), x.device
    first_row = torch.randint(x.shape[2] - height + 1, (batch, 1), device=device)
    first_column = torch.randint(x.shape[3] - width + 1, (batch, 1), device=device)
    rows = first_row + torch.arange(height, device=device)
    columns = first_column + torch.arange(width, device=device)
    if options.flip:
        mirrored = torch.rand(batch, 1, device=device) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    picture = torch.arange(batch, device=device)[:, None, None]
    x = x.permute(0, 2, 3, 1)[picture, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    if not options.erase:
        return x.contiguous()
    return x.masked_fill(_erased(batch, height, width, options.erase, device), 0.0)


def _scaled(images: Tensor) -> Tensor:
    return images.float().div_(255 * DEVIATION).sub_(MEAN / DEVIATION)


def _erased(batch: int, height: int, width: int, share: float, device: torch.device) -> Tensor:
    """Bool (B, 1, Y, X), True inside a rectangle of each picture that is chosen."""
    low, high = ERASED_AREA
    area = height * width * (low + (high - low) * torch.rand(batch, device=device))
    limit = torch.log(torch.tensor(ERASED_SHAPE))
    shape = torch.exp((2 * torch.rand(batch, device=device) - 1) * -limit)
    tall, wide = (area * shape).sqrt().clamp_max(height), (area / shape).sqrt().clamp_max(width)
    y = torch.rand(batch, device=device) * (height - tall)
    x = torch.rand(batch, device=device) * (width - wide)
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    inside = ((rows >= y[:, None]) & (rows < (y + tall)[:, None]))[:, :, None]
    inside = inside & ((columns >= x[:, None]) & (columns < (x + wide)[:, None]))[:, None]
    return (inside & (torch.rand(batch, device=device) < share)[:, None, None])[:, None]
