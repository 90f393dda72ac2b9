"""Triton form of third-order attention: tiles of queries and of both key sides, a running softmax,
sums in float32.

Shapes: G batch times heads, N queries, M1 and M2 tokens of the two key sides, d width of keys, e
width of values.

A program holds a tile of one axis and walks the other two: first keys in tiles of COLUMNS, second
keys one at a time. For one second key the scores of a tile are one matrix product, (q * k2) k1^T,
so a tile of k1 and v1 stays in registers while all second keys pass. No weight reaches memory.
    forward, d q   tiles of queries;   d k1, d v1   tiles of first keys
    d k2, d v2     the kernel of d k1 and d v1 with the sides exchanged
(the weights do not change when the sides change places). The backward pass computes the weights
again from lse."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..launching import PRECISION, contiguous, kernel, launch, pair_and_block, power_of_two
from ..precision import compute_type

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _rows(x, start, n, width, count, WIDTH: tl.constexpr):
    """Rows n of a (count, width) matrix that begins at row `start` of x: (n, WIDTH), 0 outside."""
    d = tl.arange(0, WIDTH)
    inside = (n < count)[:, None] & (d < width)[None, :]
    return tl.load(x + (start + n)[:, None] * width + d[None, :], mask=inside, other=0.0)


@triton.jit
def _row(x, at, width, WIDTH: tl.constexpr):
    """One row: (1, WIDTH), 0 outside."""
    d = tl.arange(0, WIDTH)
    return tl.load(x + at * width + d, mask=d < width, other=0.0)[None, :]


@kernel
def forward_kernel(
    q,
    k1,
    v1,
    k2,
    v2,
    mask1,
    mask2,
    out,
    lse,
    scale,
    queries,
    first,
    second,
    heads,
    width,
    size,
    MASKED1: tl.constexpr,
    MASKED2: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
    SIZE: tl.constexpr,
):  # pragma: no cover - device code
    g, block = pair_and_block(tl.cdiv(queries, ROWS))
    batch = g // heads
    i = block * ROWS + tl.arange(0, ROWS)
    query = _rows(q, g * queries, i, width, queries, WIDTH)
    top = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    summed = tl.zeros((ROWS, SIZE), tl.float32)
    for begin in range(0, first, COLUMNS):
        j = begin + tl.arange(0, COLUMNS)
        counts = j < first
        if MASKED1:
            counts = counts & (tl.load(mask1 + batch * first + j, mask=counts, other=0) != 0)
        key = _rows(k1, g * first, j, width, first, WIDTH)
        value = _rows(v1, g * first, j, size, first, SIZE)
        # Chosen, not multiplied: rows behind the mask may hold a NaN.
        key, value = tl.where(counts[:, None], key, 0.0), tl.where(counts[:, None], value, 0.0)
        any_key = tl.sum(counts.to(tl.int32), 0) != 0
        for k in range(second):
            use = any_key
            if MASKED2:
                use = use & (tl.load(mask2 + batch * second + k) != 0)
            if use:
                product = (
                    query.to(tl.float32) * _row(k2, g * second + k, width, WIDTH) * scale
                ).to(key.dtype)
                scores = tl.dot(product, tl.trans(key), input_precision=PRECISION)
                scores = tl.where(counts[None, :], scores, float("-inf"))
                new = tl.maximum(top, tl.max(scores, 1))
                weights = tl.exp2((scores - new[:, None]) * LOG2E)
                decay = tl.exp2((top - new) * LOG2E)
                total = total * decay + tl.sum(weights, 1)
                mixed = tl.dot(weights.to(value.dtype), value, input_precision=PRECISION)
                summed = summed * decay[:, None] + mixed * _row(v2, g * second + k, size, SIZE)
                top = new
    empty = total == 0
    divisor = tl.where(empty, 1.0, total)
    e = tl.arange(0, SIZE)
    inside = (i < queries)[:, None] & (e < size)[None, :]
    tl.store(
        out + (g * queries + i)[:, None] * size + e[None, :], summed / divisor[:, None], mask=inside
    )
    tl.store(
        lse + g * queries + i,
        tl.where(empty, float("inf"), tl.log(divisor) + top),
        mask=i < queries,
    )


@kernel
def query_backward_kernel(
    grad,
    q,
    k1,
    v1,
    k2,
    v2,
    mask1,
    mask2,
    lse,
    delta,
    d_q,
    scale,
    queries,
    first,
    second,
    heads,
    width,
    size,
    MASKED1: tl.constexpr,
    MASKED2: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
    SIZE: tl.constexpr,
):  # pragma: no cover - device code
    g, block = pair_and_block(tl.cdiv(queries, ROWS))
    batch = g // heads
    i = block * ROWS + tl.arange(0, ROWS)
    query = _rows(q, g * queries, i, width, queries, WIDTH)
    above = _rows(grad, g * queries, i, size, queries, SIZE)
    log_total = tl.load(lse + g * queries + i, mask=i < queries, other=float("inf"))
    shift = tl.load(delta + g * queries + i, mask=i < queries, other=0.0)
    gradient = tl.zeros((ROWS, WIDTH), tl.float32)
    for begin in range(0, first, COLUMNS):
        j = begin + tl.arange(0, COLUMNS)
        counts = j < first
        if MASKED1:
            counts = counts & (tl.load(mask1 + batch * first + j, mask=counts, other=0) != 0)
        key = _rows(k1, g * first, j, width, first, WIDTH)
        value = _rows(v1, g * first, j, size, first, SIZE)
        key, value = tl.where(counts[:, None], key, 0.0), tl.where(counts[:, None], value, 0.0)
        for k in range(second):
            use = True
            if MASKED2:
                use = tl.load(mask2 + batch * second + k) != 0
            if use:
                second_key = _row(k2, g * second + k, width, WIDTH).to(tl.float32)
                product = (query.to(tl.float32) * second_key * scale).to(key.dtype)
                scores = tl.dot(product, tl.trans(key), input_precision=PRECISION)
                weights = tl.exp2((scores - log_total[:, None]) * LOG2E)
                outer = (above.to(tl.float32) * _row(v2, g * second + k, size, SIZE)).to(
                    value.dtype
                )
                d_weights = tl.dot(outer, tl.trans(value), input_precision=PRECISION)
                d_scores = tl.where(counts[None, :], weights * (d_weights - shift[:, None]), 0.0)
                gradient += tl.dot(d_scores.to(key.dtype), key, input_precision=PRECISION) * (
                    second_key * scale
                )
    d = tl.arange(0, WIDTH)
    inside = (i < queries)[:, None] & (d < width)[None, :]
    tl.store(d_q + (g * queries + i)[:, None] * width + d[None, :], gradient, mask=inside)


@kernel
def keys_backward_kernel(
    grad,
    q,
    k1,
    v1,
    k2,
    v2,
    mask1,
    mask2,
    lse,
    delta,
    d_k1,
    d_v1,
    scale,
    queries,
    first,
    second,
    heads,
    width,
    size,
    MASKED1: tl.constexpr,
    MASKED2: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
    SIZE: tl.constexpr,
):  # pragma: no cover - device code
    g, block = pair_and_block(tl.cdiv(first, ROWS))
    batch = g // heads
    j = block * ROWS + tl.arange(0, ROWS)
    counts = j < first
    if MASKED1:
        counts = counts & (tl.load(mask1 + batch * first + j, mask=counts, other=0) != 0)
    key = _rows(k1, g * first, j, width, first, WIDTH)
    value = _rows(v1, g * first, j, size, first, SIZE)
    key, value = tl.where(counts[:, None], key, 0.0), tl.where(counts[:, None], value, 0.0)
    d_key = tl.zeros((ROWS, WIDTH), tl.float32)
    d_value = tl.zeros((ROWS, SIZE), tl.float32)
    for begin in range(0, queries, COLUMNS):
        i = begin + tl.arange(0, COLUMNS)
        query = _rows(q, g * queries, i, width, queries, WIDTH)
        above = _rows(grad, g * queries, i, size, queries, SIZE)
        log_total = tl.load(lse + g * queries + i, mask=i < queries, other=float("inf"))
        shift = tl.load(delta + g * queries + i, mask=i < queries, other=0.0)
        for k in range(second):
            use = True
            if MASKED2:
                use = tl.load(mask2 + batch * second + k) != 0
            if use:
                second_key = _row(k2, g * second + k, width, WIDTH).to(tl.float32)
                product = (query.to(tl.float32) * second_key * scale).to(key.dtype)
                scores = tl.dot(key, tl.trans(product), input_precision=PRECISION)
                weights = tl.exp2((scores - log_total[None, :]) * LOG2E)
                weights = tl.where(counts[:, None], weights, 0.0)
                outer = (above.to(tl.float32) * _row(v2, g * second + k, size, SIZE)).to(
                    value.dtype
                )
                d_value += tl.dot(weights.to(outer.dtype), outer, input_precision=PRECISION)
                d_weights = tl.dot(value, tl.trans(outer), input_precision=PRECISION)
                d_scores = weights * (d_weights - shift[None, :])
                d_key += tl.dot(d_scores.to(product.dtype), product, input_precision=PRECISION)
    d, e = tl.arange(0, WIDTH), tl.arange(0, SIZE)
    at = (g * first + j)[:, None]
    tl.store(
        d_k1 + at * width + d[None, :], d_key, mask=(j < first)[:, None] & (d < width)[None, :]
    )
    tl.store(
        d_v1 + at * size + e[None, :], d_value, mask=(j < first)[:, None] & (e < size)[None, :]
    )


def _bytes(mask: Tensor | None, stand_in: Tensor) -> Tensor:
    return stand_in if mask is None else mask.contiguous().view(torch.uint8)


def _marked(mask1: Tensor | None, mask2: Tensor | None) -> dict[str, int]:
    return {"MASKED1": mask1 is not None, "MASKED2": mask2 is not None}


def _tiles(width: int, size: int, dtype: torch.dtype, backward: bool) -> dict[str, int]:
    """Tiles and warps that spill little or nothing (docs/measured/kernels.md); float32 products
    hold each operand in two pieces, so take less.
    """
    padded, padded_size = (power_of_two(width), power_of_two(size))
    wide = max(padded, padded_size) > 64
    if dtype == torch.float32:
        rows, columns = (16 if wide or backward else 32), (16 if backward else 32)
    else:
        rows, columns = (32, 16) if wide and backward else (64, 32)
    return {"ROWS": rows, "COLUMNS": columns, "WIDTH": padded, "SIZE": padded_size, "num_warps": 8}


def forward(
    q: Tensor,
    k1: Tensor,
    v1: Tensor,
    k2: Tensor,
    v2: Tensor,
    mask1: Tensor | None,
    mask2: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """As `cpu.forward`, by Triton."""
    q, k1, v1, k2, v2 = contiguous(q, k1, v1, k2, v2)
    batch, heads, queries, width = q.shape
    size = v1.shape[-1]
    out = q.new_empty((batch, heads, queries, size))
    lse = q.new_empty((batch, heads, queries), dtype=compute_type(q))
    if out.numel() == 0 or width == 0 or k1.shape[2] == 0 or k2.shape[2] == 0:
        return out.zero_(), lse.fill_(torch.inf)
    flags = _tiles(width, size, q.dtype, False)
    grid = (batch * heads * triton.cdiv(queries, flags["ROWS"]),)
    tensors = q, k1, v1, k2, v2, _bytes(mask1, q), _bytes(mask2, q), out, lse
    numbers = scale, queries, k1.shape[2], k2.shape[2], heads, width, size
    launch(forward_kernel, grid, *tensors, *numbers, **_marked(mask1, mask2), **flags)
    return out, lse


def backward(
    grad: Tensor,
    q: Tensor,
    k1: Tensor,
    v1: Tensor,
    k2: Tensor,
    v2: Tensor,
    mask1: Tensor | None,
    mask2: Tensor | None,
    out: Tensor,
    lse: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As `cpu.backward`, by Triton."""
    grad, q, k1, v1, k2, v2, lse = contiguous(grad, q, k1, v1, k2, v2, lse)
    d_q, d_k1, d_v1, d_k2, d_v2 = (torch.empty_like(x) for x in (q, k1, v1, k2, v2))
    if min(x.numel() for x in (q, k1, v1, k2, v2)) == 0:
        for slope in (d_q, d_k1, d_v1, d_k2, d_v2):
            slope.zero_()
        return d_q, d_k1, d_v1, d_k2, d_v2
    batch, heads, queries, width = q.shape
    size = v1.shape[-1]
    delta = (grad.to(lse.dtype) * out.to(lse.dtype)).sum(-1).contiguous()
    flags = _tiles(width, size, q.dtype, True)
    marks1, marks2 = _bytes(mask1, q), _bytes(mask2, q)
    first, second = k1.shape[2], k2.shape[2]
    grid = (batch * heads * triton.cdiv(queries, flags["ROWS"]),)
    tensors = grad, q, k1, v1, k2, v2, marks1, marks2, lse, delta, d_q
    numbers = scale, queries, first, second, heads, width, size
    launch(query_backward_kernel, grid, *tensors, *numbers, **_marked(mask1, mask2), **flags)
    grid = (batch * heads * triton.cdiv(first, flags["ROWS"]),)
    flags["COLUMNS"] = 16  # two sums of a tile are held: 32 queries at a time would spill
    tensors = grad, q, k1, v1, k2, v2, marks1, marks2, lse, delta, d_k1, d_v1
    numbers = scale, queries, first, second, heads, width, size
    launch(keys_backward_kernel, grid, *tensors, *numbers, **_marked(mask1, mask2), **flags)
    grid = (batch * heads * triton.cdiv(second, flags["ROWS"]),)
    tensors = grad, q, k2, v2, k1, v1, marks2, marks1, lse, delta, d_k2, d_v2
    numbers = scale, queries, second, first, heads, width, size
    launch(keys_backward_kernel, grid, *tensors, *numbers, **_marked(mask2, mask1), **flags)
    return d_q, d_k1, d_v1, d_k2, d_v2
