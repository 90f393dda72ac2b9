"""The formula of `expert_combine`, with the rows of a token gathered; exported programs hold it."""

from torch import Tensor

from ..precision import compute_type


def expert_combine(y: Tensor, weights: Tensor, place: Tensor) -> Tensor:
    """y: (S, D), weights: (T, K), place: int64 (T, K) -> (T, D)."""
    kind = compute_type(y)
    return (y[place].to(kind) * weights[..., None].to(kind)).sum(1).to(y.dtype)
