"""Linear layers of many experts in one operator: gather, activation, product, bias.

Shapes: T tokens, K experts of a token, S = T K pairs sorted by expert (`dispatch`), E experts, D
width of the input, F of the output, x (R, D) with R = T where rows are gathered and R = S else.

    y_s = a_s W_e^T + b_e for the rows s of expert e,
    a_s = x_token(s) or act(x_s) or act(gate_s) up_s
    d a_s = g_s W_e,   d W_e = sum_s g_s a_s^T,   d b_e = sum_s g_s,
    d x_t = sum of d a over t's rows, in their order

Work: 2 S D F flops each for y, d a and d W; only x is kept, the activation is computed again
(`gelu_linear` says what that costs). Rows of no expert (dropped, padding) give 0, and experts
without rows have gradient 0."""

import torch
from torch import Tensor

from ..dispatch import Dispatch
from ..forms import Form, triton_refused
from ..precision import match_autocast
from ..register import operator
from . import cpu, naive, native


def grouped_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    where: Dispatch,
    *,
    gather: bool = False,
    activation: str = "none",
    gated: bool = False,
) -> Tensor:
    """Each row through the linear layer of its expert: -> (S, F).

    x: (T, D) if gather, else (S, D), or (S, 2 D) if gated: gate and up side by side; weight: (E, F,
    D); bias: (E, F) or None; activation: "none", "relu", "gelu", "quick_gelu" or "silu", of x.
    Follows autocast like `F.linear`.

    Raises ValueError if shapes or names do not fit.
    """
    # Sizes by shape, not by len(), which would fix the batch of an exported program.
    pairs, token_count = where.order.shape[0], where.place.shape[0]
    experts = where.offsets.shape[0] - 1
    shape = token_count if gather else pairs, weight.shape[-1] * (2 if gated else 1)
    if weight.ndim != 3 or weight.shape[0] != experts or tuple(x.shape) != shape:
        raise ValueError(
            f"grouped_linear: x {tuple(x.shape)} and weight {tuple(weight.shape)} do not fit "
            f"{pairs} pairs of {token_count} tokens and {experts} experts"
        )
    if bias is not None and bias.shape != weight.shape[:2]:
        raise ValueError(
            f"grouped_linear: bias must be {tuple(weight.shape[:2])}, got {tuple(bias.shape)}"
        )
    if activation not in naive.ACTIVATIONS:
        raise ValueError(
            f"grouped_linear: activation must be one of {naive.ACTIVATIONS}, got {activation!r}"
        )
    if gather and (gated or activation != "none"):
        raise ValueError("grouped_linear: gathers rows or activates them, not both")
    operands = match_autocast(x, weight, bias)
    tokens, place = (where.tokens, where.place) if gather else (None, None)
    return torch.ops.headwise.grouped_linear(
        *operands, where.offsets, tokens, place, activation, gated
    )


def forms(x: Tensor, weight: Tensor, rows: int | None = None) -> list[Form]:
    """What can compute the products for such tensors; rows: S, by default those of x."""
    rows = x.shape[0] if rows is None else rows
    float64 = "float64" if x.dtype == torch.float64 else ""
    return [
        Form("torch.nn.functional.grouped_mm", native.refused(x, weight, rows)),
        Form(
            "Triton kernel, gather and activation on loading", triton_refused(x, weight) or float64
        ),
        Form("loop over experts"),
    ]


def empty(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offsets: Tensor,
    tokens: Tensor | None,
    place: Tensor | None,
    activation: str,
    gated: bool,
) -> Tensor:
    """Memory for the result (S, F)."""
    return x.new_empty((x.shape[0] if tokens is None else tokens.shape[0], weight.shape[1]))


def fits(x: Tensor, weight: Tensor, tokens: Tensor | None) -> bool:
    """Whether the Triton kernels, which sum in float32, come before `grouped_mm`."""
    rows = x.shape[0] if tokens is None else tokens.shape[0]
    return x.dtype != torch.float64 and (x.is_cpu or bool(native.refused(x, weight, rows)))


operator(
    "grouped_linear",
    cpu.forward,
    fake=empty,
    fits=fits,
    export=naive.grouped_linear,
    backward=cpu.backward,
    backward_fits=fits,
    gradients=("x", "weight", "bias"),
)
