"""Sums over the processes of a training (ranks of `torch.distributed`), of which each sees a part
of the batch.

A loss that is not a mean over samples, such as the balance of experts, needs them to be that of the
entire batch.
"""

import torch
from torch import Tensor, distributed


def summed_over_ranks(counts: Tensor) -> Tensor:
    """The sum of a tensor, of the same shape in all ranks, over all of them; itself in one process.

    Without gradients. All ranks must call it, so only in training.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return counts
    if distributed.get_world_size() == 1:
        return counts
    total = counts.detach().clone()
    distributed.all_reduce(total)
    return total


def mean_over_ranks(means: Tensor, count: Tensor) -> Tensor:
    """The means of this rank, over `count` (), as means over all ranks; themselves in one process.

    Without gradients. All ranks must call it, so only in training.
    """
    weighted = torch.cat([(means * count).flatten(), count.to(means).view(1)])
    total = summed_over_ranks(weighted)
    if total is weighted:
        return means
    return (total[:-1] / total[-1].clamp_min(1)).view_as(means)
