"""Plain PyTorch form of the linear layers of many experts.

Shapes: S rows sorted by expert, E experts, D width of the input, F of the output.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from .naive import activate, input_rows


def native_refused(x: Tensor, weight: Tensor) -> str:
    """Why `torch.nn.functional.grouped_mm` is not taken for these tensors; "" where it is."""
    if x.device.type == "cpu" and x.shape[0] >= 128 * weight.shape[0]:
        return (
            "on the CPU it is a loop; with 128 rows per expert ours is faster, "
            "as it activates them in the cache"
        )
    if not hasattr(F, "grouped_mm"):
        return "this PyTorch has no grouped_mm"
    if x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"no grouped_mm in {x.dtype}"
    if any(size * x.element_size() % 16 for size in weight.shape[1:]):
        sizes = f"{weight.shape[1]} and {weight.shape[2]}"
        return f"rows of {sizes} numbers are no multiples of 16 bytes"
    if weight.data_ptr() % 16 or not weight.is_contiguous():
        return "the weights are not contiguous"
    return ""


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


def native(
    x: Tensor, weight: Tensor, bias: Tensor | None, offsets: Tensor, transposed: bool = False
) -> Tensor:
    """x_s W_e^T + b_e for the rows s of each expert e by grouped_mm, 0 for rows of none;
    transposed: x_s W_e.
    """
    out = F.grouped_mm(
        x.contiguous(), weight if transposed else weight.transpose(1, 2), offs=offsets[1:]
    )
    ends = offsets.tolist()
    out[ends[-1] :] = 0.0  # not written by every form of grouped_mm
    if bias is not None:
        for e, (a, b) in enumerate(pairwise(ends)):
            out[a:b] += bias[e]
    return out


def sum_of_copies(rows: Tensor, place: Tensor, like: Tensor) -> Tensor:
    """Sum of the rows of each token, choice by choice, so that it has one order: (S, D), (T, K) ->
    (T, D).
    """
    out = torch.zeros_like(like, memory_format=torch.contiguous_format)
    for column in place.unbind(1):
        out += rows.index_select(0, column)
    return out


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offsets: Tensor,
    tokens: Tensor | None,
    place: Tensor | None,
    activation: str,
    gated: bool,
) -> Tensor:
    """See `grouped_linear`: (S, F)."""
    pairs = x.shape[0] if tokens is None else tokens.shape[0]
    if pairs and not native_refused(x, weight):
        return native(input_rows(x, tokens, activation, gated), weight, bias, offsets)
    out, ends = x.new_empty((pairs, weight.shape[1])), offsets.tolist()
    out[ends[-1] :] = 0.0
    # Expert by expert, so that what is gathered or activated is used while it is in the cache.
    for e, (a, b) in enumerate(pairwise(ends)):
        if tokens is None:
            rows = activate(x[a:b], activation, gated)
        else:
            rows = x.index_select(0, tokens[a:b])
        if bias is None:
            torch.mm(rows, weight[e].t(), out=out[a:b])
        else:
            torch.addmm(bias[e], rows, weight[e].t(), out=out[a:b])
    return out


def backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offsets: Tensor,
    tokens: Tensor | None,
    place: Tensor | None,
    activation: str,
    gated: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias (empty without one)."""
    grad, ends = grad.contiguous(), offsets.tolist()
    d_weight = torch.empty_like(weight, memory_format=torch.contiguous_format)
    d_bias = weight.new_empty((0,) if bias is None else bias.shape)
    # The gradient of all input rows: by one call, expert by expert below, or, where the rows were
    # activated, as part of the gradient of x.
    at_once = not native_refused(x, weight) and grad.shape[0] > 0
    d_rows = native(grad, weight, None, offsets, transposed=True) if at_once else None
    if tokens is not None and d_rows is None:
        d_rows = x.new_empty((grad.shape[0], weight.shape[2]))
        d_rows[ends[-1] :] = 0.0
    d_x = torch.empty_like(x, memory_format=torch.contiguous_format) if tokens is None else None
    if d_x is not None:
        d_x[ends[-1] :] = 0.0
    for e, (a, b) in enumerate(pairwise(ends)):
        g = grad[a:b]
        if bias is not None:
            torch.sum(g, 0, out=d_bias[e])
        if a == b:
            d_weight[e].zero_()
        elif d_x is None:
            assert tokens is not None
            assert d_rows is not None
            torch.mm(g.t(), x.index_select(0, tokens[a:b]), out=d_weight[e])
            if not at_once:
                torch.mm(g, weight[e], out=d_rows[a:b])
        else:
            h = x[a:b]
            gate, up = h.chunk(2, -1) if gated else (h, None)
            activated = activate(gate, activation, False)
            torch.mm(g.t(), activated if up is None else activated * up, out=d_weight[e])
            d_a = g @ weight[e] if d_rows is None else d_rows[a:b]
            activate_backward(d_a, h, activation, gated, d_x[a:b], activated)
    if d_x is None:
        assert place is not None
        assert d_rows is not None
        d_x = sum_of_copies(d_rows, place, x)
    return d_x, d_weight, d_bias
