"""Triton form of softmax pooling and drawing.

Shapes: B bags, N rows, D width, H heads, S splits of the rows of a bag.

Each program owns a block of features of one bag and walks the rows in tiles, keeping running
maximum, sum and weighted sum (online softmax: Milakov and Gimelshein, arXiv 1805.02867), so the
scores are read once. When bags and features are too few to fill the device, the rows are split over
S programs and their partial sums are merged afterwards. Per head the weighted sum is a matrix
product in the tensor cores (float32 as three TF32 products). The draw keeps the running maximum of
score - log(exponential noise), the noise from Philox by (seed + bag, row, feature): nothing random
is ever stored.

Tiles are fixed, not tuned: the kernels are limited by memory, and the interpreter cannot run a
tuned kernel. Padded and packed bags differ only in where a bag starts and ends."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .cpu import compute_type

ROWS, WIDTH = 64, 64
# Smaller tiles per head: with these no kernel spills a register on sm_90, in float32 or bf16.
PER_HEAD: dict[str, Any] = {"ROWS": 32, "HEADS": 16}
PROGRAMS = 264  # two for each of the 132 multiprocessors of an H100


@triton.jit
def _bag(
    offsets, bag, rows, PACKED: tl.constexpr
):  # pragma: no cover - runs on the device or in the interpreter
    """First row of the bag in memory, and its number of rows."""
    if PACKED:
        start = tl.load(offsets + bag)
        count = (tl.load(offsets + bag + 1) - start).to(tl.int32)
    else:
        start = bag.to(tl.int64) * rows
        count = rows
    return start, count


@triton.jit
def _scores(
    scores, mask, start, n, d, count, width, MASKED: tl.constexpr
):  # pragma: no cover - device code
    """Tile of scores in float32, -inf where nothing counts, and where something counts."""
    counts = (n < count)[:, None] & (d < width)[None, :]
    if MASKED:
        counts = counts & (tl.load(mask + start + n, mask=n < count, other=0) != 0)[:, None]
    tile = tl.load(
        scores + (start + n)[:, None] * width + d[None, :], mask=counts, other=float("-inf")
    )
    return tile.to(tl.float32), counts


@triton.jit
def pool_kernel(
    scores,
    values,
    mask,
    offsets,
    out_top,
    out_total,
    out_sum,
    rows,
    width,
    bags,
    splits,
    PACKED: tl.constexpr,
    MASKED: tl.constexpr,
    OWN: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):  # pragma: no cover - device code
    bag, split = tl.program_id(0), tl.program_id(2)
    d = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    start, count = _bag(offsets, bag, rows, PACKED)
    top = tl.full((WIDTH,), float("-inf"), tl.float32)
    total = tl.zeros((WIDTH,), tl.float32)
    summed = tl.zeros((WIDTH,), tl.float32)
    for first in range(split * ROWS, count, splits * ROWS):
        n = first + tl.arange(0, ROWS)
        tile, counts = _scores(scores, mask, start, n, d, count, width, MASKED)
        if OWN:
            value = tl.where(counts, tile, 0.0)
        else:
            value = tl.load(
                values + (start + n)[:, None] * width + d[None, :], mask=counts, other=0.0
            ).to(tl.float32)
        new = tl.maximum(top, tl.max(tile, 0))
        safe = tl.where(new == float("-inf"), 0.0, new)
        weight = tl.exp(tile - safe[None, :])
        keep = tl.exp(top - safe)
        total = total * keep + tl.sum(weight, 0)
        summed = summed * keep + tl.sum(tl.where(counts, weight * value, 0.0), 0)
        top = new
    at = (split * bags + bag).to(tl.int64) * width + d
    tl.store(out_top + at, top, mask=d < width)
    tl.store(out_total + at, total, mask=d < width)
    tl.store(out_sum + at, summed, mask=d < width)


@triton.jit
def pool_backward_kernel(
    grad,
    scores,
    values,
    mask,
    offsets,
    pooled,
    lse,
    d_scores,
    d_values,
    rows,
    width,
    splits,
    PACKED: tl.constexpr,
    MASKED: tl.constexpr,
    OWN: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):  # pragma: no cover - device code
    bag, split = tl.program_id(0), tl.program_id(2)
    d = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    start, count = _bag(offsets, bag, rows, PACKED)
    at = bag.to(tl.int64) * width + d
    g = tl.load(grad + at, mask=d < width, other=0.0).to(tl.float32)
    mean = tl.load(pooled + at, mask=d < width, other=0.0).to(tl.float32)
    log_total = tl.load(lse + at, mask=d < width, other=float("inf"))
    for first in range(split * ROWS, count, splits * ROWS):
        n = first + tl.arange(0, ROWS)
        tile, counts = _scores(scores, mask, start, n, d, count, width, MASKED)
        place = (start + n)[:, None] * width + d[None, :]
        inside = (n < count)[:, None] & (d < width)[None, :]
        d_value = tl.exp(tile - log_total[None, :]) * g[None, :]
        if OWN:
            d_score = tl.where(counts, d_value * (tile - mean[None, :] + 1.0), 0.0)
        else:
            value = tl.load(values + place, mask=counts, other=0.0).to(tl.float32)
            d_score = tl.where(counts, d_value * (value - mean[None, :]), 0.0)
            tl.store(d_values + place, tl.where(counts, d_value, 0.0), mask=inside)
        tl.store(d_scores + place, d_score, mask=inside)


@triton.jit
def draw_kernel(
    scores,
    seed,
    mask,
    offsets,
    out_best,
    out_row,
    rows,
    width,
    bags,
    splits,
    PACKED: tl.constexpr,
    MASKED: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):  # pragma: no cover - device code
    bag, split = tl.program_id(0), tl.program_id(2)
    d = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    start, count = _bag(offsets, bag, rows, PACKED)
    # Another key for each bag keeps the counter (row, feature) within 32 bits.
    key = tl.load(seed) + bag
    best = tl.full((WIDTH,), float("-inf"), tl.float32)
    row = tl.full((WIDTH,), -1, tl.int32)
    for first in range(split * ROWS, count, splits * ROWS):
        n = first + tl.arange(0, ROWS)
        tile, counts = _scores(scores, mask, start, n, d, count, width, MASKED)
        uniform = tl.rand(key, n[:, None] * width + d[None, :])
        noise = tl.maximum(-tl.log(1.0 - uniform), 1e-30)
        bad = (tile != tile) | (tile == float("inf"))
        noisy = tl.where(bad, float("-inf"), tile) - tl.log(noise)
        top = tl.max(noisy, 0)
        is_top = noisy == tl.expand_dims(top, 0)
        winner = tl.min(tl.where(is_top & counts, n[:, None], 2147483647), 0)
        better = top > best
        row = tl.where(better & (row != -2), winner, row)
        best = tl.where(better, top, best)
        row = tl.where(tl.max(bad.to(tl.float32), 0) == 1.0, -2, row)
    at = (split * bags + bag).to(tl.int64) * width + d
    tl.store(out_best + at, tl.where(row == -2, float("inf"), best), mask=d < width)
    tl.store(out_row + at, row.to(tl.int64), mask=d < width)


@triton.jit
def head_pool_kernel(
    scores,
    values,
    mask,
    offsets,
    out_top,
    out_total,
    out_sum,
    rows,
    heads,
    width,
    bags,
    splits,
    PACKED: tl.constexpr,
    MASKED: tl.constexpr,
    ROWS: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
):  # pragma: no cover - device code
    head_blocks = tl.cdiv(heads, HEADS)
    bag, split = tl.program_id(0) // head_blocks, tl.program_id(2)
    h = (tl.program_id(0) % head_blocks) * HEADS + tl.arange(0, HEADS)
    d = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    start, count = _bag(offsets, bag, rows, PACKED)
    top = tl.full((HEADS,), float("-inf"), tl.float32)
    total = tl.zeros((HEADS,), tl.float32)
    summed = tl.zeros((HEADS, WIDTH), tl.float32)
    for first in range(split * ROWS, count, splits * ROWS):
        n = first + tl.arange(0, ROWS)
        tile, _ = _scores(scores, mask, start, n, h, count, heads, MASKED)
        counts = n < count
        if MASKED:
            counts = counts & (tl.load(mask + start + n, mask=counts, other=0) != 0)
        inside = counts[:, None] & (d < width)[None, :]
        value = tl.load(values + (start + n)[:, None] * width + d[None, :], mask=inside, other=0.0)
        new = tl.maximum(top, tl.max(tile, 0))
        safe = tl.where(new == float("-inf"), 0.0, new)
        weight = tl.exp(tile - safe[None, :])
        keep = tl.exp(top - safe)
        total = total * keep + tl.sum(weight, 0)
        product = tl.dot(tl.trans(weight).to(value.dtype), value, input_precision="tf32x3")
        summed = summed * keep[:, None] + product
        top = new
    at = (split * bags + bag).to(tl.int64) * heads + h
    # Every block of features finds the same top and total; one writes them.
    tl.store(out_top + at, top, mask=(h < heads) & (tl.program_id(1) == 0))
    tl.store(out_total + at, total, mask=(h < heads) & (tl.program_id(1) == 0))
    tl.store(
        out_sum + at[:, None] * width + d[None, :],
        summed,
        mask=(h < heads)[:, None] & (d < width)[None, :],
    )


@triton.jit
def head_scores_backward_kernel(
    grad,
    scores,
    values,
    mask,
    offsets,
    delta,
    lse,
    d_scores,
    rows,
    heads,
    width,
    splits,
    PACKED: tl.constexpr,
    MASKED: tl.constexpr,
    ROWS: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
):  # pragma: no cover - device code
    head_blocks = tl.cdiv(heads, HEADS)
    bag, split = tl.program_id(0) // head_blocks, tl.program_id(2)
    h = (tl.program_id(0) % head_blocks) * HEADS + tl.arange(0, HEADS)
    start, count = _bag(offsets, bag, rows, PACKED)
    at = bag.to(tl.int64) * heads + h
    log_total = tl.load(lse + at, mask=h < heads, other=float("inf"))
    shift = tl.load(delta + at, mask=h < heads, other=0.0)
    for first in range(split * ROWS, count, splits * ROWS):
        n = first + tl.arange(0, ROWS)
        tile, counts = _scores(scores, mask, start, n, h, count, heads, MASKED)
        d_weight = tl.zeros((ROWS, HEADS), tl.float32)
        for block in range(0, width, WIDTH):
            d = block + tl.arange(0, WIDTH)
            inside = (n < count)[:, None] & (d < width)[None, :]
            value = tl.load(
                values + (start + n)[:, None] * width + d[None, :], mask=inside, other=0.0
            )
            g = tl.load(
                grad + at[None, :] * width + d[:, None],
                mask=(h < heads)[None, :] & (d < width)[:, None],
                other=0.0,
            )
            d_weight += tl.dot(value, g.to(value.dtype), input_precision="tf32x3")
        p = tl.exp(tile - log_total[None, :])
        # Chosen, not multiplied: rows behind the mask may hold a NaN.
        d_score = tl.where(counts, p * (d_weight - shift[None, :]), 0.0)
        place = (start + n)[:, None] * heads + h[None, :]
        tl.store(d_scores + place, d_score, mask=(n < count)[:, None] & (h < heads)[None, :])


@triton.jit
def head_values_backward_kernel(
    grad,
    scores,
    mask,
    offsets,
    lse,
    d_values,
    rows,
    heads,
    width,
    splits,
    PACKED: tl.constexpr,
    MASKED: tl.constexpr,
    ROWS: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
):  # pragma: no cover - device code
    bag, split = tl.program_id(0), tl.program_id(2)
    d = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    start, count = _bag(offsets, bag, rows, PACKED)
    for first in range(split * ROWS, count, splits * ROWS):
        n = first + tl.arange(0, ROWS)
        d_value = tl.zeros((ROWS, WIDTH), tl.float32)
        for block in range(0, heads, HEADS):
            h = block + tl.arange(0, HEADS)
            at = bag.to(tl.int64) * heads + h
            tile, _ = _scores(scores, mask, start, n, h, count, heads, MASKED)
            log_total = tl.load(lse + at, mask=h < heads, other=float("inf"))
            g = tl.load(
                grad + at[:, None] * width + d[None, :],
                mask=(h < heads)[:, None] & (d < width)[None, :],
                other=0.0,
            )
            d_value += tl.dot(
                tl.exp(tile - log_total[None, :]).to(g.dtype), g, input_precision="tf32x3"
            )
        place = (start + n)[:, None] * width + d[None, :]
        tl.store(d_values + place, d_value, mask=(n < count)[:, None] & (d < width)[None, :])


def _common(
    scores: Tensor, mask: Tensor | None, offsets: Tensor | None
) -> tuple[int, int, Tensor, Tensor, dict[str, Any]]:
    """Bags, rows a bag, mask and offsets (anything where there are none), and the flags of a
    launch.
    """
    if scores.dtype == torch.float64:
        raise ValueError(
            "softmax pooling on a GPU: float64 is not supported, the kernels sum in float32"
        )
    packed = offsets is not None
    bags = offsets.shape[0] - 1 if offsets is not None else scores.shape[0]
    rows = 0 if packed else scores.shape[1]
    flags: dict[str, Any] = {
        "PACKED": packed,
        "MASKED": mask is not None,
        "ROWS": ROWS,
        "WIDTH": WIDTH,
    }
    marks = scores if mask is None else mask.contiguous().view(torch.uint8)
    return bags, rows, marks, scores if offsets is None else offsets.contiguous(), flags


def _splits(scores: Tensor, bags: int, programs: int) -> int:
    """Programs that share the rows of a bag, by the mean length of a bag: its true length would
    need a wait.
    """
    mean = scores.numel() // max(scores.shape[-1], 1) // max(bags, 1)
    return max(1, min(triton.cdiv(mean, ROWS), PROGRAMS // max(programs, 1)))


def _merge(top: Tensor, total: Tensor, summed: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Partial maxima, sums (S, B, ...) and weighted sums -> (pooled, lse)."""
    highest = top.amax(0)
    highest = highest.masked_fill(highest == -torch.inf, 0.0)
    weight = (top - highest).exp()
    total = (total * weight).sum(0)
    empty = total == 0
    divisor = total.masked_fill(empty, 1.0)
    if summed.ndim > weight.ndim:
        pooled = (summed * weight[..., None]).sum(0) / divisor[..., None]
    else:
        pooled = (summed * weight).sum(0) / divisor
    return pooled.to(dtype), (divisor.log() + highest).masked_fill(empty, torch.inf)


