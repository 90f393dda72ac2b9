"""Triton form of the neighbourhood operators.

Shapes: G = B H, N = Y X cells, w window, W = w w members, e width of a value.

A program owns a block of cells of one group and walks the members of their windows; scores are read
once, values come from the cache, since neighbouring windows overlap. The gradient of the values
goes the other way round, from each cell to the windows that hold it, so nothing is added atomically
and results are the same each time."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..launching import contiguous, kernel, launch, pair_and_block
from .cpu import compute_type

CELLS, WARPS = 32, 8


@triton.jit
def _start(place, side, window, CLAMP: tl.constexpr):  # pragma: no cover - device code
    """First row or column of the windows of cells at these places."""
    start = place - window // 2
    if CLAMP:
        start = tl.minimum(tl.maximum(start, 0), side - window)
    return start


@kernel
def sum_kernel(
    scores,
    value,
    mask,
    out,
    out_lse,
    heads,
    height,
    width,
    window,
    features,
    SOFTMAX: tl.constexpr,
    CLAMP: tl.constexpr,
    MASKED: tl.constexpr,
    CELLS: tl.constexpr,
    WIDTH: tl.constexpr,
):  # pragma: no cover - device code
    cells = height * width
    group, block = pair_and_block(tl.cdiv(cells, CELLS))
    n = block * CELLS + tl.arange(0, CELLS)
    d = tl.arange(0, WIDTH)
    here, wide = n < cells, d < features
    top_row = _start(n // width, height, window, CLAMP)
    left_column = _start(n % width, width, window, CLAMP)
    best = tl.full((CELLS,), float("-inf"), tl.float32)
    total = tl.zeros((CELLS,), tl.float32)
    summed = tl.zeros((CELLS, WIDTH), tl.float32)
    for o in range(window * window):
        row, column = top_row + o // window, left_column + o % window
        inside = here & (row >= 0) & (row < height) & (column >= 0) & (column < width)
        j = row * width + column
        if MASKED:
            inside = inside & (
                tl.load(mask + (group // heads) * cells + j, mask=inside, other=0) != 0
            )
        score = tl.load(
            scores + (group * cells + n) * window * window + o, mask=here, other=0.0
        ).to(tl.float32)
        at = value + (group * cells + j)[:, None] * features + d[None, :]
        tile = tl.load(at, mask=inside[:, None] & wide[None, :], other=0.0).to(tl.float32)
        if SOFTMAX:
            score = tl.where(inside, score, float("-inf"))
            new = tl.maximum(best, score)
            safe = tl.where(new == float("-inf"), 0.0, new)
            weight, keep = tl.exp(score - safe), tl.exp(best - safe)
            total = total * keep + weight
            summed = summed * keep[:, None] + weight[:, None] * tile
            best = new
        else:
            summed += tl.where(inside, score, 0.0)[:, None] * tile
    if SOFTMAX:
        empty = total == 0.0
        filled = tl.where(empty, 1.0, total)
        summed = summed / filled[:, None]
        tl.store(
            out_lse + group * cells + n,
            tl.where(empty, float("-inf"), tl.log(filled) + best),
            mask=here,
        )
    tl.store(
        out + (group * cells + n)[:, None] * features + d[None, :],
        summed,
        mask=here[:, None] & wide[None, :],
    )


@kernel
def product_kernel(
    a,
    b,
    scores,
    lse,
    delta,
    mask,
    out,
    heads,
    height,
    width,
    window,
    features,
    GRADIENT: tl.constexpr,
    CLAMP: tl.constexpr,
    MASKED: tl.constexpr,
    CELLS: tl.constexpr,
    WIDTH: tl.constexpr,
):  # pragma: no cover - device code
    cells = height * width
    group, block = pair_and_block(tl.cdiv(cells, CELLS))
    n = block * CELLS + tl.arange(0, CELLS)
    d = tl.arange(0, WIDTH)
    here, wide = n < cells, d < features
    top_row = _start(n // width, height, window, CLAMP)
    left_column = _start(n % width, width, window, CLAMP)
    features_of_cell = tl.load(
        a + (group * cells + n)[:, None] * features + d[None, :],
        mask=here[:, None] & wide[None, :],
        other=0.0,
    )
    features_of_cell = features_of_cell.to(tl.float32)
    known, less = tl.zeros((CELLS,), tl.float32), tl.zeros((CELLS,), tl.float32)
    if GRADIENT:
        known = tl.load(lse + group * cells + n, mask=here, other=float("inf"))
        known = tl.where(known == float("-inf"), float("inf"), known)
        less = tl.load(delta + group * cells + n, mask=here, other=0.0)
    for o in range(window * window):
        row, column = top_row + o // window, left_column + o % window
        inside = here & (row >= 0) & (row < height) & (column >= 0) & (column < width)
        j = row * width + column
        if MASKED:
            inside = inside & (
                tl.load(mask + (group // heads) * cells + j, mask=inside, other=0) != 0
            )
        at = b + (group * cells + j)[:, None] * features + d[None, :]
        tile = tl.load(at, mask=inside[:, None] & wide[None, :], other=0.0).to(tl.float32)
        product = tl.sum(features_of_cell * tile, 1)
        place = (group * cells + n) * window * window + o
        if GRADIENT:
            score = tl.load(scores + place, mask=inside, other=float("-inf")).to(tl.float32)
            product = tl.where(inside, tl.exp(score - known) * (product + less), 0.0)
        tl.store(out + place, product, mask=here)


@kernel
def scatter_kernel(
    scores,
    a,
    lse,
    mask,
    out,
    heads,
    height,
    width,
    window,
    features,
    SOFTMAX: tl.constexpr,
    CLAMP: tl.constexpr,
    MASKED: tl.constexpr,
    CELLS: tl.constexpr,
    WIDTH: tl.constexpr,
):  # pragma: no cover - device code
    cells = height * width
    group, block = pair_and_block(tl.cdiv(cells, CELLS))
    j = block * CELLS + tl.arange(0, CELLS)
    d = tl.arange(0, WIDTH)
    here, wide = j < cells, d < features
    row, column = j // width, j % width
    summed = tl.zeros((CELLS, WIDTH), tl.float32)
    counts = here
    if MASKED:
        counts = here & (tl.load(mask + (group // heads) * cells + j, mask=here, other=0) != 0)
    # A shifted window can hold a cell that lies up to w - 1 away from its own.
    reach = window - 1 if CLAMP else window // 2
    side = 2 * reach + 1
    for o in range(side * side):
        y, x = row + o // side - reach, column + o % side - reach
        inside = counts & (y >= 0) & (y < height) & (x >= 0) & (x < width)
        dy, dx = row - _start(y, height, window, CLAMP), column - _start(x, width, window, CLAMP)
        inside = inside & (dy >= 0) & (dy < window) & (dx >= 0) & (dx < window)
        i = y * width + x
        place = (group * cells + i) * window * window + dy * window + dx
        weight = tl.load(scores + place, mask=inside, other=0.0).to(tl.float32)
        if SOFTMAX:
            weight = tl.exp(
                weight - tl.load(lse + group * cells + i, mask=inside, other=float("inf"))
            )
        at = a + (group * cells + i)[:, None] * features + d[None, :]
        tile = tl.load(at, mask=inside[:, None] & wide[None, :], other=0.0).to(tl.float32)
        summed += tl.where(inside, weight, 0.0)[:, None] * tile
    tl.store(
        out + (group * cells + j)[:, None] * features + d[None, :],
        summed,
        mask=here[:, None] & wide[None, :],
    )


def _launch(
    value: Tensor, mask: Tensor | None, height: int, width: int, clamp: bool
) -> tuple[tuple[int], Tensor, dict[str, int]]:
    """Grid of programs, mask (any tensor stands for none), and the flags of all kernels."""
    flags: dict[str, int] = {
        "CLAMP": clamp,
        "MASKED": mask is not None,
        "CELLS": CELLS,
        "num_warps": WARPS,
    }
    flags["WIDTH"] = triton.next_power_of_2(value.shape[3])
    marks = value if mask is None else mask.contiguous().view(torch.uint8)
    groups = value.shape[0] * value.shape[1]
    return (groups * triton.cdiv(height * width, CELLS),), marks, flags


def weighted(
    weights: Tensor, value: Tensor, height: int, width: int, window: int, clamp: bool
) -> Tensor:
    """As `cpu.weighted`, in the type of the values."""
    weights, value = contiguous(weights, value)
    grid, marks, flags = _launch(value, None, height, width, clamp)
    out = torch.empty_like(value)
    sizes = (value.shape[1], height, width, window, value.shape[3])
    if out.numel():
        launch(sum_kernel, grid, weights, value, marks, out, out, *sizes, **flags, SOFTMAX=False)
    return out


def products(a: Tensor, b: Tensor, height: int, width: int, window: int, clamp: bool) -> Tensor:
    """As `cpu.products`, in the type of a."""
    a, b = contiguous(a, b)
    grid, marks, flags = _launch(a, None, height, width, clamp)
    out = a.new_empty((*a.shape[:3], window * window))
    sizes = (a.shape[1], height, width, window, a.shape[3])
    if out.numel():
        launch(product_kernel, grid, a, b, a, a, a, marks, out, *sizes, **flags, GRADIENT=False)
    return out


def scattered(
    weights: Tensor, a: Tensor, height: int, width: int, window: int, clamp: bool
) -> Tensor:
    """As `cpu.scattered`, in the type of a."""
    weights, a = contiguous(weights, a)
    grid, marks, flags = _launch(a, None, height, width, clamp)
    out = torch.empty_like(a)
    sizes = (a.shape[1], height, width, window, a.shape[3])
    if out.numel():
        launch(scatter_kernel, grid, weights, a, a, marks, out, *sizes, **flags, SOFTMAX=False)
    return out


def read(
    logits: Tensor,
    value: Tensor,
    mask: Tensor | None,
    height: int,
    width: int,
    window: int,
    clamp: bool,
) -> tuple[Tensor, Tensor]:
    """As `cpu.read`."""
    logits, value = contiguous(logits, value)
    grid, marks, flags = _launch(value, mask, height, width, clamp)
    out, lse = torch.empty_like(value), value.new_empty(value.shape[:3], dtype=compute_type(value))
    sizes = (value.shape[1], height, width, window, value.shape[3])
    if out.numel():
        launch(sum_kernel, grid, logits, value, marks, out, lse, *sizes, **flags, SOFTMAX=True)
    return out, lse


def read_backward(
    grad: Tensor,
    grad_lse: Tensor,
    logits: Tensor,
    value: Tensor,
    mask: Tensor | None,
    out: Tensor,
    lse: Tensor,
    height: int,
    width: int,
    window: int,
    clamp: bool,
) -> tuple[Tensor, Tensor]:
    """As `cpu.read_backward`, with the lse of the forward pass."""
    grad, logits, value, lse = contiguous(grad, logits, value, lse)
    delta = (grad_lse.float() - (grad.float() * out.float()).sum(-1)).contiguous()
    grid, marks, flags = _launch(value, mask, height, width, clamp)
    d_logits, d_value = torch.empty_like(logits), torch.empty_like(value)
    sizes = (value.shape[1], height, width, window, value.shape[3])
    if value.numel():
        tensors = grad, value, logits, lse, delta, marks, d_logits
        launch(product_kernel, grid, *tensors, *sizes, **flags, GRADIENT=True)
        launch(
            scatter_kernel, grid, logits, grad, lse, marks, d_value, *sizes, **flags, SOFTMAX=True
        )
    return d_logits, d_value
