"""The formula of `gelu_linear`."""

import torch
from torch import Tensor


def gelu(x: Tensor) -> Tensor:
    """x times the normal distribution function at x."""
    return 0.5 * x * (1 + torch.erf(x / 2**0.5))


def gelu_linear(h: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """h: (..., K), weight: (O, K), bias: (O,) -> (..., O)."""
    out = gelu(h) @ weight.T
    return out if bias is None else out + bias
