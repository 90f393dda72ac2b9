"""PyTorch form of the weighted sum over a token's experts, without a gathered copy of all rows.

Shapes: T tokens, K experts of a token, S = T K rows sorted by expert, D width.
"""

import torch
from torch import Tensor

from ..precision import compute_type


def forward(y: Tensor, weights: Tensor, place: Tensor) -> Tensor:
    """(T, D)."""
    kind = compute_type(y)
    out = y.new_zeros((place.shape[0], y.shape[1]), dtype=kind)
    for k in range(place.shape[1]):
        out.addcmul_(y.index_select(0, place[:, k]).to(kind), weights[:, k, None].to(kind))
    return out.to(y.dtype)


def backward(grad: Tensor, y: Tensor, weights: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of y (S, D) and of the weights (T, K)."""
    kind = compute_type(y)
    grad = grad.to(kind)
    d_y = torch.empty_like(y, memory_format=torch.contiguous_format)
    d_weights = torch.empty_like(weights, memory_format=torch.contiguous_format)
    for k in range(place.shape[1]):
        rows = place[:, k]
        d_y.index_copy_(0, rows, (grad * weights[:, k, None].to(kind)).to(y.dtype))
        d_weights[:, k] = (grad * y.index_select(0, rows).to(kind)).sum(1).to(weights.dtype)
    return d_y, d_weights
