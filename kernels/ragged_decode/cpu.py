"""PyTorch form of attention to caches of any length: for the CPU, and for GPUs without Triton.

Shapes: S caches, N queries of each (those of all heads that share its keys), R rows, d and e widths
of a head, n keys of a cache.

Caches of one length at even distances are one view (caches, 1, n, d) of the rows, attended to in
one fused call without a copy; the usual caches, a few rules and the same room for all samples, are
a handful of views. Two products take the call's place where they were measured to be faster,
benchmarks/ops/decode_attention.py: keys in float32 that no cache of the CPU holds, read by few
queries. So they do off the CPU, and for values of another width, where the call would copy the
keys. In half precision products would copy the keys, since sums are in float32."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..fused_attention import attend
from ..precision import compute_type

LARGE, FEW = 1 << 22, 4  # numbers of keys and values, and queries, for which products are faster


class Run(NamedTuple):
    """Caches of one length, from row `start` on, `step` rows from one to the next."""

    caches: list[int]
    start: int
    step: int
    length: int

    @property
    def at(self) -> slice | list[int]:
        """Which caches: a slice where they are neighbours, as views cost less than copies."""
        first, last = self.caches[0], self.caches[-1]
        if self.caches == list(range(first, last + 1)):
            return slice(first, last + 1)
        return self.caches

    def rows(self, x: Tensor) -> Tensor:
        """(caches, n, .) of x (R, .), in its memory."""
        row, column = x.stride()
        strides = self.step * row, row, column
        shape = len(self.caches), self.length, x.shape[1]
        return x.as_strided(shape, strides, x.storage_offset() + self.start * row)


def runs(starts: Tensor, lengths: Tensor, rows: int) -> Iterator[Run]:
    """Every cache with keys once.

    Raises ValueError for caches that leave the rows.
    """
    places = sorted(zip(lengths.tolist(), starts.tolist(), range(starts.shape[0])))
    for length, start, _ in places:
        if length < 0 or (length and (start < 0 or start + length > rows)):
            raise ValueError(
                f"decode_attention: a cache of {length} keys from row {start} on is not within "
                f"the {rows} rows"
            )
    run: Run | None = None
    for length, start, cache in places:
        if length == 0:
            continue
        if run is not None and length == run.length:
            step = start - run.start - run.step * (len(run.caches) - 1)
            if len(run.caches) == 1 or step == run.step:
                run = run._replace(caches=[*run.caches, cache], step=step)
                continue
        if run is not None:
            yield run
        run = Run([cache], start, 0, length)
    if run is not None:
        yield run


class Limits(NamedTuple):
    """Which keys a query sees: positions of rows (R,) and of queries (S, N), span and sink (S,)."""

    key: Tensor
    query: Tensor
    span: Tensor | None
    sink: Tensor | None

    def visible(self, run: Run) -> Tensor:
        """bool (caches, N, n)."""
        at = run.rows(self.key[:, None])[:, None, :, 0]
        asked = self.query[run.at, :, None]
        seeing = at <= asked
        if self.span is not None and self.sink is not None:
            span, sink = (x[run.at, None, None] for x in (self.span, self.sink))
            seeing &= (asked - at < span) | (at < sink)
        return seeing


def large(query: Tensor, read: int) -> bool:
    """Whether products are faster than a fused call for queries (., N, d) that read so many numbers
    of keys and values.
    """
    few = query.shape[-2] <= FEW and compute_type(query) == query.dtype
    return few and read >= LARGE


def products(
    q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention of (caches, N, d) to (caches, n, d) and (caches, n, e), and its log-sum-exp."""
    kind = compute_type(q)
    # Keys come first: few columns cost less than few rows, whose keys would be turned.
    scores = torch.bmm(k.to(kind), (q.to(kind) * scale).transpose(1, 2))
    scores = scores.transpose(1, 2).contiguous()
    if visible is not None:
        scores.masked_fill_(~visible, -torch.inf)
    top = scores.amax(-1, keepdim=True)
    top = top.masked_fill(top == -torch.inf, 0.0)
    weights = scores.sub_(top).exp_()
    total = weights.sum(-1, keepdim=True)
    lse = (total.log() + top)[..., 0]
    return torch.bmm(weights, v.to(kind)).div_(total.masked_fill_(total == 0, 1.0)), lse


def fused(
    q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """The same in one call of the CPU's fused attention."""
    bias, rows = None, q.shape[1]
    if rows == 1 and compute_type(q) != q.dtype:
        q = q.expand(-1, 2, -1)  # a row alone takes a slow path in half precision
    if visible is not None:
        bias = q.new_zeros(visible.shape).masked_fill_(~visible, -torch.inf)[:, None]
    out, lse = attend(q[:, None], k[:, None], v[:, None], scale, bias=bias)
    out, lse = out[:, 0, :rows], lse[:, 0, :rows]
    if visible is None:
        return out, lse
    return out, lse.masked_fill(~visible.any(-1), -torch.inf)  # the call gives such queries 0


def forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts: Tensor,
    lengths: Tensor,
    key_position: Tensor | None,
    query_position: Tensor | None,
    span: Tensor | None,
    sink: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """(out (S, N, e), lse (S, N)) of query (S, N, d), key (R, d) and value (R, e)."""
    out = query.new_zeros((*query.shape[:2], value.shape[1]))
    lse = query.new_full(query.shape[:2], -torch.inf, dtype=compute_type(query))
    if not lse.numel():
        return out, lse
    limits = None
    if key_position is not None and query_position is not None:
        limits = Limits(key_position, query_position, span, sink)
    narrow = query.is_cpu and key.shape[1] == value.shape[1]
    for run in runs(starts, lengths, key.shape[0]):
        visible = None if limits is None else limits.visible(run)
        read = len(run.caches) * run.length * (key.shape[1] + value.shape[1])
        attended = fused if narrow and not large(query, read) else products
        part = attended(query[run.at], run.rows(key), run.rows(value), visible, scale)
        out[run.at], lse[run.at] = part[0].to(out.dtype), part[1]
    return out, lse
