"""The formula of STAR's stochastic core, at the rows that were drawn."""

from torch import Tensor

from ..gelu_linear.naive import gelu_linear


def scores(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    """z = W2 gelu(W1 x + b1) + b2: (B, N, D) -> (B, N, C)."""
    return gelu_linear(x @ w1.T + b1, w2, b2)


def star_core(z: Tensor, index: Tensor) -> Tensor:
    """core[b, c] = z[b, index[b, c], c], 0 for a bag without tokens: (B, C)."""
    core = z.gather(1, index.clamp_min(0)[:, None])[:, 0]
    return core.masked_fill(index < 0, 0.0)
