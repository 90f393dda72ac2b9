"""Softmax-free attention of all tokens to all, by the signed square root of their products, without
the map.

Shapes: B batch (any leading dimensions), N queries, M keys, C width of queries and keys, E width of
values.

    out = r(q k^T) v,    r(x) = sign(x) (sqrt(|x| + eps) - sqrt(eps)) = x / (sqrt(|x| + eps) + sqrt(eps))    (B, N, E)

The position mutual fusion of GL-DMNet (arXiv 2501.01648, equations 6 to 11); its printed sign(x) x^(-1/2) has no value
for x <= 0, so this is the signed square root of bilinear pooling, made smooth: odd, continuous, of derivative
1 / (2 sqrt(|x| + eps)).

Work: 2 N M (C + E) flops forward; B N (C + E) + B M (C + E) numbers moved. Written plainly,
autograd keeps several maps of N M numbers; here nothing is kept but q, k and v, and the backward
pass forms the map again, 7 products beside 6. No running maximum is needed, since no row is
normalised: tiles are exact. On the CPU a tile of rows stays in the cache; on a GPU two Triton
kernels form the map tile by tile, 8 products in the backward pass."""

from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

from ..gelu_linear import match_autocast
from ..softmax_pool.cpu import compute_type
from . import cpu as plain
from .cpu import signed_root


def signed_root_attention(
    query: Tensor, key: Tensor, value: Tensor, *, eps: float = 1e-4
) -> Tensor:
    """`signed_root(query @ key.mT, eps) @ value`, keeping only the three.

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


def attention_plain(query: Tensor, key: Tensor, value: Tensor, eps: float) -> Tensor:
    """The formula, with the whole map: the form of an exported program."""
    kind = compute_type(query)
    scores = query.to(kind) @ key.to(kind).mT
    return (signed_root(scores, eps) @ value.to(kind)).to(value.dtype)


@torch.library.custom_op("headwise::signed_root_attention", mutates_args=())
def _attention(query: Tensor, key: Tensor, value: Tensor, eps: float) -> Tensor:
    return plain.forward(query, key, value, eps)


@_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, eps: float) -> Tensor:
    return query.new_empty((*query.shape[:2], value.shape[2]))


@torch.library.custom_op("headwise::signed_root_attention_backward", mutates_args=())
def _attention_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    return plain.backward(grad, query, key, value, eps)


@_attention_backward.register_fake
def _(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    first, second, third = (
        torch.empty_like(x, memory_format=torch.contiguous_format) for x in (query, key, value)
    )
    return first, second, third


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs[:3])
    ctx.eps = inputs[3]


def _gradient(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
    return *torch.ops.headwise.signed_root_attention_backward(
        grad, *ctx.saved_tensors, ctx.eps
    ), None


_attention.register_autograd(_gradient, setup_context=_save)


def _form(query: Tensor) -> ModuleType:  # pragma: no cover - asked only with a CUDA tensor
    """The Triton kernels, or the plain form where they cannot run or would be slower."""
    if find_spec("triton") is None:
        return plain
    from . import triton as signed_root_attention_triton

    return signed_root_attention_triton if signed_root_attention_triton.fits(query) else plain


@_attention.register_kernel("cuda")
def _(query, key, value, eps):  # type: ignore[no-untyped-def]  # pragma: no cover - needs a GPU
    return _form(query).forward(query, key, value, eps)


@_attention_backward.register_kernel("cuda")
def _(grad, query, key, value, eps):  # type: ignore[no-untyped-def]  # pragma: no cover - needs a GPU
    return _form(query).backward(grad, query, key, value, eps)
