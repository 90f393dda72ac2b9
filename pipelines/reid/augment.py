"""Pictures as the model takes them, and how training varies them: on the device, a batch at once,
by torch's seed.

Shapes: B pictures, Y x X pixels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# TransReID's and DCAL's own normalisation for pictures of people and vehicles: colours to [-1, 1].
MEAN, DEVIATION = 0.5, 0.5
ERASED_AREA, ERASED_SHAPE = (
    (0.02, 0.4),
    0.3,
)  # shares of the picture; least height over width (arXiv 1708.04896)


def normalise(images: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 (B, 3, Y, X) to floats (B, 3, *size), cut out of the middle."""
    y, x = (images.shape[2] - size[0]) // 2, (images.shape[3] - size[1]) // 2
    return _scaled(images[:, :, y : y + size[0], x : x + size[1]])


def augment(images: Tensor, options: Any) -> Tensor:
    """uint8 (B, 3, Y, X) to floats (B, 3, *options.size): padded, cut at random, mirrored, partly
    blotted out.
    """
    x = _scaled(images)
    if options.pad:
        x = F.pad(x, [options.pad] * 4)
    height, width = options.size
    batch, device = len(x), x.device
    top = torch.randint(x.shape[2] - height + 1, (batch, 1), device=device) + torch.arange(
        height, device=device
    )
    left = torch.randint(x.shape[3] - width + 1, (batch, 1), device=device) + torch.arange(
        width, device=device
    )
    if options.flip:
        mirrored = torch.rand(batch, 1, device=device) < 0.5
        left = torch.where(mirrored, left.flip(1), left)
    own = torch.arange(batch, device=device)[:, None, None]
    x = x.permute(0, 2, 3, 1)[own, top[:, :, None], left[:, None, :]].permute(0, 3, 1, 2)
    return (
        x.masked_fill(_blots(batch, height, width, options.erase, device), 0.0)
        if options.erase
        else x.contiguous()
    )


def _scaled(images: Tensor) -> Tensor:
    return images.float().div_(255 * DEVIATION).sub_(MEAN / DEVIATION)


def _blots(batch: int, height: int, width: int, share: float, device: torch.device) -> Tensor:
    """Bool (B, 1, Y, X), True inside the rectangle of each chosen picture."""
    low, high = ERASED_AREA
    area = height * width * (low + (high - low) * torch.rand(batch, device=device))
    shape = torch.exp(
        (2 * torch.rand(batch, device=device) - 1) * -torch.log(torch.tensor(ERASED_SHAPE))
    )
    tall, wide = (area * shape).sqrt().clamp_max(height), (area / shape).sqrt().clamp_max(width)
    y, x = (
        torch.rand(batch, device=device) * (height - tall),
        torch.rand(batch, device=device) * (width - wide),
    )
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    inside = ((rows >= y[:, None]) & (rows < (y + tall)[:, None]))[:, :, None]
    inside = inside & ((columns >= x[:, None]) & (columns < (x + wide)[:, None]))[:, None]
    return (inside & (torch.rand(batch, device=device) < share)[:, None, None])[:, None]
