"""Click models of one input: fields of a row and what its user did before.

Shapes: B rows, C columns of codes, M fields, F sequences, T events of all rows, S tasks, D width of
an embedding.

All take (fields, events, ages, offsets), as `data.click_batches` makes them, and give logits (B,
S)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.segments import segment_of
from ..moe.multi_gate import LayeredExtraction, MultiGate

FIRST = 2  # codes below are no values: 0 a missing one, 1 one that training did not have
KNOTS = 16  # of an ordered field with more buckets


@dataclass(frozen=True)
class Layout:
    """What the columns are. codes: of each field; widths: columns of each; sequences: their number
    F; tasks: S; ages: number of classes of an event's age; ordered: whether the codes of each field
    from FIRST on are buckets of a number, in its order; () for no field.
    """

    codes: Sequence[int]
    widths: Sequence[int]
    sequences: int
    tasks: int
    ages: int
    ordered: Sequence[bool] = ()

    @property
    def fields(self) -> int:
        """M."""
        return len(self.codes)


class Knots(nn.Module):
    """Where the vectors of codes come from: the code itself or, for the buckets of an ordered field
    with more than KNOTS of them, the two nearest of KNOTS evenly spaced buckets, between whose
    vectors those of the others lie (piecewise linear, as in Gorishniy et al., arXiv 2203.05556).

    So a number may be cut finely without each bucket having to learn a vector of its own.
    """

    lower: Tensor
    upper: Tensor
    share: Tensor

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        lower = torch.arange(sum(layout.codes))
        upper, share = lower.clone(), torch.zeros(len(lower))
        start = 0
        for codes, ordered in zip(layout.codes, layout.ordered):
            buckets = codes - FIRST
            if ordered and buckets > KNOTS:
                first = start + FIRST
                knots = torch.linspace(0, buckets - 1, KNOTS).round().long()
                place = torch.arange(buckets)
                right = torch.searchsorted(knots, place).clamp(1, KNOTS - 1)
                below, above = knots[right - 1], knots[right]
                lower[first : first + buckets] = first + below
                upper[first : first + buckets] = first + above
                share[first : first + buckets] = (place - below) / (above - below)
            start += codes
        self.any = bool((share > 0).any())
        for name, value in (("lower", lower), ("upper", upper), ("share", share)):
            self.register_buffer(name, value, persistent=False)

    def forward(self, table: nn.Embedding, codes: Tensor) -> Tensor:
        """Vectors (…, D) of codes (…)."""
        if not self.any:
            return table(codes)
        share = self.share[codes][..., None]
        return (1 - share) * table(self.lower[codes]) + share * table(self.upper[codes])


class Embedding(nn.Module):
    """One table for all fields, so that a row is one look-up; several values of a field are
    averaged, and buckets of numbers share their vectors (`Knots`).

    sparse: the gradient holds the rows of the batch only (for optimisers that take such gradients).
    scale: standard deviation of the initial values."""

    def __init__(
        self, layout: Layout, width: int, *, sparse: bool = False, scale: float = 0.05
    ) -> None:
        super().__init__()
        self.layout = layout
        self.table = nn.Embedding(sum(layout.codes), width, sparse=sparse)
        nn.init.normal_(self.table.weight, std=scale)
        self.knots = Knots(layout)
        self.missing: Tensor
        missing = (
            torch.tensor([0, *layout.codes[:-1]])
            .cumsum(0)
            .repeat_interleave(torch.tensor(layout.widths))
        )
        self.register_buffer("missing", missing, persistent=False)
        self.several = any(width > 1 for width in layout.widths)

    def forward(self, fields: Tensor) -> Tensor:
        """fields: int64 (B, C) -> (B, M, D)."""
        vectors = self.knots(self.table, fields)
        if not self.several:
            return vectors
        present = (fields != self.missing)[..., None].to(vectors.dtype)
        parts, start = [], 0
        for width in self.layout.widths:
            part = vectors[:, start : start + width]
            if width > 1:
                weight = present[:, start : start + width]
                part = (part * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(
                    min=1
                )
            parts.append(part)
            start += width
        return torch.cat(parts, 1)

    def pooled(self, events: Tensor, offsets: Tensor) -> Tensor:
        """Mean embedding of each sequence of each row, (B, F, D); 0 for an empty one."""
        sums = F.embedding_bag(
            events,
            self.table.weight,
            offsets,
            mode="mean",
            sparse=self.table.sparse,
            include_last_offset=True,
        )
        return sums.view(-1, self.layout.sequences, sums.shape[1])


def segment_sum(rows: Tensor, segments: Tensor, count: int) -> Tensor:
    """Sums of rows (T, D) by segment -> (count, D)."""
    return rows.new_zeros(count, rows.shape[1]).index_add(0, segments, rows)


def perceptron(width: int, hidden: Sequence[int], dropout: float = 0.0) -> nn.Sequential:
    """Linear layers with ReLU and dropout."""
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(width, size), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
        width = size
    return nn.Sequential(*layers)


class Towers(nn.Module):
    """A small network of its own for each task: (B, S, D) -> (B, S)."""

    def __init__(self, width: int, tasks: int, hidden: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        last = hidden[-1] if hidden else width
        self.towers = nn.ModuleList(
            nn.Sequential(perceptron(width, hidden, dropout), nn.Linear(last, 1))
            for _ in range(tasks)
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, S, D), or (B, D) for all tasks alike."""
        by_task = x.unbind(1) if x.ndim == 3 else [x] * len(self.towers)
        return torch.cat([tower(part) for tower, part in zip(self.towers, by_task)], 1)

    @torch.no_grad()
    def rescale(self, task: int, slope: float, shift: float) -> None:
        """Make the logits of a task slope times what they were, plus shift, by its last layer."""
        last = self.towers[task].get_submodule("1")
        assert isinstance(last, nn.Linear)
        last.weight.mul_(slope)
        last.bias.mul_(slope).add_(shift)


