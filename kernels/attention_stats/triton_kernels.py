"""Triton kernels of the read-outs of softmax attention; `triton` launches them.

Shapes: B batch, N queries, M keys, H heads, d width of a head, e width of a value.
"""

import triton
import triton.language as tl

from ..launching import PRECISION, kernel, pair_and_block
from . import cpu

HIDDEN, FLOOR = tl.constexpr(cpu.HIDDEN), tl.constexpr(cpu.FLOOR)


@triton.jit
def _scores(
    q,
    key,
    mask,
    key_at,
    mask_at,
    n,
    m,
    queries,
    keys,
    width,
    mask_row,
    mask_key,
    scale,
    MASKED: tl.constexpr,
    CAUSAL: tl.constexpr,
    WIDTH: tl.constexpr,
):  # pragma: no cover - runs on the device or in the interpreter
    """Scores of a tile, hidden where the query may not attend."""
    d = tl.arange(0, WIDTH)
    inside = (m < keys)[None, :] & (d < width)[:, None]
    k = tl.load(key + key_at + m[None, :] * width + d[:, None], mask=inside, other=0.0)
    visible = (n < queries)[:, None] & (m < keys)[None, :]
    if CAUSAL:
        visible = visible & (m[None, :] <= n[:, None] + (keys - queries))
    if MASKED:
        place = mask_at + n.to(tl.int64)[:, None] * mask_row + m.to(tl.int64)[None, :] * mask_key
        visible = visible & (tl.load(mask + place, mask=visible, other=0) != 0)
    return tl.where(visible, tl.dot(q, k, input_precision=PRECISION) * scale, HIDDEN)


