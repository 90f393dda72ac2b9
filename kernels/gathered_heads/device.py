"""PyTorch form of gathered heads off the CPU, where the Triton form cannot run (MPS, float64, no
Triton): attention of all tokens by blocks, times the gate.

Shapes: B batch, H heads, N tokens, M keys, K heads of keys and values, d width of a head. Gathering
would need the counts on the host, so all H N rows are computed, by the read-outs of attention."""

import torch
from torch import Tensor

from ..attention_stats.cpu import stats, stats_backward


def forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    gate: Tensor,
    mask: Tensor | None,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """(out (B, H, N, d), lse (B, H, N)) in the order of their dimensions; lse is +inf where the
    gate is 0 or no key is.
    """
    mixed, lse, *_ = stats(query, key, value, mask, None, None, scale, causal, False, False, top=0)
    off = gate == 0
    out = (mixed * gate[..., None].to(lse.dtype)).to(query.dtype)
    # Filled, not multiplied: what a head that is off computes may be infinite.
    out = out.masked_fill_(off[..., None], 0.0)
    return out, lse.masked_fill_(off | (lse == -torch.inf), torch.inf)


def backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    gate: Tensor,
    mask: Tensor | None,
    out: Tensor,
    lse: Tensor,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key, value and gate; lse of +inf makes the weights of a row 0."""
    off, kind = gate == 0, lse.dtype
    towards = (grad.to(kind) * gate[..., None].to(kind)).to(query.dtype)
    parts = (query, key, value, mask, None, None, lse, scale, causal)
    d_query, d_key, d_value, _ = stats_backward(towards, None, None, None, None, *parts)
    # sum(g o) is sum(g out) / gate.
    d_gate = (grad.to(kind) * out.to(kind)).sum(-1) / gate.to(kind).masked_fill(off, 1.0)
    return d_query, d_key, d_value, d_gate.masked_fill(off, 0.0).to(gate.dtype).contiguous()
