"""PyTorch form of the end of differential attention: for the CPU, and for GPUs without Triton.

Shapes: T rows, S signal heads, R noise heads (R divides S), G = S / R, W width of a head. Rows are
taken in blocks that stay in the cache."""

import torch
from torch import Tensor

from ..precision import compute_type
from .naive import difference

BLOCK_NUMBERS = 1 << 17  # numbers of a block of rows: 512 KiB of float32


def combine(
    rows: Tensor, lam: Tensor, weight: Tensor | None, signal: int, eps: float, scale: float
) -> tuple[Tensor, Tensor]:
    """(out (T, S, W), r (T, S)) of rows (T, S + R, W); r is empty without a norm."""
    kind, (count, _, width) = compute_type(rows), rows.shape
    out = rows.new_empty((count, signal, width))
    rstd = rows.new_empty((0,) if weight is None else (count, signal), dtype=kind)
    step = max(1, BLOCK_NUMBERS // max(rows[:1].numel(), 1))
    for first in range(0, count, step):
        place = slice(first, first + step)
        y = difference(rows[place], lam, signal)[0].flatten(1, 2)
        if weight is not None:
            r = torch.linalg.vector_norm(y, dim=-1).square_().div_(width).add_(eps).rsqrt_()
            rstd[place] = r
            y.mul_(r[..., None]).mul_(weight.to(kind) * scale)
        out[place] = y
    return out, rstd


def combine_backward(
    grad: Tensor,
    rows: Tensor,
    lam: Tensor,
    weight: Tensor | None,
    rstd: Tensor,
    signal: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of rows, lam () and weight (W,), the latter empty without a norm."""
    kind, (count, _, width) = compute_type(rows), rows.shape
    grad = grad.contiguous()
    d_rows = rows.new_empty(rows.shape)
    d_lam = torch.zeros((), dtype=kind, device=rows.device)
    d_weight = rows.new_zeros((0,) if weight is None else (width,), dtype=kind)
    step = max(1, BLOCK_NUMBERS // max(rows[:1].numel(), 1))
    for first in range(0, count, step):
        place = slice(first, first + step)
        y, b = difference(rows[place], lam, signal)
        g = grad[place].to(kind).view(y.shape)
        if weight is not None:
            r = rstd[place].view(*y.shape[:-1], 1)
            unit = y.mul_(r)
            d_weight += torch.einsum("trgw,trgw->w", g, unit)
            g = g * (weight.to(kind) * scale)
            g = torch.addcmul(g, unit, (g * unit).mean(-1, keepdim=True), value=-1).mul_(r)
        summed = g.sum(2)
        d_lam -= (summed * b).sum()
        d_rows[place, :signal] = g.flatten(1, 2)
        d_rows[place, signal:] = summed.mul_(-lam.to(kind))
    d_weight = d_weight.mul_(scale)
    return d_rows, d_lam.to(lam.dtype), d_weight.to(rows.dtype if weight is None else weight.dtype)
