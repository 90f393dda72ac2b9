"""HardKuma: a variable between 0 and 1 that is exactly 0 or 1 with a probability, and still has
gradients (Bastings and others, arXiv 1905.08160).

    s = (1 - (1 - u)^(1/b))^(1/a),  u ~ U(0, 1)          Kumaraswamy
    t = low + (high - low) s,       low < 0, high > 1    stretched
    z = min(1, max(0, t))                                rectified
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

LOW, HIGH = -0.1, 1.1
LEAST, MOST = 1e-6, 100.0  # of a and b: beyond them the powers leave the numbers of float32
EDGE = 1e-3  # u stays this far from 0 and 1, where the gradient of the sample has no bound
NODES = 64


@dataclass(frozen=True)
class HardKuma:
    """Variables with the shape parameters a and b, two tensors of one shape.

    Values outside 1e-6 to 100 count as the nearest of these.
    """

    a: Tensor
    b: Tensor

    def _bounded(self) -> tuple[Tensor, Tensor]:
        return self.a.clamp(LEAST, MOST), self.b.clamp(LEAST, MOST)

    def above(self, x: Tensor) -> Tensor:
        """P(t > x) of the stretched variable; x is broadcast with a."""
        a, b = self._bounded()
        share = ((x - LOW) / (HIGH - LOW)).clamp(0, 1)
        return (1 - share**a) ** b

    def zero(self) -> Tensor:
        """P(z = 0)."""
        return 1 - self.above(torch.zeros_like(self.a))

    def one(self) -> Tensor:
        """P(z = 1)."""
        return self.above(torch.ones_like(self.a))

    def mean(self) -> Tensor:
        """E z = integral over x from 0 to 1 of P(t > x), by Gauss-Legendre quadrature.

        The published program has the mean of s here, which is not that of z.
        """
        nodes, weights = np.polynomial.legendre.leggauss(NODES)
        x, weight = ((torch.from_numpy(values).to(self.a) / 2) for values in (nodes, weights))
        return (self.above(0.5 + _last(x, self.a)) * _last(weight, self.a)).sum(0)

    def sample(self, noise: Tensor) -> Tensor:
        """z for uniform noise in [0, 1), with a's shape or further dimensions in front of it.

        Deterministic, with gradients to a and b: 0 where z is 0 or 1.
        """
        a, b = self._bounded()
        u = EDGE + (1 - 2 * EDGE) * noise
        s = (1 - (1 - u) ** b.reciprocal()) ** a.reciprocal()
        return (LOW + (HIGH - LOW) * s).clamp(0, 1)


def _last(values: Tensor, like: Tensor) -> Tensor:
    """values (n,) in front of the dimensions of another tensor."""
    return values.reshape(-1, *(1,) * like.ndim)
