"""Linear layers of many experts in one operator: gather, activation, product, bias.

Shapes: T tokens, K experts of a token, S = T K pairs sorted by expert (`dispatch`), E experts, D
width of the input, F of the output, x (R, D) with R = T where rows are gathered and R = S else.

    y_s = a_s W_e^T + b_e for the rows s of expert e,   a_s = x_token(s) or act(x_s) or act(gate_s) up_s
    d a_s = g_s W_e,   d W_e = sum_s g_s a_s^T,   d b_e = sum_s g_s,   d x_t = sum of d a over t's rows, in their order

Work: 2 S D F flops each for y, d a and d W; what is kept is x alone, the activation is made again
(`gelu_linear` says what that costs). Rows of no expert (dropped, padding) give 0, and experts
without rows have gradient 0."""

from importlib.util import find_spec

import torch
from torch import Tensor

from ..dispatch import Dispatch
from ..forms import Form, triton_refused
from ..gelu_linear import match_autocast
from . import cpu as plain


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
    pairs, rows = where.order.shape[0], where.place.shape[0] if gather else where.order.shape[0]
    width = weight.shape[-1] * (2 if gated else 1)
    if (
        weight.ndim != 3
        or where.offsets.shape[0] != weight.shape[0] + 1
        or tuple(x.shape) != (rows, width)
    ):
        raise ValueError(
            f"grouped_linear: x {tuple(x.shape)} and weight {tuple(weight.shape)} do not fit {pairs} pairs of "
            f"{where.place.shape[0]} tokens and {where.offsets.shape[0] - 1} experts"
        )
    if bias is not None and bias.shape != weight.shape[:2]:
        raise ValueError(
            f"grouped_linear: bias must be {tuple(weight.shape[:2])}, got {tuple(bias.shape)}"
        )
    if activation not in plain.ACTIVATIONS:
        raise ValueError(
            f"grouped_linear: activation must be one of {plain.ACTIVATIONS}, got {activation!r}"
        )
    if gather and (gated or activation != "none"):
        raise ValueError("grouped_linear: gathers rows or activates them, not both")
    x, cast, cast_bias = match_autocast(x, weight, bias)
    assert cast is not None
    tokens, place = (where.tokens, where.place) if gather else (None, None)
    return torch.ops.headwise.grouped_linear(
        x, cast, cast_bias, where.offsets, tokens, place, activation, gated
    )


def forms(x: Tensor, weight: Tensor) -> list[Form]:
    """What can compute the products for such tensors."""
    return [
        Form("Triton kernel, gather and activation on loading", triton_refused(x, weight)),
        Form("torch.nn.functional.grouped_mm", plain.native_refused(x, weight)),
        Form("loop over experts"),
    ]


@torch.library.custom_op("headwise::grouped_linear", mutates_args=())
def _grouped(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offsets: Tensor,
    tokens: Tensor | None,
    place: Tensor | None,
    activation: str,
    gated: bool,
) -> Tensor:
    return plain.forward(x, weight, bias, offsets, tokens, activation, gated)


@_grouped.register_fake
def _(x, weight, bias, offsets, tokens, place, activation, gated):  # type: ignore[no-untyped-def]
    return x.new_empty((x.shape[0] if tokens is None else tokens.shape[0], weight.shape[1]))


@torch.library.custom_op("headwise::grouped_linear_backward", mutates_args=())
def _backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    has_bias: bool,
    offsets: Tensor,
    tokens: Tensor | None,
    place: Tensor | None,
    activation: str,
    gated: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return plain.backward(grad, x, weight, has_bias, offsets, tokens, place, activation, gated)


@_backward.register_fake
def _(grad, x, weight, has_bias, offsets, tokens, place, activation, gated):  # type: ignore[no-untyped-def]
    bias = weight.new_empty(weight.shape[:2] if has_bias else (0,))
    return x.new_empty(x.shape), weight.new_empty(weight.shape), bias


# Triton is imported at the first call with a CUDA tensor: it is optional, and nobody on a CPU pays
# for it.
def _device(x: Tensor):  # type: ignore[no-untyped-def]  # pragma: no cover - needs a GPU
    """The Triton form, the plain one where it cannot take the tensors: without Triton, or
    float64.
    """
    if x.dtype == torch.float64 or find_spec("triton") is None:
        return plain
    from . import triton as grouped_linear_triton

    return grouped_linear_triton


@_grouped.register_kernel("cuda")
def _(x, weight, bias, offsets, tokens, place, activation, gated):  # type: ignore[no-untyped-def]  # pragma: no cover
    return _device(x).forward(x, weight, bias, offsets, tokens, activation, gated)


@_backward.register_kernel("cuda")
def _(grad, x, weight, has_bias, offsets, tokens, place, activation, gated):  # type: ignore[no-untyped-def]  # pragma: no cover
    return _device(x).backward(grad, x, weight, has_bias, offsets, tokens, place, activation, gated)


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, weight, bias, offsets, tokens, place, ctx.activation, ctx.gated = inputs
    ctx.has_bias = bias is not None
    ctx.save_for_backward(x, weight, offsets, tokens, place)


def _gradient(ctx, grad):  # type: ignore[no-untyped-def]
    x, weight, offsets, tokens, place = ctx.saved_tensors
    d_x, d_weight, d_bias = torch.ops.headwise.grouped_linear_backward(
        grad, x, weight, ctx.has_bias, offsets, tokens, place, ctx.activation, ctx.gated
    )
    return d_x, d_weight, d_bias if ctx.has_bias else None, None, None, None, None, None


_grouped.register_autograd(_gradient, setup_context=_save)
