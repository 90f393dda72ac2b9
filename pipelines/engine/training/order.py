"""The order of training data: a pure function of seed, epoch and step.

Nothing about the order lives in a loader or a random state, so a resumed run continues in the
middle of an epoch with the same batches, whatever the number of loader workers."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ....base.errors import InputError

Indices: TypeAlias = Sequence[int] | np.ndarray
Batch: TypeAlias = dict[str, Tensor]


class SingleSamples(Protocol):
    """A data set that is read one sample at a time."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> object: ...


class ManySamples(Protocol):
    """A data set that reads several samples at once."""

    def __len__(self) -> int: ...
    def __getitems__(self, indices: list[int], /) -> object: ...


@runtime_checkable
class SampledInBatches(Protocol):
    """A data set whose own sampler draws the batches of an epoch.

    `steps` is the same for every epoch, and `batches` gives that many arrays of indices (U, ...): U
    units that stay on one device, such as the pictures of one identity.
    """

    def steps(self, batch_size: int) -> int: ...
    def batches(self, batch_size: int, *, seed: int, epoch: int) -> list[np.ndarray]: ...


DataSet: TypeAlias = SingleSamples | ManySamples
"""A torch data set. Its method `collate`, if it has one, makes a batch of samples."""


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


def count_steps_of(dataset: DataSet, batch_size: int) -> int:
    """Optimiser steps per epoch of a data set, whose own sampler decides if it has one."""
    if isinstance(dataset, SampledInBatches):
        return dataset.steps(batch_size)
    return count_steps(len(dataset), batch_size)


def batches_of(
    dataset: DataSet, batch_size: int, *, seed: int, epoch: int
) -> list[np.ndarray] | None:
    """What a data set's own sampler draws for an epoch; None if it has none and the order is a
    plain shuffle.
    """
    if isinstance(dataset, SampledInBatches):
        return dataset.batches(batch_size, seed=seed, epoch=epoch)
    return None


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
    the weights make the averaged gradient of all ranks the gradient of the mean loss over the full
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
    """Yields lists of indices; each is made a list only when its turn comes."""

    def __init__(self, lists: Sequence[Indices]) -> None:
        self.lists = lists

    def __iter__(self) -> Iterator[list[int]]:
        return (np.asarray(indices).tolist() for indices in self.lists)

    def __len__(self) -> int:
        return len(self.lists)


class _Named(Dataset[object]):
    """Names the samples when reading them fails, in this process or in a worker."""

    def __init__(self, dataset: DataSet) -> None:
        self.dataset = dataset

    def __getitems__(self, indices: list[int]) -> object:
        dataset = self.dataset
        try:
            if hasattr(dataset, "__getitems__"):
                return dataset.__getitems__(indices)  # pyright: ignore[reportAttributeAccessIssue]
            return [dataset[index] for index in indices]  # pyright: ignore[reportIndexIssue]
        except Exception as error:
            raise InputError(
                f"samples {_shorten(indices)} cannot be read: {type(error).__name__}: {error}"
            ) from error


def _shorten(indices: list[int]) -> str:
    shown = ", ".join(map(str, indices[:8]))
    return shown + (f", … ({len(indices)} in all)" if len(indices) > 8 else "")


def loader(
    dataset: DataSet,
    lists: Sequence[Indices],
    *,
    device: torch.device | None = None,
    workers: int = 0,
    pin: bool = False,
) -> Iterable[Batch]:
    """Batches of the lists of samples, on the device if one is named.

    `dataset.collate`, if it has one, makes the batch.
    """
    batches: DataLoader[Any] = DataLoader(
        _Named(dataset),
        batch_sampler=_Fixed(lists),
        num_workers=workers,
        collate_fn=getattr(dataset, "collate", None),
        pin_memory=pin,
        # A worker that hangs is an error after five minutes, not a night lost.
        timeout=300 if workers else 0,
        multiprocessing_context="spawn" if workers and torch.cuda.is_available() else None,
    )
    if device is None:
        return batches
    return ({name: value.to(device) for name, value in batch.items()} for batch in batches)


def sequential(samples: int, batch_size: int) -> list[range]:
    """All samples in their own order, for scoring."""
    return [range(i, min(i + batch_size, samples)) for i in range(0, samples, batch_size)]
