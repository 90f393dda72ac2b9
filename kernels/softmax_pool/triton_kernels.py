"""Triton kernels of softmax pooling and drawing; `triton` launches them.

Shapes: B bags, N rows, D width, H heads, S splits of the rows of a bag.
"""

import triton
import triton.language as tl

from ..launching import PRECISION, kernel


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


@kernel
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


@kernel
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
def _exponential(word):  # pragma: no cover - device code
    """-log(1 - u), u = word / 2^32: exponential noise, exact where it is small, which decides who
    wins.
    """
    u = tl.maximum(word.to(tl.float32) * 2.3283064365386963e-10, 2.3283064365386963e-10)
    # Rounding of 1 - u would move small numbers; below 1/64 five terms are exact to the last digit.
    series = u * (1 + u * (1 / 2 + u * (1 / 3 + u * (1 / 4 + u / 5))))
    return tl.where(u < 0.015625, series, -tl.log(1.0 - tl.minimum(u, 0.99999994)))


@kernel
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
    key = tl.load(seed)
    part: tl.constexpr = ROWS // 4
    in_part = tl.arange(0, part)
    place = in_part[:, None] + tl.zeros_like(d)[None, :]
    feature = d[None, :] + tl.zeros_like(in_part)[:, None]
    best = tl.full((WIDTH,), float("-inf"), tl.float32)
    row = tl.full((WIDTH,), -1, tl.int32)
    for first in range(split * ROWS, count, splits * ROWS):
        # One call makes four words, one for each quarter of the tile's rows. Bags differ in the
        # counter, not in the key: then no bag under one seed draws as another one under the next.
        counter = first // 4 + place
        words = tl.philox(key, counter, feature, tl.zeros_like(place) + bag, tl.zeros_like(place))
        for quarter in tl.static_range(4):  # pyright: ignore[reportGeneralTypeIssues]
            n = first + quarter * part + in_part
            tile, counts = _scores(scores, mask, start, n, d, count, width, MASKED)
            bad = (tile != tile) | (tile == float("inf"))
            noise = _exponential(words[quarter])
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


@kernel
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
        product = tl.dot(tl.trans(weight).to(value.dtype), value, input_precision=PRECISION)
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


@kernel
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
            d_weight += tl.dot(value, g.to(value.dtype), input_precision=PRECISION)
        p = tl.exp(tile - log_total[None, :])
        # Chosen, not multiplied: rows behind the mask may hold a NaN.
        d_score = tl.where(counts, p * (d_weight - shift[None, :]), 0.0)
        place = (start + n)[:, None] * heads + h[None, :]
        tl.store(d_scores + place, d_score, mask=(n < count)[:, None] & (h < heads)[None, :])


@kernel
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
                tl.exp(tile - log_total[None, :]).to(g.dtype), g, input_precision=PRECISION
            )
        place = (start + n)[:, None] * width + d[None, :]
        tl.store(d_values + place, d_value, mask=(n < count)[:, None] & (d < width)[None, :])
