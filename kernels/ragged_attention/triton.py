"""Triton form of ragged attention.

Shapes: B samples, Q queries of a sample, T keys of all samples, H heads, d and e widths of a head.

A program owns one head of one sample: its queries stay in registers while it walks the sample's
keys, forward with running maximum and sum (online softmax). Backward the same walk makes the
weights again from lse, sums the gradient of the queries and writes those of keys and values once:
each key belongs to one sample, so nothing is atomic. More than QUERIES queries take several
programs forward and, since they share keys, several launches one after the other backward.

Few heads and samples of many keys would leave most of a GPU idle. Then the keys of a sample are
split over S programs (flash decoding: Dao, Haziza, Massa and Sizov, 2023), whose outputs are merged
by their log-sum-exps, and whose gradients of the queries are summed."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..launching import PRECISION, contiguous, kernel, launch, power_of_two

QUERIES, KEYS = 32, 32
PROGRAMS = 528  # four for each of the 132 multiprocessors of an H100
LEAST_KEYS = 128  # of a split: below, merging costs as much
MERGED = {"SPLITS": 32, "WIDTH": 64, "num_warps": 4}


@triton.jit
def tile(base, rows, live, stride, width, WIDTH: tl.constexpr):  # pragma: no cover - device code
    """(rows, WIDTH), 0 beyond the edges; rows: int64, `stride` numbers apart."""
    c = tl.arange(0, WIDTH)
    return tl.load(
        base + rows[:, None] * stride + c[None, :],
        mask=live[:, None] & (c < width)[None, :],
        other=0.0,
    )


@triton.jit
def put(
    base, rows, live, stride, width, numbers, WIDTH: tl.constexpr
):  # pragma: no cover - device code
    c = tl.arange(0, WIDTH)
    tl.store(
        base + rows[:, None] * stride + c[None, :],
        numbers,
        mask=live[:, None] & (c < width)[None, :],
    )


@triton.jit
def _share(offsets, b, split, splits, KEYS: tl.constexpr):  # pragma: no cover - device code
    """Where the keys of a split of a sample begin, and how many it has: tiles are not torn."""
    begin = tl.load(offsets + b)
    count = (tl.load(offsets + b + 1) - begin).to(tl.int32)
    size = tl.cdiv(tl.cdiv(count, KEYS), splits) * KEYS
    first = tl.minimum(split * size, count)
    return begin + first, tl.minimum(size, count - first)


@triton.jit
def attended(
    q,
    key,
    value,
    begin,
    count,
    stride,
    value_stride,
    width,
    value_width,
    scale,
    positions,
    asked,
    span,
    sink,
    LIMITED: tl.constexpr,
    WINDOWED: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
    VALUE_WIDTH: tl.constexpr,
):  # pragma: no cover - device code
    """A tile of queries walks the `count` keys from row `begin` on: the largest scores, the sums of
    the weights and of the weighted values. LIMITED: a query at position `asked` sees keys at
    `positions` up to its own; WINDOWED: and of those the last `span` and the first `sink`.
    """
    top = tl.full((QUERIES,), float("-inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    summed = tl.zeros((QUERIES, VALUE_WIDTH), tl.float32)
    for start in range(0, count, KEYS):
        j = start + tl.arange(0, KEYS)
        live, place = j < count, begin + j
        k = tile(key, place, live, stride, width, WIDTH)
        v = tile(value, place, live, value_stride, value_width, VALUE_WIDTH)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
        visible = live[None, :]
        if LIMITED:
            at = tl.load(positions + place, mask=live, other=0)[None, :]
            visible = visible & (at <= asked[:, None])
            if WINDOWED:
                visible = visible & ((asked[:, None] - at < span) | (at < sink))
        scores = tl.where(visible, scores, float("-inf"))
        new = tl.maximum(top, tl.max(scores, 1))
        # A query may have seen no key yet.
        finite = tl.where(new == float("-inf"), 0.0, new) if LIMITED else new
        weight = tl.exp(scores - finite[:, None])
        keep = tl.exp(top - finite)
        total = total * keep + tl.sum(weight, 1)
        summed = summed * keep[:, None] + tl.dot(weight.to(v.dtype), v, input_precision=PRECISION)
        top = new
    return top, total, summed


@triton.jit
def joined(
    part, part_lse, first, step, count, width, c, SPLITS: tl.constexpr, WIDTH: tl.constexpr
):  # pragma: no cover - device code
    """Columns `c` of `count` outputs over parts of the keys, in rows first, first + step, ..., as
    one over all of them: the mean, its largest log-sum-exp and their sum over it.
    """
    top, total = float("-inf"), 0.0
    summed = tl.zeros((WIDTH,), tl.float32)
    for start in range(0, count, SPLITS):
        s = start + tl.arange(0, SPLITS)
        live, place = s < count, s * step + first
        sums = tl.load(part_lse + place, mask=live, other=float("-inf"))
        inside = live[:, None] & (c < width)[None, :]
        outputs = tl.load(part + place[:, None] * width + c[None, :], mask=inside, other=0.0)
        new = tl.maximum(top, tl.max(sums, 0))
        finite = tl.where(new == float("-inf"), 0.0, new)
        share, keep = tl.exp(sums - finite), tl.exp(top - finite)
        total = total * keep + tl.sum(share, 0)
        summed = summed * keep + tl.sum(share[:, None] * outputs, 0)
        top = new
    return summed / tl.where(total == 0.0, 1.0, total), top, total


@kernel
def forward_kernel(
    query,
    key,
    value,
    offsets,
    out,
    lse,
    queries,
    heads,
    width,
    value_width,
    scale,
    samples,
    splits,
    PARTIAL: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
    VALUE_WIDTH: tl.constexpr,
):  # pragma: no cover - device code
    """out, lse: of the samples, or, PARTIAL, of S samples each."""
    b = tl.program_id(0).to(tl.int64)
    h = tl.program_id(1)
    split = tl.program_id(2) % splits
    i = tl.program_id(2) // splits * QUERIES + tl.arange(0, QUERIES)
    asked, rows = i < queries, b * queries + i
    begin, count = _share(offsets, b, split, splits, KEYS)
    q = tile(query + h * width, rows, asked, heads * width, width, WIDTH)
    top, total, summed = attended(
        q,
        key + h * width,
        value + h * value_width,
        begin,
        count,
        heads * width,
        heads * value_width,
        width,
        value_width,
        scale,
        offsets,
        count,
        count,
        count,
        LIMITED=False,  # pyright: ignore[reportArgumentType]
        WINDOWED=False,  # pyright: ignore[reportArgumentType]
        QUERIES=QUERIES,
        KEYS=KEYS,
        WIDTH=WIDTH,
        VALUE_WIDTH=VALUE_WIDTH,
    )
    divisor = tl.where(count == 0, 1.0, total)
    bare = float("-inf") if PARTIAL else float("inf")
    rows += split * samples * queries
    put(
        out + h * value_width,
        rows,
        asked,
        heads * value_width,
        value_width,
        summed / divisor[:, None],
        VALUE_WIDTH,
    )
    tl.store(lse + rows * heads + h, tl.where(count == 0, bare, top + tl.log(divisor)), mask=asked)


@kernel
def merge_kernel(
    part, part_lse, out, lse, rows, width, splits, SPLITS: tl.constexpr, WIDTH: tl.constexpr
):  # pragma: no cover - device code
    """Outputs (S, rows, width) over parts of the keys as one over all of them."""
    row = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    mean, top, total = joined(part, part_lse, row, rows, splits, width, c, SPLITS, WIDTH)
    tl.store(out + row * width + c, mean, mask=c < width)
    if tl.program_id(1) == 0:
        bare = total == 0.0
        sums = top + tl.log(tl.where(bare, 1.0, total))
        tl.store(lse + row, tl.where(bare, float("inf"), sums))


@kernel
def backward_kernel(
    grad,
    query,
    key,
    value,
    offsets,
    out,
    lse,
    d_query,
    d_key,
    d_value,
    first,
    queries,
    heads,
    width,
    value_width,
    scale,
    samples,
    splits,
    ADD: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
    VALUE_WIDTH: tl.constexpr,
):  # pragma: no cover - device code
    """d_query: of the samples, of which each split has its part."""
    b = tl.program_id(0).to(tl.int64)
    h = tl.program_id(1)
    split = tl.program_id(2)
    i = first + tl.arange(0, QUERIES)
    asked, rows = i < queries, b * queries + i
    begin, count = _share(offsets, b, split, splits, KEYS)
    stride, value_stride = heads * width, heads * value_width
    q = tile(query + h * width, rows, asked, stride, width, WIDTH)
    g = tile(grad + h * value_width, rows, asked, value_stride, value_width, VALUE_WIDTH)
    o = tile(out + h * value_width, rows, asked, value_stride, value_width, VALUE_WIDTH)
    delta = tl.sum(g.to(tl.float32) * o.to(tl.float32), 1)
    # +inf where there is no query, so that its weights are 0.
    sums = tl.load(lse + rows * heads + h, mask=asked, other=float("inf"))
    for_query = tl.zeros((QUERIES, WIDTH), tl.float32)
    for start in range(0, count, KEYS):
        j = start + tl.arange(0, KEYS)
        live, place = j < count, begin + j
        k = tile(key + h * width, place, live, stride, width, WIDTH)
        v = tile(value + h * value_width, place, live, value_stride, value_width, VALUE_WIDTH)
        # Keys come first, so that the two products that sum over queries need no turning.
        scores = tl.dot(k, tl.trans(q), input_precision=PRECISION) * scale
        weight = tl.where(live[:, None], tl.exp(scores - sums[None, :]), 0.0)
        slope = (
            weight
            * (tl.dot(v, tl.trans(g), input_precision=PRECISION) - tl.expand_dims(delta, 0))
            * scale
        )
        for_value = tl.dot(weight.to(g.dtype), g, input_precision=PRECISION)
        for_key = tl.dot(slope.to(q.dtype), q, input_precision=PRECISION)
        for_query += tl.dot(tl.trans(slope).to(k.dtype), k, input_precision=PRECISION)
        if ADD:
            for_key += tile(d_key + h * width, place, live, stride, width, WIDTH)
            for_value += tile(
                d_value + h * value_width, place, live, value_stride, value_width, VALUE_WIDTH
            )
        put(d_key + h * width, place, live, stride, width, for_key, WIDTH)
        put(
            d_value + h * value_width,
            place,
            live,
            value_stride,
            value_width,
            for_value,
            VALUE_WIDTH,
        )
    rows += split * samples * queries
    put(d_query + h * width, rows, asked, stride, width, for_query, WIDTH)


def tile_sizes(query: Tensor, value: Tensor, backward: bool) -> dict[str, int]:
    """Sizes of the tiles for queries (., Q, ..., d) and values (..., e); products need 16 rows and
    columns.
    """
    padded = [power_of_two(x.shape[-1]) for x in (query, value)]
    wide, size = max(padded), 2 if query.dtype == torch.float32 else 1
    most = QUERIES if wide <= 128 else QUERIES // 2
    return {
        "QUERIES": min(most, power_of_two(query.shape[1])),
        "KEYS": KEYS // 2 if backward or wide > 64 else KEYS,
        "WIDTH": padded[0],
        "VALUE_WIDTH": padded[1],
        "num_warps": min(8, wide // 16 * size),
        "num_stages": 2,
    }


def _splits(key: Tensor, samples: int, programs: int) -> int:
    """Programs that share the keys of a sample, by the mean length of a sample: its true length
    would need a wait.
    """
    mean = key.shape[0] // max(samples, 1)
    return max(1, min(mean // LEAST_KEYS, PROGRAMS // max(programs, 1)))


def forward(
    query: Tensor, key: Tensor, value: Tensor, offsets: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """As `cpu.forward`, by Triton."""
    query, key, value, offsets = contiguous(query, key, value, offsets)
    (samples, queries, heads, width), value_width = query.shape, value.shape[2]
    out = query.new_empty((samples, queries, heads, value_width))
    lse = query.new_empty((samples, queries, heads), dtype=torch.float32)
    if not lse.numel():
        return out, lse
    flags = tile_sizes(query, value, False)
    blocks = triton.cdiv(queries, flags["QUERIES"])
    splits = _splits(key, samples, samples * heads * blocks)
    part, part_lse = out, lse
    if splits > 1:
        part, part_lse = (x.new_empty((splits, *x.shape), dtype=lse.dtype) for x in (out, lse))
    tensors, sizes = (query, key, value, offsets, part, part_lse), (queries, heads, width)
    grid, rest = (samples, heads, blocks * splits), (value_width, scale, samples, splits)
    launch(forward_kernel, grid, *tensors, *sizes, *rest, PARTIAL=splits > 1, **flags)
    if splits > 1:
        grid = lse.numel(), triton.cdiv(value_width, MERGED["WIDTH"])
        tensors, sizes = (part, part_lse, out, lse), (lse.numel(), value_width, splits)
        launch(merge_kernel, grid, *tensors, *sizes, **MERGED)
    return out, lse


def backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    offsets: Tensor,
    out: Tensor,
    lse: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `cpu.backward`, by Triton."""
    inputs = contiguous(grad, query, key, value, offsets, out, lse)
    (samples, queries, heads, width), value_width = query.shape, value.shape[2]
    flags = tile_sizes(query, value, True)
    once = queries <= flags["QUERIES"]
    kind = query.dtype if once else torch.float32  # sums over several launches
    d_key, d_value = (
        x.new_zeros(x.shape, dtype=kind) for x in (key, value)
    )  # keys of no sample keep 0
    splits = _splits(key, samples, samples * heads)
    d_query = query.new_empty(query.shape)
    part = d_query
    if splits > 1:
        part = query.new_empty((splits, *query.shape), dtype=torch.float32)
    if lse.numel():
        sizes = queries, heads, width, value_width, scale, samples, splits
        grid, tensors = (samples, heads, splits), (*inputs, part, d_key, d_value)
        for first in range(0, queries, flags["QUERIES"]):
            launch(backward_kernel, grid, *tensors, first, *sizes, ADD=first > 0, **flags)
    if splits > 1:
        d_query = part.sum(0).to(query.dtype)
    return d_query, d_key.to(key.dtype), d_value.to(value.dtype)
