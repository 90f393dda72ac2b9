"""PyTorch form of ragged attention: for the CPU, and for GPUs without Triton.

Shapes: B samples, Q queries per sample, T keys of all samples, H heads, d and e widths of a head,
G samples of a group, L keys of a block: of the group's longest sample, unless that is too long for
the cache.

Samples are sorted by length and taken in groups of nearly one length whose padded keys, values and
scores stay in the cache; each group is a few batched products. One pass over all samples would pad
to the longest; a loop over samples would make ten calls for a handful of keys. Padding reads a
sample's own last key, never another sample's, so that no NaN of one sample reaches another. A
sample too long for the cache is a group of its own, taken in blocks of keys."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..checks import check_offsets
from ..precision import SLICE_NUMBERS, compute_type

ENOUGH = 1 << 16  # numbers in a group from which the fixed cost of its calls no longer counts


class Block(NamedTuple):
    """Keys of a group. rows: int64 (G H L), their rows in (T H, .), by sample, head, key; absent:
    bool (G, 1, 1, L).
    """

    rows: Tensor
    length: int
    absent: Tensor | None

    def taken(self, x: Tensor) -> Tensor:
        """(G H, L, .) of x (T H, .), in the type of the sums."""
        return x.index_select(0, self.rows).to(compute_type(x)).unflatten(0, (-1, self.length))

    def put(self, part: Tensor, into: Tensor) -> None:
        """Write part (G H, L, .) to its rows of `into` (T H + 1, .), padding to the last one."""
        rows, part = self.rows, part.flatten(0, 1).to(into.dtype)
        if self.absent is not None:
            by_head = rows.view(self.absent.shape[0], -1, self.length)
            rows = by_head.masked_fill(self.absent[:, 0], into.shape[0] - 1).flatten()
        into.index_copy_(0, rows, part)


class Group(NamedTuple):
    """Samples of nearly one length. bags: int64 (G,); starts, lengths: int64 (G, 1); even: all are
    `longest`.
    """

    bags: Tensor
    starts: Tensor
    lengths: Tensor
    longest: int
    even: bool

    def taken(self, x: Tensor) -> Tensor:
        """(G H, Q, .) of x (B, Q, H, .), in the type of the sums."""
        return x.index_select(0, self.bags).to(compute_type(x)).transpose(1, 2).flatten(0, 1)

    def put(self, part: Tensor, into: Tensor) -> None:
        """Write part (G H, Q, .) to its samples of `into` (B, Q, H, .)."""
        into[self.bags] = part.unflatten(0, (-1, into.shape[2])).transpose(1, 2).to(into.dtype)

    def blocks(self, heads: int, numbers: int) -> Iterator[Block]:
        """All keys of the samples; numbers: what a key needs in the cache."""
        head = torch.arange(heads, device=self.bags.device)[:, None]
        step = max(1, SLICE_NUMBERS // (numbers * self.bags.shape[0]))
        for begin in range(0, self.longest, step):
            at = torch.arange(begin, min(begin + step, self.longest), device=self.bags.device)
            key = self.starts + (at if self.even else torch.minimum(at, self.lengths - 1))
            absent = None if self.even else (at >= self.lengths)[:, None, None]
            yield Block((key[:, None] * heads + head).flatten(), at.shape[0], absent)


def cache_numbers(query: Tensor, key: Tensor, value: Tensor) -> int:
    """Numbers that a key needs in the cache: itself, its value and its scores."""
    return max(1, key.shape[1] * (key.shape[2] + value.shape[2] + query.shape[1]))


def groups(offsets: Tensor, keys: int, numbers: int) -> Iterator[Group]:
    """Every sample with keys once; numbers: what a key needs in the cache.

    Raises ValueError for offsets that descend or leave the keys.
    """
    check_offsets("ragged_attention", offsets, keys, "keys")
    lengths, order = offsets.diff().sort()
    for some in _ranges(lengths, numbers):
        bags, longest = order[some], int(lengths[some.stop - 1])
        yield Group(
            bags,
            offsets[bags, None],
            lengths[some, None],
            longest,
            longest == int(lengths[some.start]),
        )


def _ranges(lengths: Tensor, numbers: int) -> Iterator[slice]:
    """Ranges of sorted lengths above 0 that fit the cache when padded and whose lengths differ by
    an eighth at most.
    """
    sizes, counts = lengths.unique_consecutive(return_counts=True)
    sizes, ends = sizes.tolist(), counts.cumsum(0).tolist()
    first = shortest = 0
    for longest, end, following in zip(sizes, ends, [*sizes[1:], None]):
        if longest == 0:
            first = end
            continue
        shortest = shortest or longest
        last = following is None or following > shortest + shortest // 8
        if last or (end - first) * longest * numbers >= ENOUGH:
            step = max(1, SLICE_NUMBERS // (longest * numbers))
            yield from (slice(begin, min(begin + step, end)) for begin in range(first, end, step))
            first, shortest = end, 0


def _scores(q: Tensor, k: Tensor, absent: Tensor | None) -> Tensor:
    """(G H, Q, L), -inf at padding."""
    scores = torch.bmm(q, k.transpose(1, 2))
    if absent is not None:
        scores.view(absent.shape[0], -1, *scores.shape[1:]).masked_fill_(absent, -torch.inf)
    return scores


def _attended(q: Tensor, k: Tensor, v: Tensor, absent: Tensor | None) -> tuple[Tensor, Tensor]:
    """Softmax attention of a block, (G H, Q, e), and its log-sum-exps, (G H, Q, 1)."""
    scores = _scores(q, k, absent)
    top = scores.amax(-1, keepdim=True)
    weights = scores.sub_(top).exp_()
    total = weights.sum(-1, keepdim=True)
    return torch.bmm(weights, v).div_(total), total.log_().add_(top)


def _joined(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Two attentions of the same queries over different keys as one over all of them."""
    lse = torch.logaddexp(first[1], second[1])
    return first[0] * (first[1] - lse).exp() + second[0] * (second[1] - lse).exp(), lse


