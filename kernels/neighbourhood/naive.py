"""The formulas of the neighbourhood operators, with the members of each window gathered."""

import torch
from torch import Tensor

from ..precision import compute_type


def members(
    height: int, width: int, window: int, clamp: bool, device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """int64 (N, W), cells of each window, 0 outside the image, and bool (N, W), True = inside."""
    y, x, steps = (torch.arange(size, device=device) for size in (height, width, window))
    top, leftmost = y - window // 2, x - window // 2
    if clamp:
        top, leftmost = top.clamp(0, height - window), leftmost.clamp(0, width - window)
    row = (top[:, None] + steps)[:, None, :, None]
    column = (leftmost[:, None] + steps)[None, :, None, :]
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    index = (row * width + column).masked_fill(~inside, 0)
    return index.reshape(height * width, -1), inside.reshape(height * width, -1)


def neighbourhood_scores(
    query: Tensor, key: Tensor, height: int, width: int, window: int, clamp: bool
) -> Tensor:
    """query_i . key_j for the members j of i's window, (B, H, N, W)."""
    index, inside = members(height, width, window, clamp)
    return (query[:, :, :, None] * key[:, :, index]).sum(-1) * inside


def neighbourhood_sum(
    weights: Tensor, value: Tensor, height: int, width: int, window: int, clamp: bool
) -> Tensor:
    """sum_j weights_ij value_j over i's window, (B, H, N, e)."""
    index, inside = members(height, width, window, clamp)
    return ((weights * inside)[..., None] * value[:, :, index]).sum(3)


def neighbourhood_read(
    logits: Tensor,
    value: Tensor,
    mask: Tensor | None,
    height: int,
    width: int,
    window: int,
    clamp: bool,
) -> tuple[Tensor, Tensor]:
    """Softmax over i's window: the weighted mean of the values (B, H, N, e), and lse (B, H, N)."""
    index, inside = members(height, width, window, clamp)
    allowed = inside if mask is None else inside & mask[:, None, index]
    scores = logits.to(compute_type(logits)).masked_fill(~allowed, -torch.inf)
    weights = scores.softmax(-1).nan_to_num(0.0)
    out = neighbourhood_sum(weights, value, height, width, window, clamp)
    return out.to(value.dtype), scores.logsumexp(-1)
