"""Indicators of what an attention map does (Deconstructing Attention, arXiv 2510.11602), from
`weights` (B, H, N, M).

Each gives one number per map, (B, H), except the diversity of heads, (B,). Readings: the paper's
entropy and deviation are taken as means over rows, the deviation over heads with divisor H.
"""

import torch
from torch import Tensor

from ..base import causal_mask


def entropy(weights: Tensor) -> Tensor:
    """Mean over rows of -sum a ln a: 0 for one key per row, ln M for even rows."""
    return -torch.xlogy(weights, weights).sum(-1).mean(-1)


def concentration(weights: Tensor) -> Tensor:
    """Frobenius norm of the map: sqrt(N) for one key per row, sqrt(N / M) for even rows."""
    return torch.linalg.matrix_norm(weights)


def head_diversity(weights: Tensor, *, causal: bool = False) -> Tensor:
    """Mean over entries of the standard deviation over heads (B,); 0 for equal heads.

    causal: only over the entries j <= i.
    """
    deviation = weights.std(1, correction=0)
    if not causal:
        return deviation.mean((1, 2))
    tokens, keys = weights.shape[2:]
    lower = causal_mask(tokens, keys, weights.device)
    return (deviation * lower).sum((1, 2)) / lower.sum()


def sink(weights: Tensor) -> Tensor:
    """Mean weight on the first key."""
    return weights[..., 0].mean(-1)


def local_focus(weights: Tensor, back: int = 0) -> Tensor:
    """Mean weight on the token `back` positions before (the paper: 0 to 3).

    Raises ValueError for more positions than tokens.
    """
    if not 0 <= back < weights.shape[2]:
        raise ValueError(f"local_focus: back must lie in 0 to {weights.shape[2] - 1}, got {back}")
    return weights.diagonal(-back, 2, 3).mean(-1)


def indicators(weights: Tensor, *, causal: bool = False) -> dict[str, Tensor]:
    """All indicators by name."""
    near = range(min(4, weights.shape[2]))
    return {
        "entropy": entropy(weights),
        "concentration": concentration(weights),
        "head_diversity": head_diversity(weights, causal=causal),
        "sink": sink(weights),
        **{f"local_focus_{back}": local_focus(weights, back) for back in near},
    }
