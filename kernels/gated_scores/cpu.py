"""CPU form of the scores of gated attention: rows in blocks, whose gates stay in the cache.

Shapes: M instances of all bags, H width, A width of the gates, K branches.
"""

import torch
from torch import Tensor

from ..precision import compute_type
from .naive import gated_scores, gates

BLOCK = 2048  # rows whose gates are in the cache together


def forward(
    h: Tensor, weight: Tensor, bias: Tensor, out_weight: Tensor, out_bias: Tensor
) -> Tensor:
    """Scores (M, K)."""
    out = h.new_empty((h.shape[0], out_weight.shape[0]))
    for start in range(0, h.shape[0], BLOCK):
        rows = slice(start, start + BLOCK)
        out[rows] = gated_scores(h[rows], weight, bias, out_weight, out_bias)
    return out


def backward(
    grad: Tensor, h: Tensor, weight: Tensor, bias: Tensor, out_weight: Tensor, out_bias: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of h, weight, bias, out_weight and out_bias; sums over rows have `compute_type`."""
    kind, inner, grad = compute_type(h), out_weight.shape[1], grad.contiguous()
    d_h = torch.empty_like(h, memory_format=torch.contiguous_format)
    d_weight, d_bias, d_out = (
        torch.zeros(x.shape, dtype=kind, device=x.device) for x in (weight, bias, out_weight)
    )
    for start in range(0, h.shape[0], BLOCK):
        rows = slice(start, start + BLOCK)
        g, h_block = grad[rows].to(kind), h[rows]
        v, u = gates(h_block, weight, bias)
        gated = v * u
        d_out.addmm_(g.t(), gated)
        d_gated = g @ out_weight.to(kind)
        d_z = v.new_empty((v.shape[0], 2 * inner))
        # d tanh = 1 - v^2, d sigmoid = u (1 - u)
        torch.mul(d_gated, u.addcmul(gated, v, value=-1.0), out=d_z[:, :inner])
        torch.mul(d_gated, gated.addcmul_(gated, u, value=-1.0), out=d_z[:, inner:])
        d_bias += d_z.sum(0)
        d_z = d_z.to(h.dtype)
        d_weight += (d_z.t() @ h_block).to(kind)
        torch.mm(d_z, weight, out=d_h[rows])
    d_weight, d_bias = d_weight.to(weight.dtype), d_bias.to(bias.dtype)
    return d_h, d_weight, d_bias, d_out.to(out_weight.dtype), grad.sum(0)
