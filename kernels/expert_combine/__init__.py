"""The outputs of a token's experts, weighted and summed in one fixed order.

Shapes: T tokens, K experts of a token, S = T K rows sorted by expert, D width.

    out_t = sum_k w_tk y_place(t,k);   d y_s = w_tk g_t,   d w_tk = g_t . y_place(t,k)

Work: 2 S D flops, S D numbers read; the plain composition keeps a gathered copy of y and a product,
2 S D numbers, this keeps y. Sums run over k in order, without atomic additions: two runs are equal
bit by bit."""

import torch
from torch import Tensor

from ..dispatch import Dispatch
from ..forms import Form, triton_refused
from ..precision import type_refused
from ..register import operator
from . import cpu, naive


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


def forms(y: Tensor) -> list[Form]:
    """What can compute the sums of such rows."""
    refused = triton_refused(y) or type_refused(y)
    return [Form("Triton kernel, K rows a token", refused), Form("PyTorch calls, choice by choice")]


def empty(y: Tensor, weights: Tensor, place: Tensor) -> Tensor:
    """Memory for the sums (T, D)."""
    return y.new_empty((place.shape[0], y.shape[1]))


def fits(y: Tensor) -> bool:
    """The Triton kernels sum in float32."""
    return not type_refused(y)


operator(
    "expert_combine",
    cpu.forward,
    fake=empty,
    fits=fits,
    export=naive.expert_combine,
    backward=cpu.backward,
    backward_fits=fits,
    gradients=("y", "weights"),
)
