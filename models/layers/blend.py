"""A classifier made of two others: the mean of their probabilities.

Shapes: B rows, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BlendedClassifier(nn.Module):
    """log(share p + (1 - share) q), where p and q are the probabilities of `model` and `simple`,
    each with a temperature of its own.
    """

    share: Tensor
    temperatures: Tensor

    def __init__(self, model: nn.Module, simple: nn.Module) -> None:
        super().__init__()
        self.model, self.simple = model, simple
        self.register_buffer("share", torch.tensor(0.5))
        self.register_buffer("temperatures", torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, C)."""
        return self.blend(self.model(x), self.simple(x))

    def blend(self, first: Tensor, second: Tensor) -> Tensor:
        """Of the logits (B, C) of the two; what comes out are logarithms of probabilities."""
        p = (first / self.temperatures[0]).log_softmax(1) + self.share.log()
        q = (second / self.temperatures[1]).log_softmax(1) + (1 - self.share).log()
        return torch.logaddexp(p, q)