class ClickModel(nn.Module):
    """Base: embeddings of fields, and means of the sequences, side by side. All models end with
    `towers`, one for each task.
    """

    towers: Towers

    def __init__(self, layout: Layout, *, width: int, sparse: bool, scale: float = 0.05) -> None:
        super().__init__()
        self.layout = layout
        self.embedding = Embedding(layout, width, sparse=sparse, scale=scale)
        self.inputs = (layout.fields + layout.sequences) * width

    def flat(self, fields: Tensor, events: Tensor, offsets: Tensor) -> Tensor:
        """(B, (M + F) D)."""
        parts = [self.embedding(fields).flatten(1)]
        if self.layout.sequences:
            parts.append(self.embedding.pooled(events, offsets).flatten(1))
        return torch.cat(parts, 1)


class SharedBottom(ClickModel):
    """One network for all tasks, and a tower for each (Caruana, 1997)."""

    def __init__(
        self,
        layout: Layout,
        *,
        width: int = 16,
        bottom: Sequence[int] = (256, 128),
        towers: Sequence[int] = (64,),
        dropout: float = 0.0,
        sparse: bool = False,
    ) -> None:
        super().__init__(layout, width=width, sparse=sparse)
        self.bottom = perceptron(self.inputs, bottom, dropout)
        self.towers = Towers(bottom[-1], layout.tasks, towers, dropout)

    def forward(self, fields: Tensor, events: Tensor, ages: Tensor, offsets: Tensor) -> Tensor:
        """Logits (B, S)."""
        return self.towers(self.bottom(self.flat(fields, events, offsets)))


