"""The formulas of the neighbourhood operators, with the members of each window gathered."""

import torch
from torch import Tensor

from ..precision import compute_type


def members(
    height: int, width: int, window: int, clamp: bool, device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """int64 (N, W), the cells of each window, 0 outside the image, and bool (N, W), True = inside."""
    y, x, steps = (torch.arange(size, device=device) for size in (height, width, window))
    top, left_edge = y - window // 2, x - window // 2
    if clamp:
        top, left_edge = top.clamp(0, height - window), left_edge.clamp(0, width - window)
    row = (top[:, None] + steps)[:, None, :, None]
    column = (left_edge[:, None] + steps)[None, :, None, :]
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    index = (row * width + column).masked_fill(~inside, 0)
    return index.reshape(height * width, -1), inside.reshape(height * width, -1)


def neighbourhood_scores(query: Tensor, key: Tensor, *layout: int) -> Tensor:
    """query_i . key_j for the members j of i's window, (B, H, N, W)."""
    index, inside = members(*layout)
    return (query[:, :, :, None] * key[:, :, index]).sum(-1) * inside


def neighbourhood_sum(weights: Tensor, value: Tensor, *layout: int) -> Tensor:
    """sum_j weights_ij value_j over i's window, (B, H, N, e)."""
    index, inside = members(*layout)
    return ((weights * inside)[..., None] * value[:, :, index]).sum(3)


def neighbourhood_read(
    logits: Tensor, value: Tensor, mask: Tensor | None, *layout: int
) -> tuple[Tensor, Tensor]:
    """Softmax over i's window: the weighted mean of the values (B, H, N, e), and lse (B, H, N)."""
    index, inside = members(*layout)
    allowed = inside if mask is None else inside & mask[:, None, index]
    scores = logits.to(compute_type(logits)).masked_fill(~allowed, -torch.inf)
    weights = scores.softmax(-1).nan_to_num(0.0)
    return neighbourhood_sum(weights, value, *layout).to(value.dtype), scores.logsumexp(-1)
