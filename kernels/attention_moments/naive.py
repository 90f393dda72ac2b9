"""The formula of the moments of attention rows with their mean, with the mean map."""

import torch
from torch import Tensor

from ..attention_stats.naive import attention_weights


def cosine_moments(
    query: Tensor, key: Tensor, mask: Tensor | None, queries: Tensor, threshold: float, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """dot (B, N), row (B, N) and mean (B,); queries: bool (B, N), those that count; mask: in four
    dimensions.
    """
    weights, _ = attention_weights(query, key, mask, scale)
    rows = weights.mean(1)
    counted = queries & (rows.sum(-1) > 0)
    keys = torch.ones_like(rows[:, 0], dtype=torch.bool)
    keys = keys if mask is None else keys & mask.flatten(1, 2).any(1)
    limit = threshold / keys.sum(-1, keepdim=True).clamp_min(1)
    mean = (rows * counted[..., None]).sum(1) / counted.sum(-1, keepdim=True).clamp_min(1)
    mean = mean * (mean > limit)
    rows = rows * (rows > limit[..., None])
    return torch.einsum("bnm,bm->bn", rows, mean), rows.square().sum(-1), mean.square().sum(-1)
