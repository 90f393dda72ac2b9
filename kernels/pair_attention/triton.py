"""Triton form of pair-wise cross-attention.

Shapes: B batch, H heads, N queries, M keys, d width of queries and keys, e width of values; p(b)
partner of sample b.

Forward and gradient of the queries: a program owns a block of queries of one head and walks the
keys of its sample and then those of the partner, whose place it reads from `partner`: one loop,
nothing is copied. Gradient of keys and values: a program owns a block of keys of sample c and walks
the queries of c and then those of all samples that have c as their partner (`order` holds the
samples sorted by partner, `first` where those of each begin): nothing is atomic, every sum has one
order. Exponentials are powers of 2, scale includes log2(e); lse is the natural logarithm."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..launching import PRECISION, contiguous, kernel, launch, pair_and_block, power_of_two
from .cpu import room, rowwise

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
QUERIES, KEYS = 64, 32


@triton.jit
def _tile(base, rows, live, stride, width, WIDTH: tl.constexpr):  # pragma: no cover - device code
    """(rows, WIDTH), 0 beyond the edges; rows `stride` numbers apart."""
    c = tl.arange(0, WIDTH)
    place = base + rows.to(tl.int64)[:, None] * stride + c[None, :]
    return tl.load(place, mask=live[:, None] & (c < width)[None, :], other=0.0)


@triton.jit
def _put(
    base, rows, live, stride, width, tile, WIDTH: tl.constexpr
):  # pragma: no cover - device code
    c = tl.arange(0, WIDTH)
    place = base + rows.to(tl.int64)[:, None] * stride + c[None, :]
    tl.store(place, tile, mask=live[:, None] & (c < width)[None, :])


@kernel
def forward_kernel(
    query,
    key,
    value,
    partner,
    out,
    lse,
    heads,
    queries,
    keys,
    width,
    value_width,
    scale,
    q_b,
    q_h,
    q_n,
    k_b,
    k_h,
    k_n,
    v_b,
    v_h,
    v_n,
    o_b,
    o_h,
    o_n,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
    VALUE_WIDTH: tl.constexpr,
):  # pragma: no cover - device code
    pair, block = pair_and_block(tl.cdiv(queries, QUERIES))
    b, h = pair // heads, pair % heads
    partner_sample = tl.load(partner + b)
    i = block * QUERIES + tl.arange(0, QUERIES)
    asked = i < queries
    q = _tile(query + b * q_b + h * q_h, i, asked, q_n, width, WIDTH)
    top = tl.full((QUERIES,), float("-inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    summed = tl.zeros((QUERIES, VALUE_WIDTH), tl.float32)
    tiles = tl.cdiv(keys, KEYS)
    for t in range(2 * tiles):
        c = tl.where(t < tiles, b, partner_sample)
        j = tl.where(t < tiles, t, t - tiles) * KEYS + tl.arange(0, KEYS)
        k = _tile(key + c * k_b + h * k_h, j, j < keys, k_n, width, WIDTH)
        v = _tile(value + c * v_b + h * v_h, j, j < keys, v_n, value_width, VALUE_WIDTH)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (scale * LOG2E)
        scores = tl.where((j < keys)[None, :], scores, float("-inf"))
        new = tl.maximum(top, tl.max(scores, 1))
        weight = tl.exp2(scores - new[:, None])
        keep = tl.exp2(top - new)
        total = total * keep + tl.sum(weight, 1)
        summed = summed * keep[:, None] + tl.dot(weight.to(v.dtype), v, input_precision=PRECISION)
        top = new
    _put(out + b * o_b + h * o_h, i, asked, o_n, value_width, summed / total[:, None], VALUE_WIDTH)
    tl.store(lse + pair * queries + i, (top + tl.log2(total)) * LN2, mask=asked)


@kernel
def query_backward_kernel(
    grad,
    query,
    key,
    value,
    partner,
    lse,
    delta,
    d_query,
    heads,
    queries,
    keys,
    width,
    value_width,
    scale,
    g_b,
    g_h,
    g_n,
    q_b,
    q_h,
    q_n,
    k_b,
    k_h,
    k_n,
    v_b,
    v_h,
    v_n,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
    VALUE_WIDTH: tl.constexpr,
):  # pragma: no cover - device code
    pair, block = pair_and_block(tl.cdiv(queries, QUERIES))
    b, h = pair // heads, pair % heads
    partner_sample = tl.load(partner + b)
    i = block * QUERIES + tl.arange(0, QUERIES)
    asked, at = i < queries, pair * queries + i
    q = _tile(query + b * q_b + h * q_h, i, asked, q_n, width, WIDTH)
    g = _tile(grad + b * g_b + h * g_h, i, asked, g_n, value_width, VALUE_WIDTH)
    sums = tl.load(lse + at, mask=asked, other=float("inf")) * LOG2E
    part = tl.load(delta + at, mask=asked, other=0.0)
    summed = tl.zeros((QUERIES, WIDTH), tl.float32)
    tiles = tl.cdiv(keys, KEYS)
    for t in range(2 * tiles):
        c = tl.where(t < tiles, b, partner_sample)
        j = tl.where(t < tiles, t, t - tiles) * KEYS + tl.arange(0, KEYS)
        k = _tile(key + c * k_b + h * k_h, j, j < keys, k_n, width, WIDTH)
        v = _tile(value + c * v_b + h * v_h, j, j < keys, v_n, value_width, VALUE_WIDTH)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (scale * LOG2E)
        weight = tl.where((j < keys)[None, :], tl.exp2(scores - sums[:, None]), 0.0)
        slope = weight * (tl.dot(g, tl.trans(v), input_precision=PRECISION) - part[:, None]) * scale
        summed += tl.dot(slope.to(k.dtype), k, input_precision=PRECISION)
    _put(d_query + pair * queries * width, i, asked, width, width, summed, WIDTH)


@kernel
def key_backward_kernel(
    grad,
    query,
    key,
    value,
    order,
    first,
    lse,
    delta,
    d_key,
    d_value,
    heads,
    queries,
    keys,
    width,
    value_width,
    scale,
    g_b,
    g_h,
    g_n,
    q_b,
    q_h,
    q_n,
    k_b,
    k_h,
    k_n,
    v_b,
    v_h,
    v_n,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
    VALUE_WIDTH: tl.constexpr,
):  # pragma: no cover - device code
    pair, block = pair_and_block(tl.cdiv(keys, KEYS))
    c, h = pair // heads, pair % heads
    j = block * KEYS + tl.arange(0, KEYS)
    live = j < keys
    k = _tile(key + c * k_b + h * k_h, j, live, k_n, width, WIDTH)
    v = _tile(value + c * v_b + h * v_h, j, live, v_n, value_width, VALUE_WIDTH)
    for_key = tl.zeros((KEYS, WIDTH), tl.float32)
    for_value = tl.zeros((KEYS, VALUE_WIDTH), tl.float32)
    begin = tl.load(first + c)
    samples = (tl.load(first + c + 1) - begin).to(
        tl.int32
    ) + 1  # itself and those that have it as their partner
    tiles = tl.cdiv(queries, QUERIES)
    for t in range(samples * tiles):
        turn = t // tiles
        b = tl.where(turn == 0, c, tl.load(order + begin + turn - 1, mask=turn > 0, other=0))
        i = (t - turn * tiles) * QUERIES + tl.arange(0, QUERIES)
        asked, at = i < queries, (b * heads + h) * queries + i
        q = _tile(query + b * q_b + h * q_h, i, asked, q_n, width, WIDTH)
        g = _tile(grad + b * g_b + h * g_h, i, asked, g_n, value_width, VALUE_WIDTH)
        # +inf where there is no query, so that its weights are 0.
        sums = tl.load(lse + at, mask=asked, other=float("inf")) * LOG2E
        part = tl.load(delta + at, mask=asked, other=0.0)
        # Keys come first, so that the two products that sum over queries need no turning.
        scores = tl.dot(k, tl.trans(q), input_precision=PRECISION) * (scale * LOG2E)
        weight = tl.exp2(scores - sums[None, :])
        for_value += tl.dot(weight.to(g.dtype), g, input_precision=PRECISION)
        slope = weight * (tl.dot(v, tl.trans(g), input_precision=PRECISION) - part[None, :]) * scale
        for_key += tl.dot(slope.to(q.dtype), q, input_precision=PRECISION)
    at_pair = pair * keys
    _put(d_key + at_pair * width, j, live, width, width, for_key, WIDTH)
    _put(d_value + at_pair * value_width, j, live, value_width, value_width, for_value, VALUE_WIDTH)


def _flags(query: Tensor, value: Tensor, sums: str = "") -> dict[str, int]:
    """Sizes of the tiles; products need 16 rows and columns. sums: what a kernel of the backward
    pass sums over, "keys" or "queries".
    """
    padded = [power_of_two(x.shape[-1]) for x in (query, value)]
    single, wide = query.dtype == torch.float32, max(padded) > 64
    # The backward pass holds twice as many tiles, float32 products three of each: these take fewer
    # rows at a time.
    queries = QUERIES // 2 if sums or single or max(padded) > 128 else QUERIES
    flags = {
        "QUERIES": 16 if single and (wide or bool(sums)) else queries,
        "KEYS": KEYS // 2 if single else KEYS,
        "WIDTH": padded[0],
        "VALUE_WIDTH": padded[1],
        "num_warps": 8 if wide or single else 4,
        "num_stages": 2 if wide or single else 3,
    }
    if sums and not single and not wide:
        # 64 rows of what a program owns: Hopper's products need as many, and nothing spills.
        return flags | {"QUERIES" if sums == "keys" else "KEYS": 64, "num_stages": 2}
    return flags


def _sizes(query: Tensor, value: Tensor) -> tuple[int, int, int, int, int]:
    """Heads, queries, keys, width and width of values."""
    return query.shape[1], query.shape[2], value.shape[2], query.shape[3], value.shape[3]


def forward(
    query: Tensor, key: Tensor, value: Tensor, partner: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """As `cpu.forward`, by Triton."""
    out, lse = room(query, value.shape[3])
    if key.shape[2] == 0 or out.numel() == 0:
        return out.zero_(), lse.fill_(torch.inf)
    query, key, value = rowwise(query, key, value)
    batch, heads, queries, _ = query.shape
    flags = _flags(query, value)
    strides = [s for x in (query, key, value, out) for s in x.stride()[:3]]
    grid = (batch * heads * triton.cdiv(queries, flags["QUERIES"]),)
    tensors = query, key, value, partner.contiguous(), out, lse
    launch(forward_kernel, grid, *tensors, *_sizes(query, value), scale, *strides, **flags)
    return out, lse


def backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    partner: Tensor,
    out: Tensor,
    lse: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `cpu.backward`, by Triton."""
    d_query, d_key, d_value = (x.new_empty(x.shape) for x in (query, key, value))
    if key.shape[2] == 0 or out.numel() == 0:
        return d_query.zero_(), d_key.zero_(), d_value.zero_()
    grad, query, key, value = rowwise(grad, query, key, value)
    batch, heads, queries, _ = query.shape
    partner, lse = contiguous(partner, lse)
    delta = (grad.float() * out).sum(-1).contiguous()
    ordered, order = partner.sort(stable=True)
    first = torch.searchsorted(ordered, torch.arange(batch + 1, device=partner.device))
    flags, sizes = _flags(query, value, "keys"), _sizes(query, value)
    strides = [s for x in (grad, query, key, value) for s in x.stride()[:3]]
    grid = (batch * heads * triton.cdiv(queries, flags["QUERIES"]),)
    tensors = grad, query, key, value, partner, lse, delta, d_query
    launch(query_backward_kernel, grid, *tensors, *sizes, scale, *strides, **flags)
    flags = _flags(query, value, "queries")
    grid = (batch * heads * triton.cdiv(key.shape[2], flags["KEYS"]),)
    tensors = grad, query, key, value, order, first, lse, delta, d_key, d_value
    launch(key_backward_kernel, grid, *tensors, *sizes, scale, *strides, **flags)
    return d_query, d_key, d_value
