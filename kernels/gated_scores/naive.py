"""The formula of the scores of gated attention, all rows at once; exported programs hold it."""

import torch.nn.functional as F
from torch import Tensor

from ..precision import compute_type


def gates(h: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """(v, u), each (M, A), in the type of the sums."""
    v, u = F.linear(h, weight, bias).to(compute_type(h)).chunk(2, 1)
    return v.tanh(), u.sigmoid()


def gated_scores(
    h: Tensor, weight: Tensor, bias: Tensor, out_weight: Tensor, out_bias: Tensor
) -> Tensor:
    """h: (M, H), weight: (2 A, H), bias: (2 A,), out_weight: (K, A), out_bias: (K,) -> (M, K)."""
    v, u = gates(h, weight, bias)
    return F.linear((v * u).to(h.dtype), out_weight, out_bias)
