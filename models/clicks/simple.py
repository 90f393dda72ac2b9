"""Simple click models that every network has to beat, called as `click`'s are, and their blend.

Shapes: B rows, C columns of codes, M fields, F sequences, T events of all rows, S tasks, N codes of
all fields, K latent factors, P statistics of a row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.segments import segment_of
from ..layers.forest import Forest
from .click import Knots, Layout

RECENT = 4.0  # classes of age (powers of two) in which the weight of an event falls to 1 / e
PRIMES = (7919, 104_729)  # of the hash of a pair of codes


class AdditiveClicks(nn.Module):
    """A sum of one weight for each code of a row: log-odds that were counted, logistic regression,
    with hashed crosses of pairs of fields if `crosses` > 0, or a factorisation machine if
    `factors` > 0 (Rendle, ICDM 2010), for each task on its own.

    The values of a field, and the events of a sequence, are averaged; a sequence has weights of its
    own. Buckets of a number lie between the weights of its `Knots`.

    sequences: whether the events are read; ages: whether they also count by how recent they are: a
    second mean, of other weights, in which an event counts exp(-age / RECENT); crosses: rows of the
    table of pairs.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        factors: int = 0,
        crosses: int = 0,
        sequences: bool = True,
        ages: bool = False,
    ) -> None:
        super().__init__()
        self.layout, self.factors, self.crosses = layout, factors, crosses
        self.size = layout.tasks * (1 + factors)
        codes = sum(layout.codes)
        self.read_events = sequences and layout.sequences > 0
        self.table, self.knots = nn.Embedding(codes, self.size), Knots(layout)
        self.event_table = nn.Embedding(codes if self.read_events else 0, self.size)
        by_age = ages and self.read_events
        self.recent_table = nn.Embedding(codes, self.size) if by_age else None
        self.pairs = nn.Embedding(crosses, layout.tasks)
        self.bias = nn.Parameter(torch.zeros(layout.tasks))
        events = [self.event_table, *([self.recent_table] if self.recent_table is not None else [])]
        for table in (self.table, self.pairs, *events):
            nn.init.zeros_(table.weight)
        for table in (self.table, *events) if factors else ():
            nn.init.normal_(table.weight[:, layout.tasks :], std=0.05)

    def forward(self, fields: Tensor, events: Tensor, ages: Tensor, offsets: Tensor) -> Tensor:
        """Logits (B, S) from fields (B, C), events (T,), ages (T,) and offsets (B F + 1,)."""
        tasks = self.layout.tasks
        vectors = self._by_field(self.knots(self.table, fields))  # (B, M, size)
        if self.read_events:
            pooled = F.embedding_bag(
                events, self.event_table.weight, offsets, mode="mean", include_last_offset=True
            )
            pooled = pooled.view(-1, self.layout.sequences, self.size)
            vectors = torch.cat([vectors, pooled], 1)
        if self.recent_table is not None:
            recent = self._recent(self.recent_table, events, ages, offsets)
            vectors = torch.cat([vectors, recent], 1)
        logits = self.bias + vectors[..., :tasks].sum(1)
        if self.factors:
            latent = vectors[..., tasks:].unflatten(-1, (tasks, self.factors))
            pairs = latent.sum(1).square() - latent.square().sum(1)
            logits = logits + pairs.sum(-1) / 2
        if self.crosses:
            logits = logits + self._crossed(fields)
        return logits

    def _recent(self, table: nn.Embedding, events: Tensor, ages: Tensor, offsets: Tensor) -> Tensor:
        """Means of the events of each sequence, weighed by their ages: (B, F, size)."""
        segments = segment_of(offsets, events.shape[0])
        weight = torch.exp(-ages.to(table.weight.dtype) / RECENT)[:, None]
        values = torch.cat([table(events) * weight, weight], 1)
        sums = values.new_zeros(offsets.shape[0] - 1, values.shape[1])
        sums = sums.index_add(0, segments, values)
        means = sums[:, :-1] / sums[:, -1:].clamp(min=1e-6)
        return means.view(-1, self.layout.sequences, self.size)

    def _by_field(self, vectors: Tensor) -> Tensor:
        """Means of the columns of each field: (B, C, size) -> (B, M, size)."""
        if all(width == 1 for width in self.layout.widths):
            return vectors
        parts = vectors.split(list(self.layout.widths), 1)
        return torch.stack([part.mean(1) for part in parts], 1)

    def _crossed(self, fields: Tensor) -> Tensor:
        """The sum over pairs of single-valued fields of the weight of their hashed codes."""
        single = single_columns(self.layout)
        first, second = torch.triu_indices(len(single), len(single), 1, device=fields.device)
        codes = self.knots.lower[fields[:, single]]
        hashed = codes[:, first] * PRIMES[0] + codes[:, second] * PRIMES[1]
        return self.pairs(hashed % self.crosses).sum(1)


