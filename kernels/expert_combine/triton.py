"""Triton form of the weighted sum over a token's experts.

Shapes: T tokens, K experts of a token, S = T K rows sorted by expert, D width.

A program owns a block of tokens. Forward it reads the K rows of each and writes one; backward it
walks along the width, writes the K rows' gradients and sums the products for those of the weights.
A row belongs to one token, so nothing is added by two programs and sums have one order."""

import triton
import triton.language as tl
from torch import Tensor

from ..launching import contiguous, kernel, launch

ROWS, COLUMNS = 16, 64  # tokens and columns of a tile: 8 numbers per thread
TILE = {"ROWS": ROWS, "COLUMNS": COLUMNS}


@kernel
def combine_kernel(
    y, weights, place, out, count, active, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # pragma: no cover - device code
    t = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    d = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    row = t < count
    inside = row[:, None] & (d < width)[None, :]
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for k in range(active):
        source = tl.load(place + t * active + k, mask=row, other=0)
        w = tl.load(weights + t * active + k, mask=row, other=0.0).to(tl.float32)
        part = tl.load(y + source[:, None] * width + d[None, :], mask=inside, other=0.0).to(
            tl.float32
        )
        total += w[:, None] * part
    tl.store(out + t[:, None] * width + d[None, :], total, mask=inside)


@kernel
def combine_backward_kernel(
    grad,
    y,
    weights,
    place,
    d_y,
    d_weights,
    count,
    active,
    width,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # pragma: no cover - device code
    t = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    row = t < count
    for k in range(active):
        source = tl.load(place + t * active + k, mask=row, other=0)
        w = tl.load(weights + t * active + k, mask=row, other=0.0).to(tl.float32)
        product = tl.zeros((ROWS,), tl.float32)
        for start in range(0, width, COLUMNS):
            d = start + tl.arange(0, COLUMNS)
            inside = row[:, None] & (d < width)[None, :]
            g = tl.load(grad + t[:, None] * width + d[None, :], mask=inside, other=0.0).to(
                tl.float32
            )
            at = source[:, None] * width + d[None, :]
            product += tl.sum(g * tl.load(y + at, mask=inside, other=0.0).to(tl.float32), 1)
            tl.store(d_y + at, w[:, None] * g, mask=inside)
        tl.store(d_weights + t * active + k, product, mask=row)


def forward(y: Tensor, weights: Tensor, place: Tensor) -> Tensor:
    """As `cpu.forward`, by Triton."""
    (tokens, active), width = place.shape, y.shape[1]
    out = y.new_empty((tokens, width))
    tensors = *contiguous(y, weights, place), out
    if out.numel():
        grid = triton.cdiv(tokens, ROWS), triton.cdiv(width, COLUMNS)
        launch(combine_kernel, grid, *tensors, tokens, active, width, **TILE)
    return out


def backward(grad: Tensor, y: Tensor, weights: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """As `cpu.backward`, by Triton."""
    (tokens, active), width = place.shape, y.shape[1]
    d_y, d_weights = y.new_empty(y.shape), weights.new_empty(weights.shape)
    tensors = *contiguous(grad, y, weights, place), d_y, d_weights
    if tokens:
        grid = (triton.cdiv(tokens, ROWS),)
        launch(combine_backward_kernel, grid, *tensors, tokens, active, width, **TILE)
    return d_y, d_weights