class MMoE(ClickModel):
    """Multi-gate mixture of experts (Ma et al., KDD 2018): experts for all tasks, a gate for
    each.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        width: int = 16,
        experts: int = 4,
        hidden: int = 256,
        towers: Sequence[int] = (64,),
        dropout: float = 0.0,
        sparse: bool = False,
    ) -> None:
        super().__init__(layout, width=width, sparse=sparse)
        self.mixture = MultiGate(self.inputs, layout.tasks, experts=experts, hidden=hidden)
        self.dropout = nn.Dropout(dropout)
        self.towers = Towers(self.inputs, layout.tasks, towers, dropout)

    def forward(self, fields: Tensor, events: Tensor, ages: Tensor, offsets: Tensor) -> Tensor:
        """Logits (B, S)."""
        return self.towers(self.dropout(self.mixture(self.flat(fields, events, offsets))))


class PLE(ClickModel):
    """Progressive layered extraction (Tang et al., RecSys 2020): experts of each task beside common
    ones.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        width: int = 16,
        experts: int = 2,
        hidden: int = 256,
        layers: int = 2,
        towers: Sequence[int] = (64,),
        dropout: float = 0.0,
        sparse: bool = False,
    ) -> None:
        super().__init__(layout, width=width, sparse=sparse)
        self.mixture = LayeredExtraction(
            self.inputs, layout.tasks, depth=layers, per_task=experts, shared=experts, hidden=hidden
        )
        self.dropout = nn.Dropout(dropout)
        self.towers = Towers(self.inputs, layout.tasks, towers, dropout)

    def forward(self, fields: Tensor, events: Tensor, ages: Tensor, offsets: Tensor) -> Tensor:
        """Logits (B, S)."""
        return self.towers(self.dropout(self.mixture(self.flat(fields, events, offsets))))


class DIN(ClickModel):
    """Deep interest network (Zhou et al., KDD 2018): each event weighted by a network that also
    sees the target.

        w_t = MLP([q, k_t, q - k_t, q * k_t]),   history = sum_t w_t k_t   (no softmax)

    target: the field that the events are compared with, one for each sequence: the field whose
    embeddings it shares. Reading: ReLU instead of Dice; a tower for each task, since the paper has
    one task."""

    def __init__(
        self,
        layout: Layout,
        *,
        targets: Sequence[int],
        width: int = 16,
        hidden: Sequence[int] = (64,),
        bottom: Sequence[int] = (256, 128),
        towers: Sequence[int] = (64,),
        dropout: float = 0.0,
        sparse: bool = False,
    ) -> None:
        super().__init__(layout, width=width, sparse=sparse)
        self.targets = list(targets)
        self.unit = nn.Sequential(
            perceptron(4 * width, hidden), nn.Linear(hidden[-1] if hidden else 4 * width, 1)
        )
        self.bottom = perceptron(self.inputs, bottom, dropout)
        self.towers = Towers(bottom[-1], layout.tasks, towers, dropout)

    def forward(self, fields: Tensor, events: Tensor, ages: Tensor, offsets: Tensor) -> Tensor:
        """Logits (B, S)."""
        vectors = self.embedding(fields)
        parts = [vectors.flatten(1)]
        if self.layout.sequences:
            segments = segment_of(offsets, events.shape[0])
            query = vectors[:, self.targets].flatten(0, 1)[segments]
            key = self.embedding.table(events)
            weight = self.unit(torch.cat([query, key, query - key, query * key], 1))
            history = segment_sum(weight * key, segments, fields.shape[0] * self.layout.sequences)
            parts.append(history.view(fields.shape[0], -1))
        return self.towers(self.bottom(torch.cat(parts, 1)))


class DCNv2(ClickModel):
    """Deep and cross network, version 2 (Wang et al., WWW 2021, arXiv 2008.13535, equation 1),
    parallel structure.

    x_{l+1} = x_0 * (W_l x_l + b_l) + x_l
    """

    def __init__(
        self,
        layout: Layout,
        *,
        width: int = 16,
        layers: int = 3,
        bottom: Sequence[int] = (256, 128),
        towers: Sequence[int] = (64,),
        dropout: float = 0.0,
        sparse: bool = False,
    ) -> None:
        super().__init__(layout, width=width, sparse=sparse)
        self.cross = nn.ModuleList(nn.Linear(self.inputs, self.inputs) for _ in range(layers))
        self.bottom = perceptron(self.inputs, bottom, dropout)
        self.towers = Towers(self.inputs + bottom[-1], layout.tasks, towers, dropout)

    def forward(self, fields: Tensor, events: Tensor, ages: Tensor, offsets: Tensor) -> Tensor:
        """Logits (B, S)."""
        first = x = self.flat(fields, events, offsets)
        for layer in self.cross:
            x = torch.addcmul(x, first, layer(x))
        return self.towers(torch.cat([x, self.bottom(first)], 1))
