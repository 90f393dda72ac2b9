"""The formula of softmax-free attention by the signed root, with the entire map."""

from torch import Tensor

from ..precision import compute_type


def signed_root(x: Tensor, eps: float) -> Tensor:
    """r(x) = sign(x) (sqrt(|x| + eps) - sqrt(eps)), in the form that loses no digits near 0."""
    return x / ((x.abs() + eps).sqrt() + eps**0.5)


def signed_root_attention(query: Tensor, key: Tensor, value: Tensor, eps: float) -> Tensor:
    """(B, N, E)."""
    kind = compute_type(query)
    scores = query.to(kind) @ key.to(kind).mT
    return (signed_root(scores, eps) @ value.to(kind)).to(value.dtype)
