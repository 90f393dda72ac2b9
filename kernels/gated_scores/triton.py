"""Triton form of the scores of gated attention.

Shapes: M instances, H width, A width of the gates, K branches.

A program owns a tile of rows. For each block of A it runs along H twice in one loop (the products
for v and for u share the tile of h), forms the gates in registers and multiplies them with the
block of the output layer: (M, K) is all that it writes. The backward kernel forms the gates again
and writes v * u and the gradients of both products for a chunk of rows; the large products that are
left (dh and dW) are torch's own."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..launching import launch

TILE = {"ROWS": 64, "INNER": 32, "DEPTH": 16, "BRANCHES": 16}
CHUNK = 1 << 15  # rows whose gradients of the gates are in memory together


@triton.jit
def _gates(
    h,
    weight,
    bias,
    n,
    a,
    rows,
    width,
    inner,
    ROWS: tl.constexpr,
    INNER: tl.constexpr,
    DEPTH: tl.constexpr,
):  # pragma: no cover - device code
    """A tile (ROWS, INNER) of v and u in float32; 0 and 1/2 beyond the edges."""
    v = tl.zeros((ROWS, INNER), tl.float32)
    u = tl.zeros((ROWS, INNER), tl.float32)
    at = n.to(tl.int64)[:, None] * width
    for first in range(0, width, DEPTH):
        d = first + tl.arange(0, DEPTH)
        tile = tl.load(
            h + at + d[None, :], mask=(n < rows)[:, None] & (d < width)[None, :], other=0.0
        )
        inside = (a < inner)[None, :] & (d < width)[:, None]
        for_v = tl.load(weight + a[None, :] * width + d[:, None], mask=inside, other=0.0)
        for_u = tl.load(weight + (inner + a)[None, :] * width + d[:, None], mask=inside, other=0.0)
        v += tl.dot(tile, for_v, input_precision="tf32x3")
        u += tl.dot(tile, for_u, input_precision="tf32x3")
    v += tl.load(bias + a, mask=a < inner, other=0.0).to(tl.float32)[None, :]
    u += tl.load(bias + inner + a, mask=a < inner, other=0.0).to(tl.float32)[None, :]
    return 2.0 / (1.0 + tl.exp(-2.0 * v)) - 1.0, 1.0 / (1.0 + tl.exp(-u))


@triton.jit
def scores_kernel(
    h,
    weight,
    bias,
    out_weight,
    out_bias,
    out,
    rows,
    width,
    inner,
    branches,
    ROWS: tl.constexpr,
    INNER: tl.constexpr,
    DEPTH: tl.constexpr,
    BRANCHES: tl.constexpr,
):  # pragma: no cover - device code
    n = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    k = tl.program_id(1) * BRANCHES + tl.arange(0, BRANCHES)
    total = tl.zeros((ROWS, BRANCHES), tl.float32)
    for block in range(0, inner, INNER):
        a = block + tl.arange(0, INNER)
        v, u = _gates(h, weight, bias, n, a, rows, width, inner, ROWS, INNER, DEPTH)
        last = tl.load(
            out_weight + k[None, :] * inner + a[:, None],
            mask=(k < branches)[None, :] & (a < inner)[:, None],
            other=0.0,
        )
        total += tl.dot((v * u).to(last.dtype), last, input_precision="tf32x3")
    total += tl.load(out_bias + k, mask=k < branches, other=0.0).to(tl.float32)[None, :]
    place = n.to(tl.int64)[:, None] * branches + k[None, :]
    tl.store(out + place, total, mask=(n < rows)[:, None] & (k < branches)[None, :])


@triton.jit
def gates_backward_kernel(
    grad,
    h,
    weight,
    bias,
    out_weight,
    d_z,
    gated,
    rows,
    width,
    inner,
    branches,
    ROWS: tl.constexpr,
    INNER: tl.constexpr,
    DEPTH: tl.constexpr,
    BRANCHES: tl.constexpr,
):  # pragma: no cover - device code
    n = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    a = tl.program_id(1) * INNER + tl.arange(0, INNER)
    v, u = _gates(h, weight, bias, n, a, rows, width, inner, ROWS, INNER, DEPTH)
    d_gated = tl.zeros((ROWS, INNER), tl.float32)
    for block in range(0, branches, BRANCHES):
        k = block + tl.arange(0, BRANCHES)
        g = tl.load(
            grad + n.to(tl.int64)[:, None] * branches + k[None, :],
            mask=(n < rows)[:, None] & (k < branches)[None, :],
            other=0.0,
        )
        last = tl.load(
            out_weight + k[:, None] * inner + a[None, :],
            mask=(k < branches)[:, None] & (a < inner)[None, :],
            other=0.0,
        )
        d_gated += tl.dot(g, last, input_precision="tf32x3")
    inside = (n < rows)[:, None] & (a < inner)[None, :]
    place = n.to(tl.int64)[:, None] * (2 * inner) + a[None, :]
    tl.store(d_z + place, d_gated * u * (1.0 - v * v), mask=inside)
    tl.store(d_z + place + inner, d_gated * v * u * (1.0 - u), mask=inside)
    tl.store(gated + n.to(tl.int64)[:, None] * inner + a[None, :], v * u, mask=inside)


def forward(
    h: Tensor, weight: Tensor, bias: Tensor, out_weight: Tensor, out_bias: Tensor
) -> Tensor:
    """As `cpu.forward`, by Triton."""
    h, weight, out_weight = h.contiguous(), weight.contiguous(), out_weight.contiguous()
    (rows, width), (branches, inner) = h.shape, out_weight.shape
    out = h.new_empty((rows, branches))
    if out.numel():
        grid = triton.cdiv(rows, TILE["ROWS"]), triton.cdiv(branches, TILE["BRANCHES"])
        tensors = h, weight, bias, out_weight, out_bias, out
        launch(scores_kernel, grid, *tensors, rows, width, inner, branches, **TILE)
    return out


def backward(
    grad: Tensor, h: Tensor, weight: Tensor, bias: Tensor, out_weight: Tensor, out_bias: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As `cpu.backward`, by Triton and torch's products."""
    grad, h = grad.contiguous(), h.contiguous()
    weight, out_weight = weight.contiguous(), out_weight.contiguous()
    (rows, width), (branches, inner) = h.shape, out_weight.shape
    d_h = torch.empty_like(h)
    d_weight, d_bias, d_out = (
        torch.zeros(x.shape, dtype=torch.float32, device=h.device)
        for x in (weight, bias, out_weight)
    )
    for start in range(0, rows, CHUNK):
        h_chunk, g = h[start : start + CHUNK], grad[start : start + CHUNK]
        count = h_chunk.shape[0]
        d_z, gated = h.new_empty((count, 2 * inner)), h.new_empty((count, inner))
        tensors = g, h_chunk, weight, bias, out_weight, d_z, gated
        grid = triton.cdiv(count, TILE["ROWS"]), triton.cdiv(inner, TILE["INNER"])
        launch(gates_backward_kernel, grid, *tensors, count, width, inner, branches, **TILE)
        d_out += (g.t() @ gated).float()
        d_bias += d_z.sum(0, dtype=torch.float32)
        d_weight += (d_z.t() @ h_chunk).float()
        torch.mm(d_z, weight, out=d_h[start : start + CHUNK])
    d_weight, d_bias = d_weight.to(weight.dtype), d_bias.to(bias.dtype)
    d_out_bias = grad.sum(0, dtype=torch.float32).to(grad.dtype)
    return d_h, d_weight, d_bias, d_out.to(out_weight.dtype), d_out_bias
