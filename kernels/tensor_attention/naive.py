"""The formula of third-order attention, with all N M1 M2 scores written out: cubic memory."""

import torch
from torch import Tensor

from ..precision import compute_type


def tensor_attention(
    query: Tensor,
    key1: Tensor,
    value1: Tensor,
    key2: Tensor,
    value2: Tensor,
    mask1: Tensor | None,
    mask2: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """out (B, H, N, e), and zeros in place of the log-sum-exps, which only gradients need."""
    scores = torch.einsum("bhid,bhjd,bhld->bhijl", query, key1, key2).to(compute_type(query))
    scores, pairs = scores * scale, None
    if mask1 is not None or mask2 is not None:
        first, second = (
            torch.ones_like(key[:, 0, :, 0], dtype=torch.bool) if mask is None else mask
            for key, mask in ((key1, mask1), (key2, mask2))
        )
        pairs = (first[:, :, None] & second[:, None])[:, None, None]
        scores = scores.masked_fill(~pairs, torch.finfo(scores.dtype).min)
    weights = scores.flatten(3).softmax(-1).view(scores.shape)
    weights = weights if pairs is None else weights * pairs
    out = torch.einsum("bhijl,bhje,bhle->bhie", weights.to(value1.dtype), value1, value2)
    return out, scores.new_zeros(query.shape[:3])