def pool(
    scores: Tensor,
    values: Tensor | None,
    mask: Tensor | None,
    offsets: Tensor | None,
    per_head: bool,
) -> tuple[Tensor, Tensor]:
    """As `softmax_pool_plain.pool`, by Triton."""
    scores = scores.contiguous()
    own: Any = values is None
    values = scores if values is None else values.contiguous()
    bags, rows, marks, ends, flags = _common(scores, mask, offsets)
    columns, width = scores.shape[-1], values.shape[-1]
    blocks, head_blocks = (
        triton.cdiv(width, WIDTH),
        triton.cdiv(columns, PER_HEAD["HEADS"]) if per_head else 1,
    )
    splits = _splits(scores, bags, bags * blocks * head_blocks)
    top = scores.new_full((splits, bags, columns), -torch.inf, dtype=compute_type(scores))
    total = torch.zeros_like(top)
    if bags * blocks * head_blocks == 0:
        return _merge(
            top, total, top.new_zeros((*top.shape, width) if per_head else top.shape), scores.dtype
        )
    if per_head:
        summed = top.new_zeros((*top.shape, width))
        head_pool_kernel[bags * head_blocks, blocks, splits](
            scores,
            values,
            marks,
            ends,
            top,
            total,
            summed,
            rows,
            columns,
            width,
            bags,
            splits,
            **(flags | PER_HEAD),
        )
    else:
        summed = torch.zeros_like(top)
        pool_kernel[bags, blocks, splits](
            scores,
            values,
            marks,
            ends,
            top,
            total,
            summed,
            rows,
            width,
            bags,
            splits,
            **flags,
            OWN=own,
        )
    return _merge(top, total, summed, scores.dtype)


