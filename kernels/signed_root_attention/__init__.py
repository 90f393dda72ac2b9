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
normalised: tiles are exact. On the CPU a tile of rows stays in the cache. On a GPU maps of a few
thousand tokens are formed in the cache by PyTorch's products, with one Triton pass for the root;
two Triton kernels form larger ones tile by tile, 8 products in the backward pass."""

import torch
from torch import Tensor

from ..checks import check_floating
from ..forms import Form, triton_refused
from ..precision import match_autocast, type_refused, width_refused
from ..register import operator
from . import cpu, naive
from .naive import signed_root

# Numbers of the maps that are in memory together: 32 MiB of bfloat16; an H100's cache has 50.
MAP_NUMBERS = 1 << 24
LEAST_WIDTH = 128  # of queries and values together

__all__ = ["signed_root", "signed_root_attention"]


def signed_root_attention(
    query: Tensor, key: Tensor, value: Tensor, *, eps: float = 1e-4
) -> Tensor:
    """`signed_root(query @ key.mT, eps) @ value`, storing only the three inputs.

    query: (..., N, C); key: (..., M, C); value: (..., M, E), of the same leading dimensions.
    Returns (..., N, E). Follows autocast like a product of matrices.

    Raises ValueError if shapes or types do not fit or eps is not positive.
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
    check_floating("signed_root_attention", q, k, v)
    lead = q.shape[:-2]
    q, k, v = (x.reshape(-1, *x.shape[-2:]) if len(lead) != 1 else x for x in (q, k, v))
    out = torch.ops.headwise.signed_root_attention(q, k, v, eps)
    return out if len(lead) == 1 else out.reshape(*lead, *out.shape[-2:])


def forms(query: Tensor, key: Tensor | None = None, value: Tensor | None = None) -> list[Form]:
    """What can compute the attention of such queries (..., N, C); keys and values, by default like
    the queries.
    """
    key, value = query if key is None else key, query if value is None else value
    no_triton = triton_refused(query)
    return [
        Form(
            "PyTorch's products of maps, the root in one Triton pass between them",
            no_triton or maps_refused(query, key, value),
        ),
        Form("Triton kernel, tiles of the map", no_triton or kernel_refused(query)),
        Form("PyTorch calls, by blocks of rows of the map"),
    ]


def maps_refused(query: Tensor, key: Tensor, value: Tensor) -> str:
    """Why maps are not formed in memory on a GPU; "" where that is ahead of kernels that form them
    by tiles: those make the first product again for each slice of the output, and reach 8 % of the
    tensor cores' rate, where a product of matrices reaches half (by roofline, not measured).
    """
    numbers = query.shape[-2] * key.shape[-2]
    if query.dtype == torch.float16:
        return "float16 need not hold the products before their root is taken"
    if numbers > MAP_NUMBERS:
        return f"a map of {numbers} numbers; above {MAP_NUMBERS} it leaves the cache"
    if query.shape[-1] + value.shape[-1] < LEAST_WIDTH:
        return f"narrower than {LEAST_WIDTH}: moving a map costs more than its products"
    return type_refused(query)


def kernel_refused(query: Tensor) -> str:
    """Why there is no Triton kernel for the type or the map is small: with fewer queries than their
    width, products of entire matrices are better. "" where the kernel is taken.
    """
    count, width = query.shape[-2:]
    if width > count:
        return f"{count} queries, fewer than their width of {width}: products of entire maps"
    return width_refused(query, 1, single=1)


def fits(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether a Triton form takes it."""
    return not (maps_refused(query, key, value) and kernel_refused(query))


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
