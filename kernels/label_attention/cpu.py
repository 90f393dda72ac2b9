"""PyTorch form of attention by labels: for the CPU, and for GPUs without Triton.

Shapes: B batch, N tokens, L labels, d width; of a tile: G samples, n tokens, m labels.

Samples are sorted by length and cut at the longest of a group, so that padding costs little. A tile
is one product, tokens by queries and weights of the labels together, (G n, 2 m), whose halves are
the scores and the evidence, w . h. It stays in the cache; forward, a running maximum and two sums
of it are held. Samples too long for a tile of 64 labels take several tiles of tokens (online
softmax). Backward, the tile is formed again, the slopes take its place, and two products give the
gradients of tokens, queries and weights."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..precision import SLICE_NUMBERS, compute_type

DEVICE_NUMBERS = 1 << 26  # scores of a tile on a GPU, where many tiles would be many launches
FEWEST_LABELS = 64  # of a tile, below which products are slow


def room(h: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    """New memory for pooled and lse, (B, L) in the type of the sums."""
    shape = h.shape[0], query.shape[0]
    kind = compute_type(h)
    return h.new_empty(shape, dtype=kind), h.new_empty(shape, dtype=kind)


class Group(NamedTuple):
    """Samples that are computed together, and the sides of their tiles. length: tokens of the
    longest sample.
    """

    samples: Tensor | slice
    length: int
    labels: int
    tokens: int

    def taken(self, h: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Tokens (G, length, d) in the type of the sums, and which are absent, bool (G, length)."""
        rows = h[self.samples, : self.length].to(compute_type(h))
        if mask is None:
            return rows, None
        absent = ~mask[self.samples, : self.length]
        # Chosen, not multiplied: rows behind the mask may hold a NaN.
        return rows.masked_fill(absent[..., None], 0.0), absent

    def tiles(self) -> Iterator[slice]:
        return (slice(at, at + self.tokens) for at in range(0, self.length, self.tokens))


def groups(h: Tensor, mask: Tensor | None, labels: int) -> Iterator[Group]:
    """Every sample that has tokens. On a GPU the mask stays there, so that nothing waits."""
    numbers = SLICE_NUMBERS if h.is_cpu else DEVICE_NUMBERS
    lengths, order = [h.shape[1]] * h.shape[0], None
    if mask is not None and h.is_cpu:
        ends = (mask * torch.arange(1, h.shape[1] + 1)).amax(1)
        ends, order = ends.sort(descending=True)
        lengths = ends.tolist()
    start = 0
    while start < len(lengths) and (length := lengths[start]):
        side = min(labels, max(FEWEST_LABELS, numbers // length))
        stop = start + max(1, numbers // (length * side))
        samples = slice(start, stop) if order is None else order[start:stop]
        yield Group(samples, length, side, max(1, numbers // side))
        start = stop


def tile_products(
    rows: Tensor, both: Tensor, absent: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The product (G n, 2 m) of tokens (G, n, d) and queries and weights (2 m, d), and its halves
    (G, n, m): scores, -inf where a token is absent, and evidence.
    """
    product = rows.flatten(0, 1) @ both.T
    scores, evidence = product.view(*rows.shape[:2], 2, -1).unbind(2)
    if absent is not None:
        scores.masked_fill_(absent[..., None], -torch.inf)
    return product, scores, evidence


def _rows(x: Tensor | None, tile: slice) -> Tensor | None:
    return None if x is None else x[:, tile]


def _labels(
    query: Tensor, weight: Tensor, scale: float, step: int
) -> Iterator[tuple[slice, Tensor]]:
    """(labels, their queries times scale and then their weights, in the type of the sums)."""
    kind = compute_type(query)
    for start in range(0, query.shape[0], step):
        some = slice(start, start + step)
        yield some, torch.cat([query[some].to(kind) * scale, weight[some].to(kind)])


def forward(
    h: Tensor, query: Tensor, weight: Tensor, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """(pooled (B, L), lse (B, L)); without tokens they are 0 and +inf."""
    pooled, lse = room(h, query)
    pooled.zero_()
    lse.fill_(torch.inf)
    if not pooled.numel() or not h.shape[1]:
        return pooled, lse
    least = torch.finfo(pooled.dtype)
    for group in groups(h, mask, query.shape[0]):
        rows, absent = group.taken(h, mask)
        for some, both in _labels(query, weight, scale, group.labels):
            # The least number, not -inf: their difference would be NaN before the first token.
            top = rows.new_full((rows.shape[0], both.shape[0] // 2), least.min)
            total, summed = torch.zeros_like(top), torch.zeros_like(top)
            for tile in group.tiles():
                _, scores, evidence = tile_products(rows[:, tile], both, _rows(absent, tile))
                above = torch.maximum(top, scores.amax(1))
                weights = scores.sub_(above[:, None]).exp_()
                shrunk = top.sub_(above).exp_()
                total.mul_(shrunk).add_(weights.sum(1))
                summed.mul_(shrunk).add_(evidence.mul_(weights).sum(1))
                top = above
            pooled[group.samples, some] = summed / total.clamp_min(least.tiny)
            lse[group.samples, some] = (top + total.log()).masked_fill(total == 0, torch.inf)
    return pooled, lse


def backward(
    grad: Tensor,
    h: Tensor,
    query: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    pooled: Tensor,
    lse: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of h, query and weight."""
    kind = compute_type(h)
    # Contiguous, as the fake tensors promise; sums over several tiles are held in `kind`.
    d_h, d_query, d_weight = (
        torch.zeros(x.shape, dtype=kind, device=x.device) for x in (h, query, weight)
    )
    if grad.numel() and h.shape[1]:
        for group in groups(h, mask, query.shape[0]):
            rows, absent = group.taken(h, mask)
            d_rows = torch.zeros_like(rows)
            for some, both in _labels(query, weight, scale, group.labels):
                of_labels = [x[group.samples, some][:, None] for x in (grad, pooled, lse)]
                half = both.shape[0] // 2
                turned = both.roll(half, 0)  # weights first, as the slopes come
                d_turned = torch.zeros_like(both)
                for tile in group.tiles():
                    part = rows[:, tile]
                    slopes = _slopes(part, both, _rows(absent, tile), *of_labels)
                    d_turned.addmm_(slopes.T, part.flatten(0, 1))
                    d_rows[:, tile] += (slopes @ turned).view(part.shape)
                d_weight[some] += d_turned[:half]
                d_query[some].add_(d_turned[half:], alpha=scale)
            d_h[group.samples, : group.length] = d_rows
    return d_h.to(h.dtype), d_query.to(query.dtype), d_weight.to(weight.dtype)


def _slopes(
    rows: Tensor, both: Tensor, absent: Tensor | None, grad: Tensor, pooled: Tensor, lse: Tensor
) -> Tensor:
    """Gradients (G n, 2 m) of the evidence and then of the scores of a tile; grad, pooled, lse:
    (G, 1, m).
    """
    product, scores, evidence = tile_products(rows, both, absent)
    for_evidence = scores.sub_(lse).exp_().mul_(grad)
    evidence.sub_(pooled).mul_(for_evidence)
    return product
