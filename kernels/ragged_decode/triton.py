"""Triton form of attention to caches of any length.

Shapes: S caches, N queries of each (those of all heads that share its keys), R rows, d and e widths
of a head, P programs.

A program owns a share of the keys of one cache and all of its queries, up to a tile of them, which
stay in registers while it walks the keys (`ragged_attention.triton.attended`): keys and values are
read once for a group of heads. Shares are equal numbers of keys, so that a full head has many
programs and a window one: `split` keys of each, and the programs of a cache follow on those of the
cache before. Which share a program has is computed from all lengths by each program itself; the
host reads none, and nothing else is launched. With as many caches as programs each has one. Shares
are merged by their log-sum-exps."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..launching import contiguous, kernel, launch, power_of_two
from ..ragged_attention.triton import MERGED, attended, joined, put, tile, tile_sizes

PROGRAMS = 528  # four for each of the 132 multiprocessors of an H100
LEAST_KEYS = 128  # of a share: below, merging costs as much


@triton.jit
def _shares(
    lengths, samples, programs, LEAST: tl.constexpr, SEGMENTS: tl.constexpr
):  # pragma: no cover - device code
    """The keys of a share, and for each cache its number and how many shares it has: at most
    `programs` more than there are caches.
    """
    s = tl.arange(0, SEGMENTS)
    count = tl.load(lengths + s, mask=s < samples, other=0)
    split = tl.cdiv(tl.sum(count, 0), programs)
    split = tl.maximum(tl.cdiv(split, LEAST) * LEAST, LEAST).to(tl.int32)
    return split, s, tl.cdiv(count.to(tl.int32), split)


@kernel
def decode_kernel(
    query,
    key,
    value,
    starts,
    lengths,
    positions,
    asked,
    spans,
    sinks,
    out,
    lse,
    queries,
    samples,
    programs,
    width,
    value_width,
    stride,
    value_stride,
    scale,
    SPLIT: tl.constexpr,
    LIMITED: tl.constexpr,
    WINDOWED: tl.constexpr,
    LEAST: tl.constexpr,
    SEGMENTS: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
    VALUE_WIDTH: tl.constexpr,
):  # pragma: no cover - device code
    """out, lse: of the caches, or, SPLIT, of the shares."""
    program = tl.program_id(0)
    i = tl.program_id(1) * QUERIES + tl.arange(0, QUERIES)
    if SPLIT:
        split, s, shares = _shares(lengths, samples, programs, LEAST, SEGMENTS)
        ended = tl.sum(((tl.cumsum(shares, 0) <= program) & (s < samples)).to(tl.int32), 0)
        b = tl.minimum(ended, samples - 1)
        first = (program - tl.sum(tl.where(s < b, shares, 0), 0)) * split
        # A program behind the last share has no keys.
        count = tl.minimum(tl.maximum(tl.load(lengths + b).to(tl.int32) - first, 0), split)
    else:
        b, first = program, 0
        count = tl.load(lengths + b).to(tl.int32)
    begin = tl.load(starts + b) + first
    in_tile, rows = i < queries, b.to(tl.int64) * queries + i
    q = tile(query, rows, in_tile, width, width, WIDTH)
    at, span, sink = i, count, count
    if LIMITED:
        at = tl.load(asked + rows, mask=in_tile, other=0)
    if WINDOWED:
        span, sink = tl.load(spans + b), tl.load(sinks + b)
    top, total, summed = attended(
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
        at,
        span,
        sink,
        LIMITED=LIMITED,
        WINDOWED=WINDOWED,
        QUERIES=QUERIES,
        KEYS=KEYS,
        WIDTH=WIDTH,
        VALUE_WIDTH=VALUE_WIDTH,
    )
    bare = total == 0.0
    divisor = tl.where(bare, 1.0, total)
    place = program.to(tl.int64) * queries + i
    mean = summed / divisor[:, None]
    put(out, place, in_tile, value_width, value_width, mean, VALUE_WIDTH)
    sums = tl.where(bare, float("-inf"), top + tl.log(divisor))
    tl.store(lse + place, sums, mask=in_tile)


@kernel
def join_kernel(
    part,
    part_lse,
    lengths,
    out,
    lse,
    queries,
    samples,
    programs,
    width,
    LEAST: tl.constexpr,
    SEGMENTS: tl.constexpr,
    SPLITS: tl.constexpr,
    WIDTH: tl.constexpr,
):  # pragma: no cover - device code
    """Outputs (P, N, width) of the shares as those of the caches."""
    row = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    _, s, shares = _shares(lengths, samples, programs, LEAST, SEGMENTS)
    b, i = row // queries, row % queries
    before = tl.sum(tl.where(s < b, shares, 0), 0)
    count = tl.sum(tl.where(s == b, shares, 0), 0)
    first = before * queries + i
    mean, top, total = joined(part, part_lse, first, queries, count, width, c, SPLITS, WIDTH)
    tl.store(out + row * width + c, mean, mask=c < width)
    if tl.program_id(1) == 0:
        bare = total == 0.0
        sums = top + tl.log(tl.where(bare, 1.0, total))
        tl.store(lse + row, tl.where(bare, float("-inf"), sums))


def _by_rows(x: Tensor) -> Tensor:
    """Rows (R, .) whose numbers have no gaps; rows may have gaps between them, as keys have that
    lie beside their values.
    """
    return x if x.stride(1) == 1 else x.contiguous()


def forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts: Tensor,
    lengths: Tensor,
    key_position: Tensor | None,
    query_position: Tensor | None,
    span: Tensor | None,
    sink: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """As `cpu.forward`, by Triton."""
    query, starts, lengths = contiguous(query, starts, lengths)
    key, value = _by_rows(key), _by_rows(value)
    # What is not there is not read.
    limits = [
        lengths if x is None else x.contiguous() for x in (key_position, query_position, span, sink)
    ]
    (samples, queries, width), value_width = query.shape, value.shape[1]
    out = query.new_empty((samples, queries, value_width))
    lse = query.new_empty((samples, queries), dtype=torch.float32)
    if not lse.numel():
        return out, lse
    sizes = tile_sizes(query, value, False)
    blocks = triton.cdiv(queries, sizes["QUERIES"])
    split = samples * blocks < PROGRAMS and key.shape[0] > samples * LEAST_KEYS
    programs = triton.cdiv(PROGRAMS, blocks)
    shared = {"LEAST": LEAST_KEYS, "SEGMENTS": power_of_two(samples) if split else 16}
    part, part_lse = out, lse
    if split:
        shape = samples + programs, queries
        part = query.new_empty((*shape, value_width), dtype=torch.float32)
        part_lse = query.new_empty(shape, dtype=torch.float32)
    numbers = queries, samples, programs, width, value_width, key.stride(0), value.stride(0), scale
    flags = {"SPLIT": split, "LIMITED": key_position is not None, "WINDOWED": span is not None}
    tensors = query, key, value, starts, lengths, *limits, part, part_lse
    launch(decode_kernel, (part.shape[0], blocks), *tensors, *numbers, **flags, **shared, **sizes)
    if split:
        grid = lse.numel(), triton.cdiv(value_width, MERGED["WIDTH"])
        tensors, numbers = (part, part_lse, lengths, out, lse), (queries, samples, programs)
        launch(join_kernel, grid, *tensors, *numbers, value_width, **shared, **MERGED)
    return out, lse
