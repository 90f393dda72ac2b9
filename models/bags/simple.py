"""Simple models of bags that every bag model has to beat, called as `acmil`'s are, and their blend.

Shapes: B bags, M instances of all bags, D width of a feature, C classes, V support vectors. Bags
lie one behind the other, as in `acmil`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..layers.blend import BlendedClassifier
from ..layers.forest import Forest
from .acmil import Bags, bag_of, ends_of

LEAST = 1e-3  # share that a class has in the answer of a forest, whose trees may all agree


class SimpleBags(nn.Module):
    """Base of models of a few statistics of a bag: the mean of its instances, and their least and
    largest values if `extremes`, standardised by the training bags.

    mean, deviation: of the statistics (D,) or (3 D,).
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, features: int, *, extremes: bool) -> None:
        super().__init__()
        self.extremes = extremes
        self.size = features * (3 if extremes else 1)
        self.register_buffer("mean", torch.zeros(self.size))
        self.register_buffer("deviation", torch.ones(self.size))

    def statistics(self, x: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Statistics of the bags as they are, (B, D) or (B, 3 D): mean, least, largest."""
        ends = ends_of(x, offsets)
        bags = ends.shape[0] - 1
        where = bag_of(ends, x)
        lengths = ends.diff().clamp(min=1)[:, None].to(x.dtype)
        means = x.new_zeros(bags, x.shape[1]).index_add(0, where, x) / lengths
        if not self.extremes:
            return means
        spread = where[:, None].expand_as(x)
        zeros = x.new_zeros(bags, x.shape[1])
        least = zeros.scatter_reduce(0, spread, x, "amin", include_self=False)
        largest = zeros.scatter_reduce(0, spread, x, "amax", include_self=False)
        return torch.cat([means, least, largest], 1)

    def classify(self, standardised: Tensor) -> Tensor:
        """Logits (B, C) of standardised statistics."""
        raise NotImplementedError

    def attend(self, x: Tensor, offsets: Tensor | None = None) -> Bags:
        """Logits; there is no attention."""
        standardised = (self.statistics(x.float(), offsets) - self.mean) / self.deviation
        return Bags(self.classify(standardised))

    def forward(self, x: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Logits (B, C)."""
        return self.attend(x, offsets).logits


class PriorBags(SimpleBags):
    """The shares of the classes, whatever the bag."""

    logits: Tensor

    def __init__(self, features: int, classes: int) -> None:
        super().__init__(features, extremes=False)
        self.register_buffer("logits", torch.zeros(classes))

    def classify(self, standardised: Tensor) -> Tensor:
        """The same for all bags."""
        return self.logits.expand(standardised.shape[0], -1)


class LinearBags(SimpleBags):
    """Logistic regression: weight (C, D) or (C, 3 D), bias (C,)."""

    weight: Tensor
    bias: Tensor

    def __init__(self, features: int, classes: int, *, extremes: bool) -> None:
        super().__init__(features, extremes=extremes)
        self.register_buffer("weight", torch.zeros(classes, self.size))
        self.register_buffer("bias", torch.zeros(classes))

    def classify(self, standardised: Tensor) -> Tensor:
        """W s + b."""
        return nn.functional.linear(standardised, self.weight, self.bias)


class ForestBags(SimpleBags):
    """A random forest, whose probabilities are drawn a little towards equal ones."""

    def __init__(self, features: int, forest: Forest, *, extremes: bool) -> None:
        super().__init__(features, extremes=extremes)
        self.forest = forest

    def classify(self, standardised: Tensor) -> Tensor:
        """Logarithms of the probabilities."""
        return ((1 - LEAST) * self.forest(standardised) + LEAST).log()


class KernelBags(SimpleBags):
    """A support vector machine of two classes with a Gaussian kernel: vectors (V, D or 3 D), their
    weights (V,), bias and gamma (), slope () of the logit on the margin.
    """

    vectors: Tensor
    weights: Tensor
    bias: Tensor
    gamma: Tensor
    slope: Tensor

    def __init__(self, features: int, vectors: int, *, extremes: bool) -> None:
        super().__init__(features, extremes=extremes)
        self.register_buffer("vectors", torch.zeros(vectors, self.size))
        self.register_buffer("weights", torch.zeros(vectors))
        for name in ("bias", "gamma", "slope"):
            self.register_buffer(name, torch.tensor(1.0))

    def classify(self, standardised: Tensor) -> Tensor:
        """Logits (B, 2) of the margin."""
        squares = standardised.square().sum(1)[:, None] + self.vectors.square().sum(1)
        distance = (squares - 2 * standardised @ self.vectors.T).clamp(min=0)
        margin = (-self.gamma * distance).exp() @ self.weights + self.bias
        half = self.slope * margin / 2
        return torch.stack([-half, half], 1)


class BlendedBags(BlendedClassifier):
    """The mean of the probabilities of a bag model and a simple one, with the attention of the
    first.
    """

    def forward(self, x: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Logits (B, C)."""
        return self.blend(self.model(x, offsets), self.simple(x, offsets))

    def attend(self, x: Tensor, offsets: Tensor | None = None) -> Bags:
        """The blended logits with the scores of the bag model."""
        bags: Bags = self.model.attend(x, offsets)  # pyright: ignore[reportCallIssue]
        return Bags(self.blend(bags.logits, self.simple(x, offsets)), scores=bags.scores)
