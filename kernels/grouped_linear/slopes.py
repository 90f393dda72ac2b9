"""Gradients of what experts read: of activations, and of rows that several experts read.

Shapes: T tokens, K experts of a token, S = T K rows sorted by expert, D width of the input.
"""

import torch
from torch import Tensor


def activate_backward(
    grad: Tensor, h: Tensor, activation: str, gated: bool, out: Tensor, activated: Tensor
) -> None:
    """Write the gradient of h into out, from that of `activate`; activated: act(h), or act(gate) if
    gated.
    """
    if not gated:
        _slope(grad, h, activation, out)
        return
    gate, up = h.chunk(2, -1)
    d_gate, d_up = out.chunk(2, -1)
    _slope(grad * up, gate, activation, d_gate)
    torch.mul(grad, activated, out=d_up)


def _slope(grad: Tensor, h: Tensor, activation: str, out: Tensor) -> None:
    """Write grad times the derivative of the activation at h into out."""
    match activation:
        case "relu":
            torch.ops.aten.threshold_backward.grad_input(grad, h, 0, grad_input=out)
        case "gelu":
            torch.ops.aten.gelu_backward.grad_input(grad, h, grad_input=out)
        case "silu":
            torch.ops.aten.silu_backward.grad_input(grad, h, grad_input=out)
        case "quick_gelu":
            s = torch.sigmoid(1.702 * h)
            out.copy_(grad * (s + 1.702 * h * s * (1 - s)))
        case _:
            out.copy_(grad)


def sum_of_copies(rows: Tensor, place: Tensor, like: Tensor) -> Tensor:
    """Sum of the rows of each token, choice by choice, so that it has one order: (S, D), (T, K) ->
    (T, D).
    """
    out = torch.zeros_like(like, memory_format=torch.contiguous_format)
    for column in place.unbind(1):
        out += rows.index_select(0, column)
    return out
