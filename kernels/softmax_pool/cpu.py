"""PyTorch form of softmax pooling: the kernel of the CPU and the fallback without Triton.

Shapes: B bags, N rows of a padded bag, M rows of all bags packed, D width, H heads, S slice of
bags. Bags are taken a few at a time, so that the exponentials of a slice stay in the cache: no
temporary has the size of the whole input. `lse` is +inf for an empty bag, which makes every weight
of it exp(-inf) = 0 in the backward pass."""

from itertools import pairwise

import torch
from torch import Tensor

from ..checks import check_offsets
from ..precision import SLICE_NUMBERS, compute_type
from .naive import finite, masked, mean_and_lse

BLOCK = 64  # rows whose exponentials are summed before the search of a draw goes into one of them


def slices(scores: Tensor, offsets: Tensor | None) -> list[tuple[slice, slice]]:
    """(rows of the input, bags) of each step: a few padded bags, or one packed bag.

    Raises ValueError for offsets that descend or leave the rows.
    """
    if offsets is not None:
        check_offsets("softmax_pool", offsets, scores.shape[0], "rows")
        ends = offsets.tolist()
        return [(slice(a, b), slice(k, k + 1)) for k, (a, b) in enumerate(pairwise(ends))]
    bags, rows, width = scores.shape
    step = max(1, SLICE_NUMBERS // max(rows * width, 1))
    return [(slice(k, k + step), slice(k, k + step)) for k in range(0, bags, step)]


def _padded(x: Tensor, rows: slice, offsets: Tensor | None) -> Tensor:
    """A view of these rows of x as padded bags."""
    return x[rows] if offsets is None else x[rows][None]


def exponentials(scores: Tensor) -> tuple[Tensor, Tensor]:
    """exp(scores - top) (S, N, D), always a fresh tensor, and top (S, 1, D), the greatest score."""
    top = finite(scores.amax(1, keepdim=True))
    return (scores - top).exp_(), top


def pool(
    scores: Tensor,
    values: Tensor | None,
    mask: Tensor | None,
    offsets: Tensor | None,
    per_head: bool,
) -> tuple[Tensor, Tensor]:
    """(pooled, lse): (B, D), (B, D), or per head (B, H, D), (B, H)."""
    kind = compute_type(scores)
    bags = scores.shape[0] if offsets is None else offsets.shape[0] - 1
    lse = scores.new_full((bags, scores.shape[-1]), torch.inf, dtype=kind)
    width = (values.shape[-1],) if per_head and values is not None else ()
    pooled = scores.new_zeros((*lse.shape, *width))
    for rows, part in slices(scores, offsets):
        part_mask = None if mask is None else mask[rows]
        s = masked(_padded(scores, rows, offsets), part_mask)
        if s.shape[1] == 0:
            continue
        weights, top = exponentials(s)
        total = weights.sum(1)
        if values is None:
            value = s if mask is None else s.masked_fill(s == -torch.inf, 0.0)
        else:
            value = _padded(values, rows, offsets).to(kind)
            value = value if part_mask is None else value.masked_fill(~part_mask[..., None], 0.0)
        summed = weights.transpose(1, 2) @ value if per_head else weights.mul_(value).sum(1)
        pooled[part], lse[part] = mean_and_lse(summed, total, top[:, 0], scores.dtype)
    return pooled, lse


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
    """Gradients of scores and values; of their sum, and an empty tensor, where values are the
    scores.
    """
    kind = compute_type(scores)
    d_scores = scores.new_empty(scores.shape)
    d_values = scores.new_empty((0,)) if values is None else values.new_empty(values.shape)
    if offsets is not None:  # rows of no bag
        for d_rows in (d_scores, d_values):
            d_rows[: offsets[0]] = 0.0
            d_rows[offsets[-1] :] = 0.0
    for rows, part in slices(scores, offsets):
        part_mask = None if mask is None else mask[rows]
        value = _padded(scores if values is None else values, rows, offsets).to(kind)
        value = value if part_mask is None else value.masked_fill(~part_mask[..., None], 0.0)
        s = masked(_padded(scores, rows, offsets), part_mask)
        p = s.sub(lse[part][:, None]).exp_()
        g, mean = grad[part].to(kind), pooled[part].to(kind)
        value_place = None if values is None else _padded(d_values, rows, offsets)
        if per_head:
            in_place = value_place if value_place is not None and kind == scores.dtype else None
            d_value = torch.matmul(p, g, out=in_place)
            d_score = p.mul_(value @ g.transpose(1, 2) - (g * mean).sum(-1)[:, None])
        else:
            d_value = p.mul_(g[:, None])
            d_score = d_value * (value - mean[:, None])
        if value_place is None:
            d_score.add_(d_value)
        elif d_value is not value_place:
            value_place.copy_(d_value)
        _padded(d_scores, rows, offsets).copy_(d_score)
    return d_scores, d_values


def uniforms(
    seed: Tensor, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Uniform numbers in [0, 1) that the seed decides."""
    generator = torch.Generator(device=device).manual_seed(int(seed))
    return torch.rand(shape, dtype=dtype, device=device, generator=generator)


def draw(scores: Tensor, seed: Tensor, mask: Tensor | None, offsets: Tensor | None) -> Tensor:
    """Row drawn per bag and feature, int64 (B, D); -1 for an empty bag, -2 where there is a NaN."""
    bags = scores.shape[0] if offsets is None else offsets.shape[0] - 1
    uniform = uniforms(seed, (bags, scores.shape[-1]), compute_type(scores), scores.device)
    index = torch.full((bags, scores.shape[-1]), -1, dtype=torch.int64, device=scores.device)
    for rows, part in slices(scores, offsets):
        s = _padded(scores, rows, offsets)
        if s.shape[1]:
            index[part] = draw_slice(s, None if mask is None else mask[rows], uniform[part])
    return index


def draw_slice(scores: Tensor, mask: Tensor | None, uniform: Tensor) -> Tensor:
    """Inverse of the cumulative sum: scores (S, N, D), uniform (S, D) -> index (S, D); N > 0."""
    weights, _ = exponentials(masked(scores, mask))
    rows = weights.shape[1]
    if rows <= 2 * BLOCK:
        index, _, total = _search(weights, uniform)
    else:
        # Two steps: a cumulative sum along all rows would cost more than all the rest.
        end = rows // BLOCK * BLOCK
        sums = weights[:, :end].unflatten(1, (-1, BLOCK)).sum(2)
        if end < rows:
            sums = torch.cat([sums, weights[:, end:].sum(1, keepdim=True)], 1)
        block, rest, total = _search(sums, uniform)
        picked = block[:, None] * BLOCK + torch.arange(BLOCK, device=block.device)[:, None]
        inside = weights.gather(1, picked.clamp_max(rows - 1)).masked_fill_(picked >= rows, 0.0)
        index = block * BLOCK + _search(inside, rest, absolute=True)[0]
    return index.masked_fill_(total == 0, -1).masked_fill_(total.isnan(), -2)


def _search(
    weights: Tensor, target: Tensor, *, absolute: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """First row whose cumulative sum exceeds target (a fraction of the total, or absolute): row,
    rest, total.

    The target stays below the total, so that rounding never leads past the last row of positive
    weight."""
    sums = weights.cumsum(1)
    total = sums[:, -1]
    target = target if absolute else target * total
    target = torch.minimum(target, total * (1 - torch.finfo(weights.dtype).eps))
    row = (sums <= target[:, None]).sum(1).clamp_max_(weights.shape[1] - 1)
    before = sums.gather(1, (row - 1).clamp_min(0)[:, None]).squeeze(1)
    return row, target - before.where(row > 0, torch.zeros_like(before)), total
