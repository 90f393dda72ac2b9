"""The order of training data: a pure function of seed, epoch and step.

Nothing about the order lives in a loader or a random state, so a resumed run continues in the
middle of an epoch with the same batches, whatever the number of loader workers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ....base.errors import InputError

Indices = Sequence[int] | np.ndarray


@dataclass(frozen=True)
class Part:
    """One forward and backward pass: the samples, and their weight in the gradient of the step."""

    indices: (
        np.ndarray
    )  # int64; a view of the order of the epoch, so that long ones cost no memory again
    weight: float
    last: bool  # the optimiser steps after it


def mix(*numbers: int) -> int:
    """A well mixed 63-bit seed from a few small numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def count_steps(samples: int, batch_size: int) -> int:
    """Optimiser steps per epoch; the last, smaller batch counts."""
    return -(-samples // batch_size)


def count_steps_of(dataset: Any, batch_size: int) -> int:
    """Optimiser steps per epoch of a data set, whose own sampler decides where it has one (see
    `batches_of`).
    """
    return (
        dataset.steps(batch_size)
        if hasattr(dataset, "batches")
        else count_steps(len(dataset), batch_size)
    )


def batches_of(dataset: Any, batch_size: int, *, seed: int, epoch: int) -> list[np.ndarray] | None:
    """What a data set's own sampler draws for an epoch; None where it has none and the order is a
    plain shuffle.

    Such a data set has `steps(batch_size)`, the same for every epoch, and `batches(batch_size,
    seed=, epoch=)`, that many arrays of indices (U, ...): U units that stay on one device, such as
    the pictures of one identity."""
    return (
        dataset.batches(batch_size, seed=seed, epoch=epoch) if hasattr(dataset, "batches") else None
    )


def plan(
    samples: int,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    start: int = 0,
    accumulate: int = 1,
    rank: int = 0,
    world: int = 1,
    batches: Sequence[np.ndarray] | None = None,
) -> list[Part]:
    """Parts that `rank` of `world` works on from step `start` of `epoch`.

    The batch of a step is the same for every `accumulate` and `world`: it is cut into parts, and
    the weights make the averaged gradient of all ranks the gradient of the mean loss over the whole
    batch. A rank with nothing to do in a part takes one sample with weight 0, since all ranks must
    take part in each pass. batches: as `batches_of` draws them, instead of a shuffle; they are cut
    between units."""
    if batches is None:
        shuffled = np.random.default_rng(mix(seed, epoch, 1)).permutation(samples)
        steps = count_steps(samples, batch_size)
        batches = [shuffled[step * batch_size : (step + 1) * batch_size] for step in range(steps)]
    parts = []
    for batch in batches[start:]:
        mine = batch[rank::world]
        pieces = np.array_split(mine, max(1, min(accumulate, len(batch) // world or 1)))
        for number, piece in enumerate(pieces):
            weight = len(piece) * world / len(batch)
            indices = piece if len(piece) else batch[:1]
            parts.append(Part(indices.reshape(-1), weight, number == len(pieces) - 1))
    return parts


class _Fixed(Sampler[list[int]]):
    """Yields given lists of indices; each is made a list only when its turn comes."""

    def __init__(self, lists: Sequence[Indices]) -> None:
        self.lists = lists

    def __iter__(self) -> Iterator[list[int]]:
        return (np.asarray(one).tolist() for one in self.lists)

    def __len__(self) -> int:
        return len(self.lists)


class _Named(Dataset[Any]):
    """Names the samples when reading them fails, in this process or in a worker."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitems__(self, indices: list[int]) -> Any:
        try:
            if hasattr(self.dataset, "__getitems__"):
                return self.dataset.__getitems__(indices)
            return [self.dataset[index] for index in indices]
        except Exception as error:
            raise InputError(
                f"samples {_shorten(indices)} cannot be read: {type(error).__name__}: {error}"
            ) from error


def _shorten(indices: list[int]) -> str:
    shown = ", ".join(map(str, indices[:8]))
    return shown + (f", … ({len(indices)} in all)" if len(indices) > 8 else "")


def loader(
    dataset: Any, lists: Sequence[Indices], *, workers: int = 0, pin: bool = False
) -> DataLoader[Any]:
    """A loader of the given lists of samples. `dataset.collate`, if it has one, makes the batch."""
    return DataLoader(
        _Named(dataset),
        batch_sampler=_Fixed(lists),
        num_workers=workers,
        collate_fn=getattr(dataset, "collate", None),
        pin_memory=pin,
        # A worker that hangs is an error after five minutes, not a night lost.
        timeout=300 if workers else 0,
        multiprocessing_context="spawn" if workers and torch.cuda.is_available() else None,
    )


def sequential(samples: int, batch_size: int) -> list[range]:
    """All samples in their own order, for scoring."""
    return [range(i, min(i + batch_size, samples)) for i in range(0, samples, batch_size)]
