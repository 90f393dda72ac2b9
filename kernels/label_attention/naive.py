"""The formula of attention by labels, with the weights of all labels and tokens in memory."""

import torch
from torch import Tensor

from ..precision import compute_type


def label_maps(
    h: Tensor, query: Tensor, weight: Tensor, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Weights of the tokens and what a token says for a label, both (B, L, N) in the type of the
    sums. A token behind the mask has a weight of exactly 0, also where no token is in front of it.
    """
    kind = compute_type(h)
    if mask is not None:  # chosen, not multiplied: rows behind the mask may hold a NaN
        h = h.masked_fill(~mask[..., None], 0.0)
    tokens = h.to(kind).mT
    scores = (query.to(kind) * scale) @ tokens
    if mask is None:
        weights = scores.softmax(-1)
    else:
        absent = ~mask[:, None]
        weights = scores.masked_fill(absent, torch.finfo(kind).min).softmax(-1)
        weights = weights.masked_fill(absent, 0.0)
    return weights, weight.to(kind) @ tokens


def label_attention(
    h: Tensor, query: Tensor, weight: Tensor, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """pooled (B, L), and zeros in place of the log-sum-exps, which only gradients need."""
    weights, evidence = label_maps(h, query, weight, mask, scale)
    pooled = (weights * evidence).sum(-1)
    return pooled, torch.zeros_like(pooled)