def pool_backward(
    grad: Tensor,
    scores: Tensor,
    values: Tensor | None,
    mask: Tensor | None,
    offsets: Tensor | None,
    pooled: Tensor,
    lse: Tensor,
    per_head: bool,
) -> tuple[Tensor, Tensor]:
    """As `softmax_pool_plain.pool_backward`, by Triton."""
    grad, scores = grad.contiguous(), scores.contiguous()
    own: Any = values is None
    values = scores if values is None else values.contiguous()
    bags, rows, marks, ends, flags = _common(scores, mask, offsets)
    heads, width = scores.shape[-1], values.shape[-1]
    d_scores = torch.zeros_like(scores)
    d_values = scores.new_empty((0,)) if own else torch.zeros_like(values)
    blocks, head_blocks = triton.cdiv(width, WIDTH), triton.cdiv(heads, PER_HEAD["HEADS"])
    if scores.numel() == 0 or values.numel() == 0:
        return d_scores, d_values
    if not per_head:
        splits = _splits(scores, bags, bags * blocks)
        pool_backward_kernel[bags, blocks, splits](
            grad,
            scores,
            values,
            marks,
            ends,
            pooled,
            lse,
            d_scores,
            d_values,
            rows,
            width,
            splits,
            **flags,
            OWN=own,
        )
        return d_scores, d_values
    delta = (grad.to(lse.dtype) * pooled.to(lse.dtype)).sum(-1)
    splits = _splits(scores, bags, bags * head_blocks)
    head_scores_backward_kernel[bags * head_blocks, 1, splits](
        grad,
        scores,
        values,
        marks,
        ends,
        delta,
        lse,
        d_scores,
        rows,
        heads,
        width,
        splits,
        **(flags | PER_HEAD),
    )
    splits = _splits(scores, bags, bags * blocks)
    head_values_backward_kernel[bags, blocks, splits](
        grad, scores, marks, ends, lse, d_values, rows, heads, width, splits, **(flags | PER_HEAD)
    )
    return d_scores, d_values


def draw(scores: Tensor, seed: Tensor, mask: Tensor | None, offsets: Tensor | None) -> Tensor:
    """As `softmax_pool_plain.draw`, by Triton: the same distribution, another stream of random
    numbers.
    """
    scores = scores.contiguous()
    bags, rows, marks, ends, flags = _common(scores, mask, offsets)
    width = scores.shape[-1]
    blocks = triton.cdiv(width, WIDTH)
    splits = _splits(scores, bags, bags * blocks)
    best = scores.new_full((splits, bags, width), -torch.inf, dtype=torch.float32)
    row = torch.full_like(best, -1, dtype=torch.int64)
    if bags * width:
        draw_kernel[bags, blocks, splits](
            scores, seed, marks, ends, best, row, rows, width, bags, splits, **flags
        )
    return row.gather(0, best.argmax(0, keepdim=True)).squeeze(0)