def single_columns(layout: Layout) -> list[int]:
    """Places of the columns of fields with one value in a cell."""
    starts = [sum(layout.widths[:field]) for field in range(layout.fields)]
    return [start for start, width in zip(starts, layout.widths, strict=True) if width == 1]


class ClickStatistics(nn.Module):
    """What trees read of a row, (B, P): codes, and how often each code was seen and clicked.

    rates (N, S): log-odds of each code; counts (N,): logarithm of one plus its rows. Besides those
    of each field that is no number there are, for each sequence, the rates of its events as a mean
    and as a mean in which recent ones weigh more, its length, the sum of those weights, and how
    many events are the row's own value of the field that the sequence is of.

    targets: the field of each sequence.
    """

    rates: Tensor
    counts: Tensor

    def __init__(self, layout: Layout, targets: Sequence[int]) -> None:
        super().__init__()
        self.layout, self.targets = layout, list(targets)
        self.single = single_columns(layout)
        self.ordered = layout.ordered or [False] * layout.fields
        codes = sum(layout.codes)
        self.register_buffer("rates", torch.zeros(codes, layout.tasks))
        self.register_buffer("counts", torch.zeros(codes))

    def forward(self, fields: Tensor, events: Tensor, ages: Tensor, offsets: Tensor) -> Tensor:
        """The statistics of the rows, float32."""
        table = torch.cat([self.rates, self.counts[:, None]], 1)
        parts = table[fields].split(list(self.layout.widths), 1)
        columns = [fields[:, self.single].to(table.dtype)]
        # The buckets of a number are in its order already.
        columns += [
            part.mean(1) for part, ordered in zip(parts, self.ordered, strict=True) if not ordered
        ]
        if self.layout.sequences:
            columns.append(self._of_events(table, fields, events, ages, offsets))
        return torch.cat(columns, 1)

    def _of_events(
        self, table: Tensor, fields: Tensor, events: Tensor, ages: Tensor, offsets: Tensor
    ) -> Tensor:
        sequences, tasks = self.layout.sequences, self.layout.tasks
        segments = segment_of(offsets, events.shape[0])
        bags = fields.shape[0] * sequences
        lengths = (offsets[1:] - offsets[:-1]).to(table.dtype)
        weight = torch.exp(-ages.to(table.dtype) / RECENT)
        rates = table[events][:, :tasks]
        starts = [sum(self.layout.widths[:field]) for field in self.targets]
        row_codes = fields[:, starts].flatten()  # (B F,)
        values = torch.cat(
            [
                rates,
                rates * weight[:, None],
                weight[:, None],
                (row_codes[segments] == events).to(table.dtype)[:, None],
            ],
            1,
        )
        sums = values.new_zeros(bags, values.shape[1]).index_add(0, segments, values)
        plain = sums[:, :tasks] / lengths.clamp(min=1)[:, None]
        recent = sums[:, tasks : 2 * tasks] / sums[:, 2 * tasks, None].clamp(min=1e-6)
        rest = torch.stack([lengths.log1p(), sums[:, 2 * tasks], sums[:, 2 * tasks + 1]], 1)
        return torch.cat([plain, recent, rest], 1).view(fields.shape[0], -1)


class BoostedClicks(nn.Module):
    """Boosted trees on `ClickStatistics`, a forest for each task."""

    def __init__(self, statistics: ClickStatistics, forests: Sequence[Forest]) -> None:
        super().__init__()
        self.statistics, self.forests = statistics, nn.ModuleList(forests)

    def forward(self, fields: Tensor, events: Tensor, ages: Tensor, offsets: Tensor) -> Tensor:
        """Logits (B, S)."""
        x = self.statistics(fields, events, ages, offsets)
        return torch.cat([forest(x) for forest in self.forests], 1)


class BlendedClicks(nn.Module):
    """A weighted sum of the logits of two models and a constant, for each task: share (3, S)."""

    share: Tensor

    def __init__(self, model: nn.Module, simple: nn.Module, tasks: int) -> None:
        super().__init__()
        self.model, self.simple = model, simple
        self.register_buffer("share", torch.zeros(3, tasks))

    def forward(self, fields: Tensor, events: Tensor, ages: Tensor, offsets: Tensor) -> Tensor:
        """Logits (B, S)."""
        inputs = (fields, events, ages, offsets)
        return self.blend(self.model(*inputs), self.simple(*inputs))

    def blend(self, first: Tensor, second: Tensor) -> Tensor:
        """Of the logits (B, S) of the two."""
        return self.share[0] * first + self.share[1] * second + self.share[2]
