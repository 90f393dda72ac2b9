"""Activation checkpointing runs the forward pass of a layer again, during the backward pass.

Such a pass must repeat the choices of the first one, and must not count its tokens again.
"""

from typing import NamedTuple

import torch
from torch import Tensor

PASSES = 16  # how many forward passes before a backward pass can be repeated with their own bias


def is_recomputation() -> bool:
    """Whether a backward pass is running in this thread, so that a forward pass is a repetition."""
    return torch._C._current_graph_task_id() != -1


@torch.library.custom_op("headwise::is_recomputation", mutates_args=())
def recomputation_flag(x: Tensor) -> Tensor:
    """`is_recomputation` as a bool tensor () on the device of x: an operator, so that a compiled
    layer asks at each call.
    """
    return torch.full((), is_recomputation(), device=x.device)


@recomputation_flag.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty((), dtype=torch.bool)


class PastBiases(NamedTuple):
    """Which bias was used for which logits, in the last forward passes, newest first.

    A checkpoint does not say which pass it repeats; the sum of its logits does.
    """

    marks: Tensor  # (PASSES,): sum of the logits, infinite where there was no pass
    biases: Tensor  # (PASSES, E)

    @classmethod
    def empty(cls, logits: Tensor, bias: Tensor) -> "PastBiases":
        """Before the first pass."""
        return cls(logits.new_full((PASSES,), torch.inf), bias.new_zeros((PASSES, len(bias))))

    def fits(self, logits: Tensor, bias: Tensor) -> bool:
        """Whether device and types are those of logits and bias."""
        pairs = ((self.marks, logits), (self.biases, bias))
        return all(past.device == x.device and past.dtype == x.dtype for past, x in pairs)

    def next(self, logits: Tensor, bias: Tensor, again: Tensor) -> tuple[Tensor, "PastBiases"]:
        """The bias (E,) to use for the logits (..., E), and the passes including this one.

        bias: (E,), where it stands now; again: bool (), whether this pass is a repetition: it uses
        the bias of the pass that it repeats.
        """
        mark = logits.detach().sum()
        same = (self.marks - mark).abs().argmin()
        used = torch.where(again, self.biases.index_select(0, same[None])[0], bias)
        longer = PastBiases(
            torch.cat([mark[None], self.marks[:-1]]), torch.cat([bias[None], self.biases[:-1]])
        )
        passes = (torch.where(again, *pair) for pair in zip(self, longer, strict=True))
        return used, PastBiases(*passes)
