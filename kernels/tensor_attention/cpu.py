"""Plain PyTorch form of third-order attention: tiles over heads, queries and second keys, in the
matrix unit.

Shapes: G = B H, N queries, M1 and M2 keys of the two sides, d width of keys, e width of values.

For one second key l the scores of all (i, j) are those of ordinary attention with queries q_i *
k2_l, so a tile of n queries and L second keys is one product (n L, d) (d, M1). Tiles are sized to
stay in the cache.

Masks cost no pass over the scores, which would take longer than the products: a masked key is
replaced by one that is present, so that its scores raise no maximum, and its value by 0. Values get
one more column, 1 for a key that is present and 0 otherwise; the last column of the output is then
the sum of the weights that count."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ..precision import compute_type

NUMBERS = 1 << 18  # scores of a tile
ROWS = 1024  # of the products of a tile, if there are as many: rather fewer heads than fewer rows


def _tiles(query: Tensor, key1: Tensor, key2: Tensor) -> Iterator[tuple[slice, slice]]:
    """Blocks of queries, and for each of them blocks of second keys."""
    tokens, first, second = query.shape[1], key1.shape[1], key2.shape[1]
    numbers = max(1, NUMBERS // max(1, query.shape[0] * first))
    rows = min(tokens, max(1, numbers // min(second, 16))) if second and first else tokens
    step = max(1, numbers // max(1, rows))
    for start in range(0, tokens, max(1, rows)):
        for begin in range(0, second if first else 0, step):
            yield slice(start, start + rows), slice(begin, begin + step)


def _groups(query: Tensor, key1: Tensor, key2: Tensor) -> Iterator[slice]:
    """Blocks of heads."""
    few = max(1, NUMBERS // max(1, key1.shape[1] * min(query.shape[1] * key2.shape[1], ROWS)))
    return (slice(start, start + few) for start in range(0, query.shape[0], few))


def _scores(query: Tensor, key1: Tensor, key2: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Scores (G, n, L, M1), and the queries q * k2 scale (G, n L, d)."""
    joint = (query[:, :, None] * (key2 * scale)[:, None]).flatten(1, 2)
    return torch.bmm(joint, key1.transpose(1, 2)).unflatten(1, (query.shape[1], -1)), joint


def _flat(*parts: Tensor) -> list[Tensor]:
    return [part.to(compute_type(part)).flatten(0, 1) for part in parts]


def _masks(heads: int, *masks: Tensor | None) -> list[Tensor | None]:
    return [None if mask is None else mask.repeat_interleave(heads, 0) for mask in masks]


