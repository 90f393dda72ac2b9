"""Softmax-free attention of all tokens to all, by the signed square root of their products, without
the map.

Shapes: B batch (any leading dimensions), N queries, M keys, C width of queries and keys, E width of
values.

    out = r(q k^T) v   (B, N, E)
    r(x) = sign(x) (sqrt(|x| + eps) - sqrt(eps)) = x / (sqrt(|x| + eps) + sqrt(eps))

This is the position mutual fusion of GL-DMNet (arXiv 2501.01648, equations 6 to 11). Its printed
sign(x) x^(-1/2) has no value for x <= 0, so r is the signed square root of bilinear pooling, made
smooth: odd and continuous, with derivative 1 / (2 sqrt(|x| + eps)).

Work: 2 N M (C + E) flops forward; B N (C + E) + B M (C + E) numbers moved. With the naive form,
autograd stores several maps of N M numbers; here only q, k and v are stored, and the backward pass
computes the map again, 7 products instead of 6. No running maximum is needed, because no row is
normalised: tiles are exact. On the CPU a tile of rows stays in the cache; on a GPU two Triton
kernels form the map tile by tile, 8 products in the backward pass."""

import torch
from torch import Tensor

from ..forms import Form, triton_refused
from ..precision import match_autocast, width_refused
from ..register import operator
from . import cpu, naive
from .naive import signed_root

__all__ = ["signed_root", "signed_root_attention"]


def signed_root_attention(
    query: Tensor, key: Tensor, value: Tensor, *, eps: float = 1e-4
) -> Tensor:
    """`signed_root(query @ key.mT, eps) @ value`, storing only the three inputs.

    query: (..., N, C); key: (..., M, C); value: (..., M, E), of the same leading dimensions.
    Returns (..., N, E). Follows autocast like a product of matrices.

    Raises ValueError if the shapes do not fit or eps is not positive.
    """
    shapes = ", ".join(str(tuple(x.shape)) for x in (query, key, value))
    if min(query.ndim, key.ndim, value.ndim) < 2 or not (
        query.shape[:-2] == key.shape[:-2] == value.shape[:-2]
    ):
        raise ValueError(f"signed_root_attention: query, key and value do not fit: {shapes}")
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        raise ValueError(f"signed_root_attention: query, key and value do not fit: {shapes}")
    if not eps > 0:
        raise ValueError(f"signed_root_attention: eps must be positive, got {eps}")
    q, k, v = match_autocast(query, key, value)
    assert k is not None
    assert v is not None
    lead = q.shape[:-2]
    q, k, v = (x.reshape(-1, *x.shape[-2:]) if len(lead) != 1 else x for x in (q, k, v))
    out = torch.ops.headwise.signed_root_attention(q, k, v, eps)
    return out if len(lead) == 1 else out.reshape(*lead, *out.shape[-2:])


def forms(query: Tensor) -> list[Form]:
    """What can compute the attention of such queries (..., N, C)."""
    return [
        Form("Triton kernel, tiles of the map", triton_refused(query) or kernel_refused(query)),
        Form("PyTorch calls, by blocks of rows of the map"),
    ]


def kernel_refused(query: Tensor) -> str:
    """Why there is no Triton kernel for the type or the map is small: with fewer queries than their
    width, products of entire matrices are better. "" where the kernel is taken.
    """
    count, width = query.shape[-2:]
    if width > count:
        return f"{count} queries, fewer than their width of {width}: products of entire maps"
    return width_refused(query, 1, single=1)


def fits(query: Tensor) -> bool:
    """Whether the Triton kernels take it."""
    return not kernel_refused(query)


operator(
    "signed_root_attention",
    cpu.forward,
    fake=lambda query, key, value, eps: query.new_empty((*query.shape[:2], value.shape[2])),
    fits=fits,
    export=naive.signed_root_attention,
    backward=cpu.backward,
    backward_fits=fits,
    gradients=("query", "key", "value"),
)
