"""Plain PyTorch form of third-order attention: tiles over queries and second keys, in the matrix unit.

Shapes: G = B H, N queries, M1 and M2 keys of the two sides, d width of keys, e width of values.

For one second key l the scores of all (i, j) are those of ordinary attention with queries q_i * k2_l, so a tile of n
queries and L second keys is one product (n L, d) (d, M1). Tiles are sized to stay in the cache.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

NUMBERS = 1 << 19  # scores of a tile


def compute_type(x: Tensor) -> torch.dtype:
    """Sums are in float32, in float64 for float64."""
    return torch.promote_types(x.dtype, torch.float32)


def _tiles(query: Tensor, key1: Tensor, key2: Tensor) -> Iterator[tuple[slice, slice]]:
    """Blocks of queries, and for each of them blocks of second keys."""
    tokens, first, second = query.shape[1], key1.shape[1], key2.shape[1]
    each = max(1, NUMBERS // max(1, query.shape[0] * first))
    rows = min(tokens, max(1, each // min(second, 16))) if second else tokens
    step = max(1, each // max(1, rows))
    for start in range(0, tokens, rows):
        for begin in range(0, second, step):
            yield slice(start, start + rows), slice(begin, begin + step)


def _scores(
    query: Tensor, key1: Tensor, key2: Tensor, mask1: Tensor | None, mask2: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Scores (G, n, L, M1), -inf where a key is masked, and the queries q * k2 scale (G, n L, d)."""
    joint = (query[:, :, None] * (key2 * scale)[:, None]).flatten(1, 2)
    scores = torch.bmm(joint, key1.transpose(1, 2)).unflatten(1, (query.shape[1], -1))
    if mask1 is not None:
        scores.masked_fill_(~mask1[:, None, None], -torch.inf)
    if mask2 is not None:
        scores.masked_fill_(~mask2[:, None, :, None], -torch.inf)
    return scores, joint


def _flat(*parts: Tensor) -> list[Tensor]:
    return [part.to(compute_type(part)).flatten(0, 1) for part in parts]


def _masks(heads: int, *masks: Tensor | None) -> list[Tensor | None]:
    return [None if mask is None else mask.repeat_interleave(heads, 0) for mask in masks]


def _cleared(parts: tuple[Tensor, ...], mask1: Tensor | None, mask2: Tensor | None) -> list[Tensor]:
    """What is masked is 0, whatever it held: a weight of 0 does not undo a NaN."""
    masks = (mask1, mask1, mask2, mask2)
    return [part if mask is None else part.masked_fill(~mask[..., None], 0.0) for part, mask in zip(parts, masks)]


def forward(
    query: Tensor, key1: Tensor, value1: Tensor, key2: Tensor, value2: Tensor,
    mask1: Tensor | None, mask2: Tensor | None, scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(out (B, H, N, e), lse (B, H, N)); 0 and inf without keys, so that all weights made from it are 0."""
    q, k1, v1, k2, v2 = _flat(query, key1, value1, key2, value2)
    m1, m2 = _masks(query.shape[1], mask1, mask2)
    k1, v1, k2, v2 = _cleared((k1, v1, k2, v2), m1, m2)
    top = q.new_full(q.shape[:2], -torch.inf)
    total, out = torch.zeros_like(top), q.new_zeros((*q.shape[:2], v1.shape[2]))
    for rows, seconds in _tiles(q, k1, k2):
        scores, _ = _scores(q[:, rows], k1, k2[:, seconds], m1, None if m2 is None else m2[:, seconds], scale)
        best = torch.maximum(top[:, rows], scores.flatten(2).amax(2)) if scores.numel() else top[:, rows]
        safe = best.masked_fill(best == -torch.inf, 0.0)
        weights = scores.sub_(safe[:, :, None, None]).exp_()
        keep = (top[:, rows] - safe).exp()
        mixed = torch.bmm(weights.flatten(1, 2), v1).unflatten(1, weights.shape[1:3])
        total[:, rows] = total[:, rows] * keep + weights.sum((2, 3))
        out[:, rows] = out[:, rows] * keep[..., None] + (mixed * v2[:, None, seconds]).sum(2)
        top[:, rows] = best
    empty = total == 0
    out /= total.masked_fill(empty, 1.0)[..., None]
    lse = (total.masked_fill(empty, 1.0).log() + top).masked_fill(empty, torch.inf)
    return out.view(*query.shape[:3], -1).to(value1.dtype), lse.view(query.shape[:3])


def backward(
    grad: Tensor, query: Tensor, key1: Tensor, value1: Tensor, key2: Tensor, value2: Tensor,
    mask1: Tensor | None, mask2: Tensor | None, out: Tensor, lse: Tensor, scale: float,
) -> list[Tensor]:  # fmt: skip
    """Gradients of query, key1, value1, key2, value2; the weights are made again from lse, tile by tile."""
    q, k1, v1, k2, v2, g, o = _flat(query, key1, value1, key2, value2, grad, out)
    m1, m2 = _masks(query.shape[1], mask1, mask2)
    k1, v1, k2, v2 = _cleared((k1, v1, k2, v2), m1, m2)
    known = lse.flatten(0, 1)
    delta = (g * o).sum(2)
    dq, dk1, dv1, dk2, dv2 = (torch.zeros_like(part) for part in (q, k1, v1, k2, v2))
    for rows, seconds in _tiles(q, k1, k2):
        other = None if m2 is None else m2[:, seconds]
        scores, joint = _scores(q[:, rows], k1, k2[:, seconds], m1, other, scale)
        shape = scores.shape[1:3]
        weights = scores.sub_(known[:, rows, None, None]).exp_().flatten(1, 2)
        moved = (g[:, rows, None] * v2[:, None, seconds]).flatten(1, 2)
        mixed = torch.bmm(weights, v1).unflatten(1, shape)
        dv1 += torch.bmm(weights.transpose(1, 2), moved)
        dv2[:, seconds] += (mixed * g[:, rows, None]).sum(1)
        slopes = torch.bmm(moved, v1.transpose(1, 2)).unflatten(1, shape)
        slopes = slopes.sub_(delta[:, rows, None, None]).flatten(1, 2).mul_(weights)
        dk1 += torch.bmm(slopes.transpose(1, 2), joint)
        through = torch.bmm(slopes, k1).unflatten(1, shape).mul_(scale)
        dq[:, rows] += (through * k2[:, None, seconds]).sum(2)
        dk2[:, seconds] += (through * q[:, rows, None]).sum(1)
    parts = (query, key1, value1, key2, value2)
    return [made.view(part.shape).to(part.dtype) for made, part in zip((dq, dk1, dv1, dk2, dv2), parts)]
