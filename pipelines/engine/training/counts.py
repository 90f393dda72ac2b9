"""Means of a loss that are not taken over samples: over words, over rows that have a label.

A batch is cut into parts, for several devices or to save memory, and each part weighs as many
samples as it has. Where a mean is over something else, of which one part has more than another, the
parts would not sum to the batch: `factor` corrects that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from ..options import TrainOptions
from ..pipeline import AnyPipeline, Batch
from .order import Part

if TYPE_CHECKING:
    from lightning_fabric import Fabric

PartOfStep: TypeAlias = tuple[Part, Batch]
_PREFIX = "factor of "


def factor(batch: Batch, name: str) -> Tensor | float:
    """What a loss multiplies its mean over `Pipeline.counts`'s `name` by; 1 for an entire batch."""
    return batch.get(_PREFIX + name, 1.0)


def steps_of(parts: Iterable[PartOfStep]) -> Iterator[list[PartOfStep]]:
    """The parts of each optimiser step."""
    step = list[PartOfStep]()
    for part, batch in parts:
        step.append((part, batch))
        if part.last:
            yield step
            step = []


def with_factors(
    step: list[PartOfStep], pipeline: AnyPipeline, options: TrainOptions, fabric: Fabric
) -> list[PartOfStep]:
    """The parts of a step that this process works on, with what `factor` reads.

    With c of the part and C of all parts of all W processes the factor is W c / (C weight): times
    the part's weight, and averaged over the processes, each mean weighs c / C.
    """
    world = fabric.world_size
    if world == len(step) == 1:
        return step
    counts = [pipeline.counts(batch, options) for _, batch in step]
    # A part of weight 0 repeats a sample that another process has.
    own = {
        name: torch.stack(
            [count[name].double() * (part.weight > 0) for (part, _), count in zip(step, counts)]
        )
        for name in counts[0]
    }
    weights = torch.tensor([part.weight or 1.0 for part, _ in step], dtype=torch.float64)
    added = list[Batch]({} for _ in step)
    for name, values in own.items():
        total = values.sum(0)
        if world > 1:
            reduced = fabric.all_reduce(total.to(fabric.device), reduce_op="sum")
            assert isinstance(reduced, Tensor)
            total = reduced.to(total.device)
        for place, value in enumerate(values):
            share = torch.where(total > 0, world * value / (total * weights[place]), 1.0)
            added[place][_PREFIX + name] = share.float()
    return [(part, {**batch, **more}) for (part, batch), more in zip(step, added, strict=True)]
