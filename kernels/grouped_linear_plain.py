"""Plain PyTorch form of the linear layers of many experts.

Shapes: S rows sorted by expert, E experts, D width of the input, F of the output.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

ACTIVATIONS = ("none", "relu", "gelu", "quick_gelu", "silu")


def native_refused(x: Tensor, weight: Tensor) -> str:
    """Why `torch.nn.functional.grouped_mm` cannot take these tensors; "" where it can."""
    if not hasattr(F, "grouped_mm"):
        return "this PyTorch has no grouped_mm"
    if x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"no grouped_mm in {x.dtype}"
    if any(size * x.element_size() % 16 for size in weight.shape[1:]):
        return f"rows of {weight.shape[1]} and {weight.shape[2]} numbers are no multiples of 16 bytes"
    if weight.data_ptr() % 16 or not weight.is_contiguous():
        return "the weights are not contiguous"
    return ""


def activate(h: Tensor, activation: str, gated: bool) -> Tensor:
    """act(h), or act(gate) * up of the two halves of h."""
    first, other = h.chunk(2, -1) if gated else (h, None)
    match activation:
        case "relu":
            first = F.relu(first)
        case "gelu":
            first = F.gelu(first)
        case "quick_gelu":
            first = first * torch.sigmoid(1.702 * first)
        case "silu":
            first = F.silu(first)
    return first if other is None else first * other


def activate_backward(grad: Tensor, h: Tensor, activation: str, gated: bool) -> Tensor:
    """Gradient of h from that of `activate`."""
    if not gated:
        return _slope(grad, h, activation)
    gate, up = h.chunk(2, -1)
    return torch.cat([_slope(grad * up, gate, activation), grad * activate(gate, activation, False)], -1)


def _slope(grad: Tensor, h: Tensor, activation: str) -> Tensor:
    match activation:
        case "relu":
            return torch.ops.aten.threshold_backward(grad, h, 0)
        case "gelu":
            return torch.ops.aten.gelu_backward(grad, h)
        case "quick_gelu":
            s = torch.sigmoid(1.702 * h)
            return grad * (s + 1.702 * h * s * (1 - s))
        case "silu":
            return torch.ops.aten.silu_backward(grad, h)
    return grad


def product(x: Tensor, weight: Tensor, bias: Tensor | None, offsets: Tensor, transposed: bool = False) -> Tensor:
    """x_s W_e^T + b_e for the rows s of each expert e, 0 for rows of none: (S, D), (E, F, D), (E, F) -> (S, F).

    transposed: x_s W_e instead, (S, F) -> (S, D).
    """
    layout = weight if transposed else weight.transpose(1, 2)
    if not native_refused(x, weight) and x.shape[0] and x.is_contiguous():
        out = F.grouped_mm(x, layout, offs=offsets[1:])
        ends = offsets.tolist()
        out[ends[-1] :] = 0.0  # not written by every form of grouped_mm
    else:
        out, ends = x.new_zeros((x.shape[0], layout.shape[2])), offsets.tolist()
        for e in range(len(weight)):
            torch.mm(x[ends[e] : ends[e + 1]], layout[e], out=out[ends[e] : ends[e + 1]])
    if bias is not None:
        for e in range(len(weight)):
            out[ends[e] : ends[e + 1]] += bias[e]
    return out


def weight_gradient(grad: Tensor, x: Tensor, offsets: Tensor, like: Tensor) -> Tensor:
    """sum_s grad_s x_s^T over the rows of each expert: (S, F), (S, D) -> (E, F, D); 0 for an expert without rows."""
    ends, out = offsets.tolist(), torch.empty_like(like, memory_format=torch.contiguous_format)
    for e in range(len(out)):
        if ends[e] == ends[e + 1]:
            out[e].zero_()
        else:
            torch.mm(grad[ends[e] : ends[e + 1]].t(), x[ends[e] : ends[e + 1]], out=out[e])
    return out


def bias_gradient(grad: Tensor, offsets: Tensor) -> Tensor:
    """Sum of the rows of each expert: (S, F) -> (E, F)."""
    ends = offsets.tolist()
    return torch.stack([grad[a:b].sum(0) for a, b in pairwise(ends)])


def gathered(x: Tensor, tokens: Tensor | None, activation: str, gated: bool) -> Tensor:
    """The rows that the experts read."""
    return activate(x, activation, gated) if tokens is None else x[tokens]


def sum_of_copies(rows: Tensor, place: Tensor, like: Tensor) -> Tensor:
    """Sum of the rows of each token, choice by choice, so that it has one order: (S, D), (T, K) -> (T, D)."""
    out = torch.zeros_like(like, memory_format=torch.contiguous_format)
    for column in place.unbind(1):
        out += rows[column]
    return out


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, offsets: Tensor, tokens: Tensor | None, activation: str, gated: bool
) -> Tensor:
    """See `grouped_linear`."""
    return product(gathered(x, tokens, activation, gated), weight, bias, offsets)


def backward(
    grad: Tensor, x: Tensor, weight: Tensor, has_bias: bool, offsets: Tensor, tokens: Tensor | None,
    place: Tensor | None, activation: str, gated: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x, weight and bias (empty without one)."""
    grad = grad.contiguous()
    rows = gathered(x, tokens, activation, gated)
    d_weight = weight_gradient(grad, rows, offsets, weight)
    d_bias = bias_gradient(grad, offsets) if has_bias else weight.new_empty(0)
    d_rows = product(grad, weight, None, offsets, transposed=True)
    if place is None:
        return activate_backward(d_rows, x, activation, gated), d_weight, d_bias
    return sum_of_copies(d_rows, place, x), d_weight, d_bias
