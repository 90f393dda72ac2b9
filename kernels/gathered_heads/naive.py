"""The formula of gathered heads: attention of all tokens in all heads, times the gate."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..precision import compute_type


def gathered_heads(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    gate: Tensor,
    mask: Tensor | None,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """out (B, H, N, d), and zeros in place of the log-sum-exps, which only gradients need."""
    if causal:
        tokens, keys = query.shape[2], key.shape[2]
        before = torch.ones(tokens, keys, dtype=torch.bool, device=query.device).tril(keys - tokens)
        mask = before if mask is None else mask & before
    out = F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scale, enable_gqa=query.shape[1] != key.shape[1]
    )
    out = (out * gate[..., None]).to(out.dtype)
    return out, out.new_zeros(out.shape[:-1], dtype=compute_type(out))
