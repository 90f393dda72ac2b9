"""Triton form of softmax-free attention by the signed root.

Shapes: B batch, N queries, M keys, C width of queries and keys, E width of values.

Two kernels serve all four results, since r(s)^T = r(s^T):

    out = p(q, k, v),  d v = p(k, q, g)            p(a, b, x) = r(a b^T) x
    d q = s(q, k, g, v),  d k = s(k, q, v, g)      s(a, b, x, y) = (r'(a b^T) (x y^T)) b

A program owns a block of rows of a and a slice of the output's width and walks b. No row is
normalised, so it keeps only its sum; nothing is atomic, every sum has one order. Products over C
and E are summed slice by slice, so any width fits. Backward takes 8 products of matrices where
kernels of three sums would take 7. Beyond the edges tiles are 0, and r(0) = 0.

Maps of a few thousand tokens are formed in memory instead (`maps_refused`): products are PyTorch's,
and a pass of one kernel turns scores into roots, and gradients of roots into those of scores."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..launching import PRECISION, kernel, launch, pair_and_block, power_of_two
from . import MAP_NUMBERS, maps_refused

ROWS, COLUMNS, SLICE = 64, 64, 64
PASS = 1024  # numbers of a map that a program changes


@triton.jit
def _tile(
    base, rows, most_rows, columns, most_columns, by_row, by_column
):  # pragma: no cover - device code
    """(rows, columns), 0 beyond the edges."""
    place = base + rows.to(tl.int64)[:, None] * by_row + columns.to(tl.int64)[None, :] * by_column
    return tl.load(
        place, mask=(rows < most_rows)[:, None] & (columns < most_columns)[None, :], other=0.0
    )


@triton.jit
def _products(
    a,
    b,
    i,
    rows,
    j,
    columns,
    width,
    a_row,
    a_column,
    b_row,
    b_column,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SLICE: tl.constexpr,
):  # pragma: no cover - device code
    """Rows i of a times rows j of b, (ROWS, COLUMNS)."""
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, width, SLICE):
        c = start + tl.arange(0, SLICE)
        left_tile = _tile(a, i, rows, c, width, a_row, a_column)
        right_tile = _tile(b, j, columns, c, width, b_row, b_column)
        total += tl.dot(left_tile, tl.trans(right_tile), input_precision=PRECISION)
    return total


@kernel
def product_kernel(
    a,
    b,
    x,
    out,
    rows,
    columns,
    width,
    out_width,
    eps,
    soft,
    a_batch,
    a_row,
    a_column,
    b_batch,
    b_row,
    b_column,
    x_batch,
    x_row,
    x_column,
    o_batch,
    o_row,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SLICE: tl.constexpr,
    OUT: tl.constexpr,
):  # pragma: no cover - device code
    """r(a b^T) x: a (B, rows, width), b (B, columns, width), x (B, columns, out_width)."""
    sample, block = pair_and_block(tl.cdiv(rows, ROWS))
    a, b, x = a + sample * a_batch, b + sample * b_batch, x + sample * x_batch
    i = block * ROWS + tl.arange(0, ROWS)
    e = tl.program_id(1) * OUT + tl.arange(0, OUT)
    summed = tl.zeros((ROWS, OUT), tl.float32)
    for start in range(0, columns, COLUMNS):
        j = start + tl.arange(0, COLUMNS)
        s = _products(
            a, b, i, rows, j, columns, width, a_row, a_column, b_row, b_column, ROWS, COLUMNS, SLICE
        )
        s = s / (tl.sqrt(tl.abs(s) + eps) + soft)
        part = _tile(x, j, columns, e, out_width, x_row, x_column)
        summed += tl.dot(s.to(part.dtype), part, input_precision=PRECISION)
    place = out + sample * o_batch + i.to(tl.int64)[:, None] * o_row + e[None, :]
    tl.store(place, summed, mask=(i < rows)[:, None] & (e < out_width)[None, :])


@kernel
def slope_kernel(
    a,
    b,
    x,
    y,
    out,
    rows,
    columns,
    width,
    value_width,
    eps,
    a_batch,
    a_row,
    a_column,
    b_batch,
    b_row,
    b_column,
    x_batch,
    x_row,
    x_column,
    y_batch,
    y_row,
    y_column,
    o_batch,
    o_row,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SLICE: tl.constexpr,
    OUT: tl.constexpr,
):  # pragma: no cover - device code
    """(r'(a b^T) (x y^T)) b: a, x of `rows` rows, b, y of `columns` rows; x and y are value_width
    wide.
    """
    sample, block = pair_and_block(tl.cdiv(rows, ROWS))
    a, b, x, y = (
        a + sample * a_batch,
        b + sample * b_batch,
        x + sample * x_batch,
        y + sample * y_batch,
    )
    i = block * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * OUT + tl.arange(0, OUT)
    summed = tl.zeros((ROWS, OUT), tl.float32)
    for start in range(0, columns, COLUMNS):
        j = start + tl.arange(0, COLUMNS)
        s = _products(
            a, b, i, rows, j, columns, width, a_row, a_column, b_row, b_column, ROWS, COLUMNS, SLICE
        )
        slope = _products(
            x,
            y,
            i,
            rows,
            j,
            columns,
            value_width,
            x_row,
            x_column,
            y_row,
            y_column,
            ROWS,
            COLUMNS,
            SLICE,
        )
        slope = 0.5 * slope / tl.sqrt(tl.abs(s) + eps)
        part = _tile(b, j, columns, c, width, b_row, b_column)
        if part.dtype == tl.float16:
            # Near s = 0 the slope is 1 / (2 sqrt(eps)) times the gradient, which float16 need not
            # hold.
            summed += tl.dot(slope, part.to(tl.float32), input_precision="tf32")
        else:
            summed += tl.dot(slope.to(part.dtype), part, input_precision=PRECISION)
    place = out + sample * o_batch + i.to(tl.int64)[:, None] * o_row + c[None, :]
    tl.store(place, summed, mask=(i < rows)[:, None] & (c < width)[None, :])


@kernel
def root_kernel(
    scores, slopes, count, eps, soft, BLOCK: tl.constexpr, SLOPES: tl.constexpr
):  # pragma: no cover - device code
    """In place: r(s) for s in scores and, with SLOPES, r'(s) t for t in slopes."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    s = tl.load(scores + at, mask=inside, other=0.0).to(tl.float32)
    root = tl.sqrt(tl.abs(s) + eps)
    tl.store(scores + at, s / (root + soft), mask=inside)
    if SLOPES:
        t = tl.load(slopes + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(slopes + at, 0.5 * t / root, mask=inside)


def _flags(width: int, value_width: int, out: int, dtype: torch.dtype) -> dict[str, int]:
    """Sizes of the tiles; products need 16 rows and columns."""
    single = dtype == torch.float32
    most = min(SLICE, power_of_two(max(width, value_width)))
    return {
        "ROWS": ROWS // 2 if single else ROWS,
        "COLUMNS": COLUMNS // 2 if single else COLUMNS,
        "SLICE": most // 2 if single and most > 32 else most,
        "OUT": min(64 if single else 128, power_of_two(out)),
        "num_warps": 8,
        "num_stages": 2,
    }


def _product(a: Tensor, b: Tensor, x: Tensor, eps: float) -> Tensor:
    out = x.new_empty((a.shape[0], a.shape[1], x.shape[2]))
    if not out.numel() or not b.shape[1]:
        return out.zero_()
    flags = _flags(a.shape[2], 1, x.shape[2], a.dtype)
    blocks = a.shape[0] * triton.cdiv(a.shape[1], flags["ROWS"])
    grid = blocks, triton.cdiv(x.shape[2], flags["OUT"])
    strides = [s for tensor in (a, b, x) for s in tensor.stride()]
    tensors = a, b, x, out
    sizes, factors = (a.shape[1], b.shape[1], a.shape[2], x.shape[2]), (eps, eps**0.5)
    launch(product_kernel, grid, *tensors, *sizes, *factors, *strides, *out.stride()[:2], **flags)
    return out


def _slope(a: Tensor, b: Tensor, x: Tensor, y: Tensor, eps: float) -> Tensor:
    out = a.new_empty(a.shape)
    if not out.numel() or not b.shape[1] or not x.shape[2]:
        return out.zero_()
    flags = _flags(a.shape[2], x.shape[2], a.shape[2], a.dtype)
    blocks = a.shape[0] * triton.cdiv(a.shape[1], flags["ROWS"])
    grid = blocks, triton.cdiv(a.shape[2], flags["OUT"])
    strides = [s for tensor in (a, b, x, y) for s in tensor.stride()]
    tensors = a, b, x, y, out
    numbers = a.shape[1], b.shape[1], a.shape[2], x.shape[2], eps, *strides, *out.stride()[:2]
    launch(slope_kernel, grid, *tensors, *numbers, **flags)
    return out


def _rooted(scores: Tensor, slopes: Tensor | None, eps: float) -> None:
    """`root_kernel` on maps (B, N, M)."""
    other = scores if slopes is None else slopes
    grid, flags = (triton.cdiv(scores.numel(), PASS),), {"BLOCK": PASS, "num_warps": 4}
    factors = scores.numel(), eps, eps**0.5
    launch(root_kernel, grid, scores, other, *factors, SLOPES=slopes is not None, **flags)


def _samples(query: Tensor, key: Tensor) -> list[slice]:
    """Samples whose maps are in memory together."""
    step = max(1, MAP_NUMBERS // max(1, query.shape[1] * key.shape[1]))
    return [slice(first, first + step) for first in range(0, query.shape[0], step)]


def _through_maps(query: Tensor, key: Tensor, value: Tensor, eps: float) -> Tensor:
    """r(q k^T) v."""
    out = value.new_empty((*query.shape[:2], value.shape[2]))
    for some in _samples(query, key):
        scores = torch.bmm(query[some], key[some].mT)
        _rooted(scores, None, eps)
        torch.bmm(scores, value[some], out=out[some])
    return out


def _back_through_maps(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value."""
    d_query, d_key, d_value = (x.new_empty(x.shape) for x in (query, key, value))
    for some in _samples(query, key):
        scores = torch.bmm(query[some], key[some].mT)
        slopes = torch.bmm(grad[some], value[some].mT)
        _rooted(scores, slopes, eps)
        torch.bmm(scores.mT, grad[some], out=d_value[some])
        torch.bmm(slopes, key[some], out=d_query[some])
        torch.bmm(slopes.mT, query[some], out=d_key[some])
    return d_query, d_key, d_value


def _forms_maps(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether maps are formed in memory; where there is nothing to compute, they are not."""
    some = query.numel() and key.numel() and value.numel()
    return bool(some) and not maps_refused(query, key, value)


def forward(query: Tensor, key: Tensor, value: Tensor, eps: float) -> Tensor:
    """As `cpu.forward`, by Triton."""
    if _forms_maps(query, key, value):
        return _through_maps(query, key, value, eps)
    return _product(query, key, value, eps)


def backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """As `cpu.backward`, by Triton."""
    if _forms_maps(query, key, value):
        return _back_through_maps(grad, query, key, value, eps)
    d_query, d_key = _slope(query, key, grad, value, eps), _slope(key, query, value, grad, eps)
    return d_query, d_key, _product(key, query, grad, eps)
