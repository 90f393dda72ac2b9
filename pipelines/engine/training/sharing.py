"""A step of the training on several devices: copies of the model that take the mean of their
gradients (DDP), or one model in parts (FSDP).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule

ResultT = TypeVar("ResultT")


class Work(nn.Module):
    """A model whose forward pass is any work on it.

    DDP and FSDP act at the start and at the end of a forward pass. So they share the gradient of an
    entire loss, whichever methods and weights of the model it uses.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, work: Callable[[nn.Module], ResultT]) -> ResultT:
        """What `work` gives for the model."""
        return work(self.model)


class SharedWork:
    """Work on a model that one process does by itself, or several do together.

    model: as Fabric has wrapped it, on its device; strategy: "none", "ddp" or "fsdp", of which the
    last two need an initialised process group. With "fsdp" the model's own weights become parts
    (`DTensor`), so its optimiser must be made after this.
    """

    def __init__(self, model: nn.Module, strategy: str) -> None:
        self.work: nn.Module = Work(model)
        self.parts: FSDPModule | None = None
        self.statistics = [] if strategy == "none" else _running_statistics(model)
        if strategy == "ddp":
            # A loss need not use all weights. DDP looks for those, and would warn where it finds
            # none: here is one, which no optimiser knows. Running statistics are averaged below.
            device = next(model.parameters()).device
            self.work.unused = nn.Parameter(torch.zeros(1, device=device))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # the new name is of torch 2.14
                self.work = DistributedDataParallel(
                    self.work, find_unused_parameters=True, broadcast_buffers=False
                )
        elif strategy == "fsdp":
            from torch.distributed.fsdp import fully_shard  # takes a second to import

            # Otherwise all weights would stay in memory after a pass without gradients.
            self.parts = fully_shard(self.work, reshard_after_forward=True)

    def __call__(self, work: Callable[[nn.Module], ResultT]) -> ResultT:
        """What `work` gives for the model. All processes must call it alike."""
        return self.work(work)

    @contextmanager
    def gradients_shared(self, enabled: bool) -> Iterator[None]:
        """A block of one forward and one backward pass, after which gradients are the mean over the
        processes, or (not enabled) are kept for the next block to add to.
        """
        if self.parts is not None:
            self.parts.set_requires_gradient_sync(enabled)
        if isinstance(self.work, DistributedDataParallel) and not enabled:
            with self.work.no_sync():
                yield
        else:
            yield

    def agree_on_statistics(self) -> None:
        """Give all processes the mean of their running means and variances of batches."""
        if not self.statistics:
            return
        together = torch.cat([values.flatten() for values in self.statistics])
        distributed.all_reduce(together)
        together /= distributed.get_world_size()
        parts = together.split([values.numel() for values in self.statistics])
        for values, part in zip(self.statistics, parts, strict=True):
            values.copy_(part.view_as(values))


def _running_statistics(model: nn.Module) -> list[torch.Tensor]:
    return [
        values
        for part in model.modules()
        if isinstance(part, _BatchNorm)
        for values in (part.running_mean, part.running_var)
        if values is not None
    ]