def _side(key: Tensor, value: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Keys (G, M, d), and values with the counting column (G, M, e + 1), without the contents of
    masked ones.
    """
    if mask is None or not key.shape[1]:
        return key, torch.cat([value, value.new_ones((*value.shape[:2], 1))], 2)
    present = mask[..., None]
    key, value = key.masked_fill(~present, 0.0), value.masked_fill(~present, 0.0)
    known = key.gather(1, mask.int().argmax(1)[:, None, None].expand(-1, 1, key.shape[2]))
    return torch.where(present, key, known), torch.cat([value, present.to(value.dtype)], 2)


def forward(
    query: Tensor,
    key1: Tensor,
    value1: Tensor,
    key2: Tensor,
    value2: Tensor,
    mask1: Tensor | None,
    mask2: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """(out (B, H, N, e), lse (B, H, N)); 0 and inf without keys, so that all weights made from it
    are 0.
    """
    q, k1, v1, k2, v2 = _flat(query, key1, value1, key2, value2)
    m1, m2 = _masks(query.shape[1], mask1, mask2)
    (k1, v1), (k2, v2) = _side(k1, v1, m1), _side(k2, v2, m2)
    top = q.new_full(q.shape[:2], -torch.inf)
    out = q.new_zeros((*q.shape[:2], v1.shape[2]))
    for heads in _groups(q, k1, k2):
        _read(q[heads], k1[heads], v1[heads], k2[heads], v2[heads], scale, top[heads], out[heads])
    total = out[..., -1]
    empty = total == 0
    filled = total.masked_fill(empty, 1.0)
    lse = (filled.log() + top).masked_fill(empty, torch.inf)
    out = out[..., :-1] / filled[..., None]
    out = out.view(*query.shape[:3], value1.shape[3])
    return out.to(value1.dtype), lse.view(query.shape[:3])


def _read(
    query: Tensor,
    key1: Tensor,
    value1: Tensor,
    key2: Tensor,
    value2: Tensor,
    scale: float,
    top: Tensor,
    out: Tensor,
) -> None:
    """Fill the greatest score of each query and the sum exp(score - greatest) v1 v2 of some
    heads.
    """
    for rows, seconds in _tiles(query, key1, key2):
        scores, _ = _scores(query[:, rows], key1, key2[:, seconds], scale)
        best = torch.maximum(top[:, rows], scores.flatten(2).amax(2))
        weights = scores.sub_(best[:, :, None, None]).exp_()
        keep = (top[:, rows] - best).exp()
        mixed = torch.bmm(weights.flatten(1, 2), value1).unflatten(1, weights.shape[1:3])
        out[:, rows] = out[:, rows] * keep[..., None] + (mixed * value2[:, None, seconds]).sum(2)
        top[:, rows] = best


def backward(
    grad: Tensor,
    query: Tensor,
    key1: Tensor,
    value1: Tensor,
    key2: Tensor,
    value2: Tensor,
    mask1: Tensor | None,
    mask2: Tensor | None,
    out: Tensor,
    lse: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key1, value1, key2, value2; the weights are computed again from lse, tile
    by tile.
    """
    q, k1, v1, k2, v2, g, o = _flat(query, key1, value1, key2, value2, grad, out)
    m1, m2 = _masks(query.shape[1], mask1, mask2)
    (k1, v1), (k2, v2) = _side(k1, v1, m1), _side(k2, v2, m2)
    # With the counting column, (g, -g . out) . (v1 v2, 1) is g . v1 v2 - g . out, and 0 for a
    # pair that is masked.
    g = torch.cat([g, -(g * o).sum(2, keepdim=True)], 2)
    known = lse.flatten(0, 1)
    slopes = [part.new_zeros(part.shape) for part in (q, k1, v1, k2, v2)]
    for heads in _groups(q, k1, k2):
        _unread(scale, *(part[heads] for part in (q, k1, v1, k2, v2, g, known, *slopes)))
    for mask, parts in ((m1, slopes[1:3]), (m2, slopes[3:5])):
        if mask is not None:
            for part in parts:
                part.masked_fill_(~mask[..., None], 0.0)
    # Without the counting column, and contiguous, as the fake tensors promise.
    slopes[2], slopes[4] = (slopes[place][..., :-1].contiguous() for place in (2, 4))
    inputs = (query, key1, value1, key2, value2)
    d_q, d_k1, d_v1, d_k2, d_v2 = (
        slope.reshape(x.shape).to(x.dtype) for slope, x in zip(slopes, inputs)
    )
    return d_q, d_k1, d_v1, d_k2, d_v2


def _unread(
    scale: float,
    q: Tensor,
    k1: Tensor,
    v1: Tensor,
    k2: Tensor,
    v2: Tensor,
    g: Tensor,
    lse: Tensor,
    dq: Tensor,
    dk1: Tensor,
    dv1: Tensor,
    dk2: Tensor,
    dv2: Tensor,
) -> None:
    """Add to the gradients of some heads."""
    for rows, seconds in _tiles(q, k1, k2):
        scores, joint = _scores(q[:, rows], k1, k2[:, seconds], scale)
        shape = scores.shape[1:3]
        weights = scores.sub_(lse[:, rows, None, None]).exp_().flatten(1, 2)
        moved = (g[:, rows, None] * v2[:, None, seconds]).flatten(1, 2)
        mixed = torch.bmm(weights, v1).unflatten(1, shape)
        dv1 += torch.bmm(weights.transpose(1, 2), moved)
        dv2[:, seconds] += (mixed * g[:, rows, None]).sum(1)
        slopes = torch.bmm(moved, v1.transpose(1, 2)).mul_(weights)
        dk1 += torch.bmm(slopes.transpose(1, 2), joint)
        through = torch.bmm(slopes, k1).unflatten(1, shape).mul_(scale)
        dq[:, rows] += (through * k2[:, None, seconds]).sum(2)
        dk2[:, seconds] += (through * q[:, rows, None]).sum(1)
