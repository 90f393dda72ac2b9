"""PyTorch form of softmax pooling: the kernel of the CPU and the fallback without Triton.

Shapes: B bags, N rows of a padded bag, M rows of all bags packed, D width, H heads, S slice of
bags. Bags are taken a few at a time, so that the exponentials of a slice stay in the cache: no
temporary has the size of the whole input. `lse` is +inf for an empty bag, which makes every weight
of it exp(-inf) = 0 in the backward pass."""

from importlib.util import find_spec
from itertools import pairwise
from types import ModuleType

import torch
from torch import Tensor

from ..precision import SLICE_NUMBERS, compute_type

BLOCK = 64  # rows whose exponentials are summed before the search of a draw goes into one of them


def triton_form() -> ModuleType | None:  # pragma: no cover - asked only with a CUDA tensor
    """The Triton kernels, or None where Triton is not installed."""
    if find_spec("triton") is None:
        return None
    from . import triton as softmax_pool_triton

    return softmax_pool_triton


def slices(scores: Tensor, offsets: Tensor | None) -> list[tuple[slice, slice]]:
    """(rows of the input, bags) of each step: a few padded bags, or one packed bag."""
    if offsets is not None:
        ends = offsets.tolist()
        return [(slice(a, b), slice(k, k + 1)) for k, (a, b) in enumerate(pairwise(ends))]
    bags, rows, width = scores.shape
    step = max(1, SLICE_NUMBERS // max(rows * width, 1))
    return [(slice(k, k + step), slice(k, k + step)) for k in range(0, bags, step)]


def _bag_form(x: Tensor, rows: slice, offsets: Tensor | None) -> Tensor:
    return x[rows] if offsets is None else x[rows][None]


def masked(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Scores (S, N, D) in the type of the sums, -inf where the mask (S, N) is False."""
    scores = scores.to(compute_type(scores))
    return scores if mask is None else scores.masked_fill(~mask[..., None], -torch.inf)


def exponentials(scores: Tensor) -> tuple[Tensor, Tensor]:
    """exp(scores - max) (S, N, D), always a fresh tensor, and max (S, 1, D) with 0 in place of
    -inf.
    """
    top = scores.amax(1, keepdim=True)
    top = top.masked_fill_(top == -torch.inf, 0.0)
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
    shape = (
        (bags, scores.shape[-1], values.shape[-1]) if per_head and values is not None else lse.shape
    )
    pooled = scores.new_zeros(shape)
    for rows, chosen in slices(scores, offsets):
        part_mask = None if mask is None else mask[rows]
        part = masked(_bag_form(scores, rows, offsets), part_mask)
        if part.shape[1] == 0:
            continue
        weights, top = exponentials(part)
        total = weights.sum(1)
        if values is None:
            value = part if mask is None else part.masked_fill(part == -torch.inf, 0.0)
        else:
            value = _bag_form(values, rows, offsets).to(kind)
            value = value if part_mask is None else value.masked_fill(~part_mask[..., None], 0.0)
        summed = weights.transpose(1, 2) @ value if per_head else weights.mul_(value).sum(1)
        empty = total == 0
        divisor = total.masked_fill(empty, 1.0)
        pooled[chosen] = (summed / (divisor[..., None] if per_head else divisor)).to(scores.dtype)
        lse[chosen] = (divisor.log() + top[:, 0]).masked_fill_(empty, torch.inf)
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
    for rows, chosen in slices(scores, offsets):
        part_mask = None if mask is None else mask[rows]
        raw = _bag_form(scores if values is None else values, rows, offsets).to(kind)
        value = raw if part_mask is None else raw.masked_fill(~part_mask[..., None], 0.0)
        part = masked(_bag_form(scores, rows, offsets), part_mask)
        p = part.sub(lse[chosen][:, None]).exp_()
        g, mean = grad[chosen].to(kind), pooled[chosen].to(kind)
        into = (
            None
            if values is None
            else (d_values[rows] if offsets is None else d_values[rows][None])
        )
        if per_head:
            assert into is not None
            d_value = torch.matmul(p, g, out=into) if into.dtype == kind else p @ g
            d_score = p.mul_(value @ g.transpose(1, 2) - (g * mean).sum(-1)[:, None])
        else:
            d_value = p.mul_(g[:, None])
            d_score = d_value * (value - mean[:, None])
        flat = d_scores[rows] if offsets is None else d_scores[rows][None]
        if values is None:
            flat.copy_(d_score.add_(d_value))
        else:
            flat.copy_(d_score)
            if into is not None and d_value is not into:
                into.copy_(d_value)
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
    for rows, chosen in slices(scores, offsets):
        part = _bag_form(scores, rows, offsets)
        if part.shape[1]:
            index[chosen] = draw_slice(part, None if mask is None else mask[rows], uniform[chosen])
    return index


def draw_slice(scores: Tensor, mask: Tensor | None, uniform: Tensor) -> Tensor:
    """Inverse of the cumulative sum: scores (S, N, D), uniform (S, D) -> index (S, D); N > 0."""
    weights, _ = exponentials(masked(scores, mask))
    rows = weights.shape[1]
    if rows <= 2 * BLOCK:
        index, _, total = _search(weights, uniform)
    else:
        # Two steps, since a cumulative sum along all rows would cost more than everything else
        # together.
        whole = rows // BLOCK * BLOCK
        sums = weights[:, :whole].unflatten(1, (-1, BLOCK)).sum(2)
        if whole < rows:
            sums = torch.cat([sums, weights[:, whole:].sum(1, keepdim=True)], 1)
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

    The target is kept below the total, so that rounding never leads past the last row of positive
    weight."""
    sums = weights.cumsum(1)
    total = sums[:, -1]
    target = target if absolute else target * total
    target = torch.minimum(target, total * (1 - torch.finfo(weights.dtype).eps))
    row = (sums <= target[:, None]).sum(1).clamp_max_(weights.shape[1] - 1)
    before = sums.gather(1, (row - 1).clamp_min(0)[:, None]).squeeze(1)
    return row, target - before.where(row > 0, torch.zeros_like(before)), total