@kernel
def read_kernel(
    query,
    key,
    value,
    mask,
    numbers,
    out,
    out_lse,
    out_entropy,
    out_mass,
    queries,
    keys,
    heads,
    group,
    width,
    value_width,
    mask_batch,
    mask_head,
    mask_row,
    mask_key,
    numbers_batch,
    numbers_head,
    scale,
    VALUE: tl.constexpr,
    MASKED: tl.constexpr,
    NUMBERS: tl.constexpr,
    ENTROPY: tl.constexpr,
    CAUSAL: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
    VALUE_WIDTH: tl.constexpr,
):  # pragma: no cover - device code
    both, block = pair_and_block(tl.cdiv(queries, ROWS))
    batch, head = both // heads, both % heads
    n = block * ROWS + tl.arange(0, ROWS)
    d, e = tl.arange(0, WIDTH), tl.arange(0, VALUE_WIDTH)
    at = both * queries + n
    alive = n < queries
    q = tl.load(
        query + at[:, None] * width + d[None, :],
        mask=alive[:, None] & (d < width)[None, :],
        other=0.0,
    )
    first = (both // group) * keys
    mask_at = batch * mask_batch + head * mask_head
    top = tl.full((ROWS,), FLOOR, tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    spread = tl.zeros((ROWS,), tl.float32)
    held = tl.zeros((ROWS,), tl.float32)
    mixed = tl.zeros((ROWS, VALUE_WIDTH), tl.float32)
    last = keys
    if CAUSAL:
        last = tl.minimum(keys, (block + 1) * ROWS + keys - queries)
    for start in range(0, last, KEYS):
        m = start + tl.arange(0, KEYS)
        tile = _scores(
            q,
            key,
            mask,
            first * width,
            mask_at,
            n,
            m,
            queries,
            keys,
            width,
            mask_row,
            mask_key,
            scale,
            MASKED,
            CAUSAL,
            WIDTH,
        )
        new = tl.maximum(top, tl.max(tile, 1))
        tile = tile - new[:, None]
        exps = tl.exp(tile)
        keep = tl.exp(top - new)
        if ENTROPY:
            spread = keep * (spread + (top - new) * total) + tl.sum(exps * tile, 1)
        if NUMBERS:
            number = tl.load(
                numbers + batch * numbers_batch + head * numbers_head + m, mask=m < keys, other=0.0
            ).to(tl.float32)
            held = keep * held + tl.sum(exps * number[None, :], 1)
        if VALUE:
            inside = (m < keys)[:, None] & (e < value_width)[None, :]
            v = tl.load(
                value + (first + m)[:, None] * value_width + e[None, :], mask=inside, other=0.0
            )
            mixed = mixed * keep[:, None] + tl.dot(exps.to(v.dtype), v, input_precision=PRECISION)
        total = total * keep + tl.sum(exps, 1)
        top = new
    bare = total == 0.0
    total = tl.where(bare, 1.0, total)
    log_total = tl.log(total)
    tl.store(out_lse + at, tl.where(bare, float("-inf"), log_total + top), mask=alive)
    if ENTROPY:
        tl.store(out_entropy + at, log_total - spread / total, mask=alive)
    if NUMBERS:
        tl.store(out_mass + at, held / total, mask=alive)
    if VALUE:
        place = at[:, None] * value_width + e[None, :]
        tl.store(
            out + place, mixed / total[:, None], mask=alive[:, None] & (e < value_width)[None, :]
        )


@kernel
def column_kernel(
    query,
    key,
    mask,
    lse,
    weights,
    out,
    queries,
    keys,
    heads,
    group,
    width,
    mask_batch,
    mask_head,
    mask_row,
    mask_key,
    scale,
    MASKED: tl.constexpr,
    WEIGHTED: tl.constexpr,
    CAUSAL: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
):  # pragma: no cover - device code
    both, block = pair_and_block(tl.cdiv(keys, KEYS))
    batch, head = both // heads, both % heads
    m = block * KEYS + tl.arange(0, KEYS)
    d = tl.arange(0, WIDTH)
    key_at = (both // group) * keys * width
    mask_at = batch * mask_batch + head * mask_head
    mass = tl.zeros((KEYS,), tl.float32)
    begin = 0
    if CAUSAL:
        begin = tl.maximum(0, (block * KEYS + queries - keys) // ROWS * ROWS)
    for start in range(begin, queries, ROWS):
        n = start + tl.arange(0, ROWS)
        at = both * queries + n
        alive = n < queries
        q = tl.load(
            query + at[:, None] * width + d[None, :],
            mask=alive[:, None] & (d < width)[None, :],
            other=0.0,
        )
        tile = _scores(
            q,
            key,
            mask,
            key_at,
            mask_at,
            n,
            m,
            queries,
            keys,
            width,
            mask_row,
            mask_key,
            scale,
            MASKED,
            CAUSAL,
            WIDTH,
        )
        log_total = tl.load(lse + at, mask=alive, other=0.0)
        share = tl.exp(tile - tl.where(log_total == float("-inf"), -HIDDEN, log_total)[:, None])
        if WEIGHTED:
            share = share * tl.load(weights + batch * queries + n, mask=alive, other=0.0)[:, None]
        mass += tl.sum(share, 0)
    tl.store(out + both * keys + m, mass, mask=m < keys)


@triton.jit
def _ends(tile, best):  # pragma: no cover - device code
    """Largest score of the tile and smallest of the kept, by query, and how many queries have the
    first above.
    """
    largest = tl.maximum(tl.max(tile, 1), HIDDEN)
    smallest = tl.maximum(tl.min(best, 1), HIDDEN)
    return largest, smallest, tl.sum(tl.where(largest > smallest, 1, 0), 0)


@kernel
def top_kernel(
    query,
    key,
    mask,
    out_best,
    out_place,
    queries,
    keys,
    heads,
    group,
    width,
    mask_batch,
    mask_head,
    mask_row,
    mask_key,
    scale,
    MASKED: tl.constexpr,
    CAUSAL: tl.constexpr,
    TOP: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
):  # pragma: no cover - device code
    both, block = pair_and_block(tl.cdiv(queries, ROWS))
    batch, head = both // heads, both % heads
    n = block * ROWS + tl.arange(0, ROWS)
    d, slots = tl.arange(0, WIDTH), tl.arange(0, TOP)
    at = both * queries + n
    alive = n < queries
    q = tl.load(
        query + at[:, None] * width + d[None, :],
        mask=alive[:, None] & (d < width)[None, :],
        other=0.0,
    )
    key_at = (both // group) * keys * width
    mask_at = batch * mask_batch + head * mask_head
    best = tl.full((ROWS, TOP), HIDDEN, tl.float32)
    place = tl.full((ROWS, TOP), -1, tl.int32)
    last = keys
    if CAUSAL:
        last = tl.minimum(keys, (block + 1) * ROWS + keys - queries)
    for start in range(0, last, KEYS):
        m = start + tl.arange(0, KEYS)
        tile = _scores(
            q,
            key,
            mask,
            key_at,
            mask_at,
            n,
            m,
            queries,
            keys,
            width,
            mask_row,
            mask_key,
            scale,
            MASKED,
            CAUSAL,
            WIDTH,
        )
        largest, smallest, rising = _ends(tile, best)
        while rising > 0:  # type: ignore[operator]
            where = tl.expand_dims(
                tl.min(tl.where(tile == largest[:, None], m[None, :], 2147483647), 1), 1
            )
            slot = tl.expand_dims(
                tl.min(tl.where(best == smallest[:, None], slots[None, :], TOP), 1), 1
            )
            taken = (largest > smallest)[:, None] & (slots[None, :] == slot)
            best = tl.where(taken, largest[:, None], best)
            place = tl.where(taken, where, place)
            tile = tl.where(m[None, :] == where, HIDDEN, tile)
            largest, smallest, rising = _ends(tile, best)
    spot = at[:, None] * TOP + slots[None, :]
    tl.store(out_best + spot, best, mask=alive[:, None] & (slots < TOP)[None, :])
    tl.store(out_place + spot, place, mask=alive[:, None] & (slots < TOP)[None, :])
