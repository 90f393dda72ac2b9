"""Which bias a router used in its last passes, for passes that are repeated.

Shapes: E experts.
"""

from typing import NamedTuple

import torch
from torch import Tensor

PASSES = 16  # how many forward passes before a backward pass can be repeated with their own bias


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
