"""Triton form of the scores of gated attention.

Shapes: M instances, H width, A width of the gates, K branches.

The product h W^T for both gates is torch's own, for a chunk of rows: it runs at the speed of the
tensor cores, which a product inside our kernel did not (a tile of it read h again for each block of
A). What follows is one pass over a tile of that product: the gates in registers, times the output
layer. Neither gate is in memory; the product of a chunk is, 2 A numbers a row. The backward pass
makes the product again and writes the gradients of it in its place."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..launching import PRECISION, contiguous, kernel, launch

TILE = {"ROWS": 64, "INNER": 32, "BRANCHES": 16}
CHUNK = 1 << 15  # rows whose gates are in memory together


@triton.jit
def _gates(z, place, inside, inner):  # pragma: no cover - device code
    """v and u in float32; 0 and 1/2 outside."""
    v = tl.load(z + place, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(z + place + inner, mask=inside, other=0.0).to(tl.float32)
    return 2.0 / (1.0 + tl.exp(-2.0 * v)) - 1.0, 1.0 / (1.0 + tl.exp(-u))


@kernel
def scores_kernel(
    z,
    out_weight,
    out_bias,
    out,
    rows,
    inner,
    branches,
    ROWS: tl.constexpr,
    INNER: tl.constexpr,
    BRANCHES: tl.constexpr,
):  # pragma: no cover - device code
    n = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    k = tl.program_id(1) * BRANCHES + tl.arange(0, BRANCHES)
    total = tl.zeros((ROWS, BRANCHES), tl.float32)
    at = n.to(tl.int64)[:, None]
    for block in range(0, inner, INNER):
        a = block + tl.arange(0, INNER)
        inside = (n < rows)[:, None] & (a < inner)[None, :]
        v, u = _gates(z, at * (2 * inner) + a[None, :], inside, inner)
        last = tl.load(
            out_weight + k[None, :] * inner + a[:, None],
            mask=(k < branches)[None, :] & (a < inner)[:, None],
            other=0.0,
        )
        total += tl.dot((v * u).to(last.dtype), last, input_precision=PRECISION)
    total += tl.load(out_bias + k, mask=k < branches, other=0.0).to(tl.float32)[None, :]
    place = at * branches + k[None, :]
    tl.store(out + place, total, mask=(n < rows)[:, None] & (k < branches)[None, :])


@kernel
def gates_backward_kernel(
    grad,
    z,
    out_weight,
    gated,
    rows,
    inner,
    branches,
    ROWS: tl.constexpr,
    INNER: tl.constexpr,
    BRANCHES: tl.constexpr,
):  # pragma: no cover - device code
    n = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    a = tl.program_id(1) * INNER + tl.arange(0, INNER)
    at = n.to(tl.int64)[:, None]
    inside = (n < rows)[:, None] & (a < inner)[None, :]
    place = at * (2 * inner) + a[None, :]
    v, u = _gates(z, place, inside, inner)
    d_gated = tl.zeros((ROWS, INNER), tl.float32)
    for block in range(0, branches, BRANCHES):
        k = block + tl.arange(0, BRANCHES)
        g = tl.load(
            grad + at * branches + k[None, :],
            mask=(n < rows)[:, None] & (k < branches)[None, :],
            other=0.0,
        )
        last = tl.load(
            out_weight + k[:, None] * inner + a[None, :],
            mask=(k < branches)[:, None] & (a < inner)[None, :],
            other=0.0,
        )
        d_gated += tl.dot(g, last, input_precision=PRECISION)
    # Nobody else reads these two tiles of z.
    tl.store(z + place, d_gated * u * (1.0 - v * v), mask=inside)
    tl.store(z + place + inner, d_gated * v * u * (1.0 - u), mask=inside)
    tl.store(gated + at * inner + a[None, :], v * u, mask=inside)


def forward(
    h: Tensor, weight: Tensor, bias: Tensor, out_weight: Tensor, out_bias: Tensor
) -> Tensor:
    """As `cpu.forward`, by torch's product and Triton."""
    h, out_weight, out_bias = contiguous(h, out_weight, out_bias)
    branches, inner = out_weight.shape
    out = h.new_empty((h.shape[0], branches))
    if not out.numel():
        return out
    for chunk, scores in zip(h.split(CHUNK), out.split(CHUNK)):
        z, count = torch.addmm(bias, chunk, weight.t()), chunk.shape[0]
        grid = triton.cdiv(count, TILE["ROWS"]), triton.cdiv(branches, TILE["BRANCHES"])
        launch(scores_kernel, grid, z, out_weight, out_bias, scores, count, inner, branches, **TILE)
    return out


def backward(
    grad: Tensor, h: Tensor, weight: Tensor, bias: Tensor, out_weight: Tensor, out_bias: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As `cpu.backward`, by torch's products and Triton."""
    grad, h, out_weight = contiguous(grad, h, out_weight)
    branches, inner = out_weight.shape
    d_h = torch.empty_like(h)
    d_weight, d_bias, d_out = (
        torch.zeros(x.shape, dtype=torch.float32, device=h.device)
        for x in (weight, bias, out_weight)
    )
    for chunk, g, d_chunk in zip(h.split(CHUNK), grad.split(CHUNK), d_h.split(CHUNK)):
        count = chunk.shape[0]
        if not count:
            continue
        z, gated = torch.addmm(bias, chunk, weight.t()), h.new_empty((count, inner))
        grid = triton.cdiv(count, TILE["ROWS"]), triton.cdiv(inner, TILE["INNER"])
        if z.numel():
            tensors = g, z, out_weight, gated
            launch(gates_backward_kernel, grid, *tensors, count, inner, branches, **TILE)
        d_out += (g.t() @ gated).float()
        d_bias += z.sum(0, dtype=torch.float32)
        d_weight += (z.t() @ chunk).float()
        torch.mm(z, weight, out=d_chunk)
    d_weight, d_bias = d_weight.to(weight.dtype), d_bias.to(bias.dtype)
    d_out_bias = grad.sum(0, dtype=torch.float32).to(grad.dtype)
    return d_h, d_weight, d_bias, d_out.to(out_weight.dtype), d_out_bias
