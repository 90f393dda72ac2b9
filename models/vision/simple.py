"""Simple models of pictures that an attention model has to beat, called as `medusa`'s are, and
their blends with it.

Shapes: B pictures of Y x X pixels (y x x of the second, smaller one), K classes or findings.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.blend import BlendedClassifier
from .frozen import FeatureMap


class PriorPictures(nn.Module):
    """The same logits (K,) for every picture: those of the shares of the classes."""

    logits: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("logits", torch.zeros(classes))

    def forward(self, picture: Tensor, small: Tensor | None = None) -> Tensor:
        """Pictures (B, 1, Y, X) -> (B, K)."""
        return self.logits.expand(picture.shape[0], -1)


class LinearPixels(FeatureMap):
    """A linear map of the R² pixels of a reduced picture.

    size: Y and X; reduced: R, the pixels of a side, each the mean of those of the picture that it
    covers.
    """

    down: Tensor
    across: Tensor

    def __init__(self, size: tuple[int, int], reduced: int, outputs: int) -> None:
        super().__init__(reduced * reduced, outputs)
        self.size, self.reduced = size, reduced
        for name, length in (("down", size[0]), ("across", size[1])):
            self.register_buffer(name, covered_means(length, reduced), persistent=False)

    def forward(self, picture: Tensor, small: Tensor | None = None) -> Tensor:
        """Pictures (B, 1, Y, X) -> (B, K)."""
        return self.read_out(self.features(picture))

    def features(self, picture: Tensor) -> Tensor:
        """The same -> (B, R²)."""
        return (self.down @ picture[:, 0] @ self.across.T).flatten(1)


def covered_means(length: int, reduced: int) -> Tensor:
    """The matrix (R, length) whose rows take the mean over equal shares of a line of pixels.

    >>> covered_means(3, 2)
    tensor([[0.6667, 0.3333, 0.0000],
            [0.0000, 0.3333, 0.6667]])
    """
    ends = torch.arange(reduced + 1, dtype=torch.float64)[:, None] * length / reduced
    filled = (ends - torch.arange(length)).clamp(0, 1)  # of each pixel, up to each end
    return (filled.diff(dim=0) * reduced / length).float()


class BlendedPictures(BlendedClassifier):
    """The mean of the probabilities of an attention model and a simple one, of classes that exclude
    each other."""

    # The names are those of the inputs of an export, as of the attention model.
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, picture: Tensor, small: Tensor
    ) -> Tensor:
        """Logits (B, K)."""
        return self.blend(self.model(picture, small), self.simple(picture, small))


class BlendedFindings(BlendedPictures):
    """The same of findings with a probability each, the sigmoid of a logit."""

    def blend(self, first: Tensor, second: Tensor) -> Tensor:
        """Of the logits (B, K) of the two."""
        a, b = first / self.temperatures[0], second / self.temperatures[1]
        shares = self.share.log(), (1 - self.share).log()
        present = torch.logaddexp(F.logsigmoid(a) + shares[0], F.logsigmoid(b) + shares[1])
        absent = torch.logaddexp(F.logsigmoid(-a) + shares[0], F.logsigmoid(-b) + shares[1])
        return present - absent