def forward(
    query: Tensor, key: Tensor, value: Tensor, offsets: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """(out (B, Q, H, e), lse (B, Q, H)); lse is +inf for a sample without keys."""
    samples, queries, heads, _ = query.shape
    out = query.new_zeros((samples, queries, heads, value.shape[2]))
    lse = query.new_full((samples, queries, heads, 1), torch.inf, dtype=compute_type(query))
    flat_key, flat_value = key.flatten(0, 1), value.flatten(0, 1)
    numbers = cache_numbers(query, key, value)
    for group in groups(offsets, key.shape[0], numbers):
        q = group.taken(query).mul_(scale)
        attended = None
        for block in group.blocks(heads, numbers):
            part = _attended(q, block.taken(flat_key), block.taken(flat_value), block.absent)
            attended = part if attended is None else _joined(attended, part)
        assert attended is not None
        group.put(attended[0], out)
        group.put(attended[1], lse)
    return out, lse[..., 0]


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
    """Gradients of query, key and value; 0 for keys of no sample."""
    heads, (flat_key, flat_value) = key.shape[1], (key.flatten(0, 1), value.flatten(0, 1))
    d_query = torch.zeros_like(query, memory_format=torch.contiguous_format)
    # The row behind the last takes what padding gives.
    d_key, d_value = (x.new_zeros((x.shape[0] + 1, x.shape[1])) for x in (flat_key, flat_value))
    numbers = cache_numbers(query, key, value)
    for group in groups(offsets, key.shape[0], numbers):
        q, g = group.taken(query).mul_(scale), group.taken(grad)
        sums, delta = group.taken(lse[..., None]), (g * group.taken(out)).sum(-1, keepdim=True)
        d_q = torch.zeros_like(q)
        for block in group.blocks(heads, numbers):
            k = block.taken(flat_key)
            weights = _scores(q, k, block.absent).sub_(sums).exp_()
            block.put(torch.bmm(weights.transpose(1, 2), g), d_value)
            slope = torch.bmm(g, block.taken(flat_value).transpose(1, 2)).sub_(delta).mul_(weights)
            block.put(torch.bmm(slope.transpose(1, 2), q), d_key)
            d_q.baddbmm_(slope, k)
        group.put(d_q.mul_(scale), d_query)
    return d_query, d_key[:-1].view(key.shape), d_value[:-1].view(value.shape)
