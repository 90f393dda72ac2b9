"""Triton form of gathered heads.

Shapes: B batch, H heads, N tokens, M keys, K heads of keys and values, d width of a head, n_h
tokens that use head h.

Forward and gradient of the queries: a program owns a block of the queries of one head, gathered by
`order`, which holds the tokens that use the head first; it walks the keys with running maximum and
sum (online softmax) and scatters rows times gate. Programs beyond n_h end at once, so nothing waits
for the counts. Gradient of keys and values: a program owns a block of keys of one head and walks
the gathered queries; heads that share keys are summed by PyTorch. Limited by matrix products from
some hundred keys on. Tiles are fixed; nothing spills on sm_90 as launched."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..launching import PRECISION, contiguous, kernel, launch, pair_and_block, power_of_two
from .cpu import token_major

QUERIES, KEYS = 64, 32


@triton.jit
def _rows(
    order, counts, pair, first, tokens, QUERIES: tl.constexpr
):  # pragma: no cover - device code
    """Tokens of a block of gathered queries, and which of them there are."""
    i = first + tl.arange(0, QUERIES)
    live = i < tl.load(counts + pair)
    return tl.load(order + pair * tokens + i, mask=live, other=0), live


@triton.jit
def _tile(base, rows, live, stride, width, WIDTH: tl.constexpr):  # pragma: no cover - device code
    d = tl.arange(0, WIDTH)
    place = base + rows[:, None] * stride + d[None, :]  # 32 bits within a batch row: see `_rowwise`
    return tl.load(place, mask=live[:, None] & (d < width)[None, :], other=0.0)


@triton.jit
def _allowed(
    mask, rows, live, j, tokens, keys, mask_n, mask_m, MASKED: tl.constexpr, CAUSAL: tl.constexpr
):  # pragma: no cover - device code
    """Where these queries may attend to these keys; mask points to their batch row and head."""
    counts = live[:, None] & (j < keys)[None, :]
    if CAUSAL:
        counts = counts & (j[None, :] <= rows[:, None] + (keys - tokens))
    if MASKED:
        place = mask + rows.to(tl.int64)[:, None] * mask_n + j.to(tl.int64)[None, :] * mask_m
        counts = counts & (tl.load(place, mask=counts, other=0) != 0)
    return counts


@kernel
def forward_kernel(
    query,
    key,
    value,
    gate,
    order,
    counts,
    mask,
    out,
    lse,
    heads,
    group,
    tokens,
    keys,
    width,
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
    mask_b,
    mask_h,
    mask_n,
    mask_m,
    MASKED: tl.constexpr,
    CAUSAL: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
):  # pragma: no cover - device code
    pair, block = pair_and_block(tl.cdiv(tokens, QUERIES))
    first = block * QUERIES
    if first >= tl.load(counts + pair):
        return
    b, h = pair // heads, pair % heads
    rows, live = _rows(order, counts, pair, first, tokens, QUERIES)
    q = _tile(query + b * q_b + h * q_h, rows, live, q_n, width, WIDTH)
    top = tl.full((QUERIES,), float("-inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    summed = tl.zeros((QUERIES, WIDTH), tl.float32)
    end = keys
    if CAUSAL:
        end = tl.minimum(keys, tl.max(rows, 0) + keys - tokens + 1)
    for start in range(0, end, KEYS):
        j = start + tl.arange(0, KEYS)
        k = _tile(key + b * k_b + (h // group) * k_h, j, j < keys, k_n, width, WIDTH)
        v = _tile(value + b * v_b + (h // group) * v_h, j, j < keys, v_n, width, WIDTH)
        head_mask = mask + b * mask_b + h * mask_h
        may = _allowed(head_mask, rows, live, j, tokens, keys, mask_n, mask_m, MASKED, CAUSAL)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
        scores = tl.where(may, scores, float("-inf"))
        new = tl.maximum(top, tl.max(scores, 1))
        safe = tl.where(new == float("-inf"), 0.0, new)
        weight = tl.exp(scores - safe[:, None])
        keep = tl.exp(top - safe)
        total = total * keep + tl.sum(weight, 1)
        summed = summed * keep[:, None] + tl.dot(weight.to(v.dtype), v, input_precision=PRECISION)
        top = new
    divisor = tl.where(total == 0.0, 1.0, total)
    at = pair * tokens + rows
    factor = tl.load(gate + at, mask=live, other=0.0).to(tl.float32) / divisor
    d = tl.arange(0, WIDTH)
    place = out + b * o_b + h * o_h + rows.to(tl.int64)[:, None] * o_n + d[None, :]
    tl.store(place, summed * factor[:, None], mask=live[:, None] & (d < width)[None, :])
    tl.store(lse + at, tl.where(total == 0.0, float("inf"), top + tl.log(divisor)), mask=live)


@kernel
def query_backward_kernel(
    grad,
    query,
    key,
    value,
    gate,
    order,
    counts,
    mask,
    lse,
    delta,
    d_query,
    heads,
    group,
    tokens,
    keys,
    width,
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
    o_b,
    o_h,
    o_n,
    mask_b,
    mask_h,
    mask_n,
    mask_m,
    MASKED: tl.constexpr,
    CAUSAL: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
):  # pragma: no cover - device code
    pair, block = pair_and_block(tl.cdiv(tokens, QUERIES))
    first = block * QUERIES
    if first >= tl.load(counts + pair):
        return
    b, h = pair // heads, pair % heads
    rows, live = _rows(order, counts, pair, first, tokens, QUERIES)
    at = pair * tokens + rows
    q = _tile(query + b * q_b + h * q_h, rows, live, q_n, width, WIDTH)
    g = _tile(grad + b * g_b + h * g_h, rows, live, g_n, width, WIDTH)
    g = (g * tl.load(gate + at, mask=live, other=0.0).to(tl.float32)[:, None]).to(q.dtype)
    sums = tl.load(lse + at, mask=live, other=float("inf"))
    part = tl.load(delta + at, mask=live, other=0.0)
    summed = tl.zeros((QUERIES, WIDTH), tl.float32)
    end = keys
    if CAUSAL:
        end = tl.minimum(keys, tl.max(rows, 0) + keys - tokens + 1)
    for start in range(0, end, KEYS):
        j = start + tl.arange(0, KEYS)
        k = _tile(key + b * k_b + (h // group) * k_h, j, j < keys, k_n, width, WIDTH)
        v = _tile(value + b * v_b + (h // group) * v_h, j, j < keys, v_n, width, WIDTH)
        head_mask = mask + b * mask_b + h * mask_h
        may = _allowed(head_mask, rows, live, j, tokens, keys, mask_n, mask_m, MASKED, CAUSAL)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
        weight = tl.where(may, tl.exp(scores - sums[:, None]), 0.0)
        d_weight = tl.dot(g, tl.trans(v), input_precision=PRECISION)
        slope = weight * (d_weight - part[:, None]) * scale
        summed += tl.dot(slope.to(k.dtype), k, input_precision=PRECISION)
    d = tl.arange(0, WIDTH)
    place = d_query + b * o_b + h * o_h + rows.to(tl.int64)[:, None] * o_n + d[None, :]
    tl.store(place, summed, mask=live[:, None] & (d < width)[None, :])


@kernel
def key_backward_kernel(
    grad,
    query,
    key,
    value,
    gate,
    order,
    counts,
    mask,
    lse,
    delta,
    d_key,
    d_value,
    heads,
    group,
    tokens,
    keys,
    width,
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
    mask_b,
    mask_h,
    mask_n,
    mask_m,
    MASKED: tl.constexpr,
    CAUSAL: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
):  # pragma: no cover - device code
    pair, block = pair_and_block(tl.cdiv(keys, KEYS))
    b, h = pair // heads, pair % heads
    j = block * KEYS + tl.arange(0, KEYS)
    k = _tile(key + b * k_b + (h // group) * k_h, j, j < keys, k_n, width, WIDTH)
    v = _tile(value + b * v_b + (h // group) * v_h, j, j < keys, v_n, width, WIDTH)
    for_key = tl.zeros((KEYS, WIDTH), tl.float32)
    for_value = tl.zeros((KEYS, WIDTH), tl.float32)
    for first in range(0, tl.load(counts + pair), QUERIES):
        rows, live = _rows(order, counts, pair, first, tokens, QUERIES)
        at = pair * tokens + rows
        q = _tile(query + b * q_b + h * q_h, rows, live, q_n, width, WIDTH)
        g = _tile(grad + b * g_b + h * g_h, rows, live, g_n, width, WIDTH)
        g = (g * tl.load(gate + at, mask=live, other=0.0).to(tl.float32)[:, None]).to(q.dtype)
        sums = tl.load(lse + at, mask=live, other=float("inf"))
        part = tl.load(delta + at, mask=live, other=0.0)
        head_mask = mask + b * mask_b + h * mask_h
        may = _allowed(head_mask, rows, live, j, tokens, keys, mask_n, mask_m, MASKED, CAUSAL)
        # Keys come first here, so that the tiles need no turning before the products that sum over
        # queries.
        scores = tl.dot(k, tl.trans(q), input_precision=PRECISION) * scale
        weight = tl.where(tl.trans(may), tl.exp(scores - sums[None, :]), 0.0)
        for_value += tl.dot(weight.to(g.dtype), g, input_precision=PRECISION)
        d_weight = tl.dot(v, tl.trans(g), input_precision=PRECISION)
        slope = weight * (d_weight - part[None, :]) * scale
        for_key += tl.dot(slope.to(q.dtype), q, input_precision=PRECISION)
    d = tl.arange(0, WIDTH)
    place = (pair * keys + j)[:, None] * width + d[None, :]
    inside = (j < keys)[:, None] & (d < width)[None, :]
    tl.store(d_key + place, for_key, mask=inside)
    tl.store(d_value + place, for_value, mask=inside)


def _flags(query: Tensor, masked: bool, causal: bool, sums: str = "") -> dict[str, int]:
    """Sizes of the tiles; sums: what a backward kernel sums over, "keys" or "queries"."""
    padded, single = power_of_two(query.shape[-1]), query.dtype == torch.float32
    # The backward pass holds twice as many tiles, float32 products three of each: these take fewer
    # rows at a time.
    wide = padded > 64
    queries = QUERIES // 2 if sums or single or padded > 128 else QUERIES
    queries, keys = (16 if single and wide else queries), (KEYS // 2 if single else KEYS)
    wide = wide or single
    flags = {
        "MASKED": masked,
        "CAUSAL": causal,
        "QUERIES": queries,
        "KEYS": keys,
        "WIDTH": padded,
        "num_warps": 8 if wide else 4,
        "num_stages": 2 if wide else 3,
    }
    if sums and not single and padded <= 128:
        # 64 rows of what a program owns: Hopper's products need as many, and nothing spills.
        return flags | {"QUERIES" if sums == "keys" else "KEYS": 64, "num_stages": 2}
    return flags


def _gathered(
    gate: Tensor, mask: Tensor | None, keys: int
) -> tuple[Tensor, Tensor, Tensor, tuple[int, ...]]:
    """Tokens of each head with those that use it first, how many these are, mask bytes and their
    strides.
    """
    on = gate != 0
    order = (~on).to(torch.uint8).argsort(stable=True, dim=-1).to(torch.int32)
    counts = on.sum(-1, dtype=torch.int32)
    if mask is None:
        return order, counts, counts, (0, 0, 0, 0)
    spread = mask.view(torch.uint8).expand(*gate.shape, keys)
    return order, counts, spread, spread.stride()


def _rowwise(*tensors: Tensor) -> list[Tensor]:
    """Tensors whose rows are contiguous, with any other strides. Raises ValueError where a row
    spans 2^31 numbers.
    """
    spans = [sum((n - 1) * step for n, step in zip(t.shape[1:], t.stride()[1:])) for t in tensors]
    if max(spans) >= 2**31:
        raise ValueError(
            "gathered_heads: a batch row that spans 2^31 numbers is too long for its kernels"
        )
    return [tensor if tensor.stride(-1) == 1 else tensor.contiguous() for tensor in tensors]


def forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    gate: Tensor,
    mask: Tensor | None,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """As `cpu.forward`, by Triton."""
    query, key, value = _rowwise(query, key, value)
    gate = gate.contiguous()
    batch, heads, tokens, width = query.shape
    keys = key.shape[2]
    out = token_major(query).zero_()
    lse = query.new_full(query.shape[:-1], torch.inf, dtype=torch.float32)
    if query.numel() and keys:
        order, counts, marks, steps = _gathered(gate, mask, keys)
        flags = _flags(query, mask is not None, causal)
        strides = [s for tensor in (query, key, value, out) for s in tensor.stride()[:3]]
        grid = (batch * heads * triton.cdiv(tokens, flags["QUERIES"]),)
        tensors = query, key, value, gate, order, counts, marks, out, lse
        numbers = heads, heads // key.shape[1], tokens, keys, width, scale, *strides, *steps
        launch(forward_kernel, grid, *tensors, *numbers, **flags)
    return out, lse


def backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    gate: Tensor,
    mask: Tensor | None,
    out: Tensor,
    lse: Tensor,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `cpu.backward`, by Triton."""
    grad, query, key, value = _rowwise(grad, query, key, value)
    gate, lse = contiguous(gate, lse)
    batch, heads, tokens, width = query.shape
    groups, keys = key.shape[1:3]
    # sum(gate g o) = sum(g out): the same number serves the softmax and, divided by the gate, the
    # gate itself.
    delta = torch.einsum("bhnd,bhnd->bhn", grad.float(), out.float()).contiguous()
    d_gate = (delta / gate).masked_fill(gate == 0, 0.0).to(gate.dtype)
    d_query = token_major(query).zero_()
    d_key = query.new_zeros((batch, heads, keys, width), dtype=torch.float32)
    d_value = torch.zeros_like(d_key)
    if query.numel() and keys:
        order, counts, marks, steps = _gathered(gate, mask, keys)
        flags = _flags(query, mask is not None, causal, "keys")
        tensors = [grad, query, key, value, gate, order, counts, marks, lse, delta]
        sizes = [heads, heads // groups, tokens, keys, width, scale]
        strides = [s for tensor in (grad, query, key, value) for s in tensor.stride()[:3]]
        grid = (batch * heads * triton.cdiv(tokens, flags["QUERIES"]),)
        numbers = *sizes, *strides, *d_query.stride()[:3], *steps
        launch(query_backward_kernel, grid, *tensors, d_query, *numbers, **flags)
        flags = _flags(query, mask is not None, causal, "queries")
        grid = (batch * heads * triton.cdiv(keys, flags["KEYS"]),)
        numbers = *sizes, *strides, *steps
        launch(key_backward_kernel, grid, *tensors, d_key, d_value, *numbers, **flags)
    summed = [part.unflatten(1, (groups, -1)).sum(2) for part in (d_key, d_value)]
    return d_query, summed[0].to(key.dtype), summed[1].to(value.dtype), d_gate
