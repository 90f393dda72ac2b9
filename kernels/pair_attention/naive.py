"""The formula of pair-wise cross-attention, with the keys and values of both samples joined."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..precision import compute_type


def pair_attention(
    query: Tensor, key: Tensor, value: Tensor, partner: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """out (B, H, N, e), and zeros in place of the log-sum-exps, which only gradients need."""
    keys, values = (torch.cat([x, x.index_select(0, partner)], 2) for x in (key, value))
    out = F.scaled_dot_product_attention(query, keys, values, scale=scale)
    # Laid out as the operator's output: the heads of a token are next to each other.
    out = out.transpose(1, 2).contiguous().transpose(1, 2)
    return out, out.new_zeros(out.shape[:-1], dtype=compute_type(out))
