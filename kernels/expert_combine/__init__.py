"""The outputs of a token's experts, weighted and summed in one fixed order.

Shapes: T tokens, K experts of a token, S = T K rows sorted by expert, D width.

    out_t = sum_k w_tk y_place(t,k);   d y_s = w_tk g_t,   d w_tk = g_t . y_place(t,k)

Work: 2 S D flops, S D numbers read; the plain composition keeps a gathered copy of y and a product,
2 S D numbers, this keeps y. Sums run over k in order, without atomic additions: two runs are equal
bit by bit."""

import sys
from importlib.util import find_spec

import torch
from torch import Tensor

from ..dispatch import Dispatch


def expert_combine(y: Tensor, weights: Tensor, where: Dispatch) -> Tensor:
    """Weighted sum of the rows of each token. y: (S, D); weights: (T, K) -> (T, D), in the type of
    y.

    Raises ValueError if shapes do not fit.
    """
    if y.ndim != 2 or weights.shape != where.place.shape or y.shape[0] != where.order.shape[0]:
        raise ValueError(
            f"expert_combine: y {tuple(y.shape)} and weights {tuple(weights.shape)} do not fit "
            f"{where.order.shape[0]} rows and choices {tuple(where.place.shape)}"
        )
    return torch.ops.headwise.expert_combine(y, weights, where.place)


def combine(y: Tensor, weights: Tensor, place: Tensor) -> Tensor:
    """(T, D), in plain PyTorch."""
    kind = torch.promote_types(y.dtype, torch.float32)
    out = y.new_zeros((place.shape[0], y.shape[1]), dtype=kind)
    for k in range(place.shape[1]):
        out.addcmul_(y.index_select(0, place[:, k]).to(kind), weights[:, k, None].to(kind))
    return out.to(y.dtype)


def combine_backward(
    grad: Tensor, y: Tensor, weights: Tensor, place: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of y (S, D) and of the weights (T, K), in plain PyTorch."""
    kind = torch.promote_types(y.dtype, torch.float32)
    grad = grad.to(kind)
    d_y, d_weights = (
        torch.empty_like(y, memory_format=torch.contiguous_format),
        torch.empty_like(weights),
    )
    for k in range(place.shape[1]):
        rows = place[:, k]
        d_y.index_copy_(0, rows, (grad * weights[:, k, None].to(kind)).to(y.dtype))
        d_weights[:, k] = (grad * y.index_select(0, rows).to(kind)).sum(1).to(weights.dtype)
    return d_y, d_weights


@torch.library.custom_op("headwise::expert_combine", mutates_args=())
def _combine(y: Tensor, weights: Tensor, place: Tensor) -> Tensor:
    return combine(y, weights, place)


@_combine.register_fake
def _(y, weights, place):  # type: ignore[no-untyped-def]
    return y.new_empty((place.shape[0], y.shape[1]))


@torch.library.custom_op("headwise::expert_combine_backward", mutates_args=())
def _combine_backward(
    grad: Tensor, y: Tensor, weights: Tensor, place: Tensor
) -> tuple[Tensor, Tensor]:
    return combine_backward(grad, y, weights, place)


@_combine_backward.register_fake
def _(grad, y, weights, place):  # type: ignore[no-untyped-def]
    return y.new_empty(y.shape), weights.new_empty(weights.shape)


# Triton is imported at the first call with a CUDA tensor: it is optional, and nobody on a CPU pays
# for it.
def _device(y: Tensor):  # type: ignore[no-untyped-def]  # pragma: no cover - needs a GPU
    """The Triton form, the plain one where it cannot take the tensors: without Triton, or
    float64.
    """
    if y.dtype == torch.float64 or find_spec("triton") is None:
        return sys.modules[__name__]
    from . import triton as expert_combine_triton

    return expert_combine_triton


@_combine.register_kernel("cuda")
def _(y, weights, place):  # type: ignore[no-untyped-def]  # pragma: no cover
    return _device(y).combine(y, weights, place)


@_combine_backward.register_kernel("cuda")
def _(grad, y, weights, place):  # type: ignore[no-untyped-def]  # pragma: no cover
    return _device(y).combine_backward(grad, y, weights, place)


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs)


def _gradient(ctx, grad):  # type: ignore[no-untyped-def]
    return *torch.ops.headwise.expert_combine_backward(grad, *ctx.saved_tensors), None


_combine.register_autograd(_gradient, setup_context=_save)
