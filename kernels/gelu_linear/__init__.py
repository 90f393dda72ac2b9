"""Linear layer of a GELU that keeps only the input of the GELU for the backward pass.

Shapes: h (..., K), weight (O, K), bias (O,) -> (..., O). R rows in all.

    out = gelu(h) W^T + b;   dW = dout^T gelu(h);   dh = (dout W) * gelu'(h)

The plain form keeps h (for gelu') and gelu(h) (for dW): 2 R K numbers. Here gelu(h) is computed
again: ~20 flops a number against the 2 O flops of each of the two matrix products that use it, so
the price is below 1 % from O = 512 on, and R K numbers less are kept. On the CPU rows are taken in
blocks that stay in the cache between GELU and product."""

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK_NUMBERS = 1 << 21  # numbers of h in a block: 8 MiB of float32
SMALL_NUMBERS = (
    1 << 19
)  # numbers of h up to which calling an operator of our own costs more than it saves


def match_autocast(x: Tensor, *others: Tensor | None) -> tuple[Tensor, *tuple[Tensor | None, ...]]:
    """Cast as autocast would cast the operands of a linear layer; without autocast, return them as
    they are.
    """
    if not torch.is_autocast_enabled(x.device.type) or x.dtype == torch.float64:
        return x, *others
    dtype = torch.get_autocast_dtype(x.device.type)
    return x.to(dtype), *(None if other is None else other.to(dtype) for other in others)


def gelu_linear(h: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`linear(gelu(h), weight, bias)` with the exact (erf) GELU, keeping only h for the backward
    pass.

    h: (..., K); weight: (O, K); bias: (O,) or None. Returns (..., O). Follows autocast like
    `F.linear`.

    Raises ValueError if the shapes do not fit. Source: recomputation, Chen et al. arXiv 1604.06174,
    section 4."""
    if (
        weight.ndim != 2
        or h.shape[-1] != weight.shape[1]
        or (bias is not None and bias.shape != weight.shape[:1])
    ):
        given = None if bias is None else tuple(bias.shape)
        raise ValueError(
            f"gelu_linear: h {tuple(h.shape)}, weight {tuple(weight.shape)}, bias {given} do not fit"
        )
    cast, cast_weight, cast_bias = match_autocast(h, weight, bias)
    assert cast_weight is not None
    if not torch.compiler.is_compiling() and (
        h.numel() <= SMALL_NUMBERS or (not torch.is_grad_enabled() and not h.is_cpu)
    ):
        return F.linear(F.gelu(cast), cast_weight, cast_bias)
    return torch.ops.headwise.gelu_linear(cast, cast_weight, cast_bias)


def blocks(h: Tensor) -> int:
    """Rows of h (R, K) taken at a time: all on a GPU, and in half precision, where sums of blocks
    would be rounded.
    """
    if not h.is_cpu or h.dtype not in (torch.float32, torch.float64):
        return max(h.shape[0], 1)
    return max(256, BLOCK_NUMBERS // max(h.shape[1], 1))


@torch.library.custom_op("headwise::gelu_linear", mutates_args=())
def _gelu_linear(h: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    flat = h.reshape(-1, h.shape[-1])
    step = blocks(flat)
    if flat.shape[0] <= step:
        return F.linear(F.gelu(h), weight, bias)
    out = h.new_empty((flat.shape[0], weight.shape[0]))
    for part, target in zip(flat.split(step), out.split(step)):
        if bias is None:
            torch.mm(F.gelu(part), weight.t(), out=target)
        else:
            torch.addmm(bias, F.gelu(part), weight.t(), out=target)
    return out.view(*h.shape[:-1], weight.shape[0])


@_gelu_linear.register_fake
def _(h: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return h.new_empty((*h.shape[:-1], weight.shape[0]))


@torch.library.custom_op("headwise::gelu_linear_backward", mutates_args=())
def _backward(grad: Tensor, h: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    flat = h.reshape(-1, h.shape[-1])
    flat_grad = grad.reshape(-1, grad.shape[-1])
    step = blocks(flat)
    d_bias = flat_grad.sum(0)
    if flat.shape[0] <= step:
        d_weight = flat_grad.t() @ F.gelu(flat)
        d_h = torch.ops.aten.gelu_backward(flat_grad @ weight, flat)
        return d_h.view(h.shape), d_weight, d_bias
    d_weight = torch.zeros_like(weight, memory_format=torch.contiguous_format)
    d_h = torch.empty_like(flat, memory_format=torch.contiguous_format)
    for part, g, target in zip(flat.split(step), flat_grad.split(step), d_h.split(step)):
        d_weight.addmm_(g.t(), F.gelu(part))
        torch.ops.aten.gelu_backward.grad_input(g @ weight, part, grad_input=target)
    return d_h.view(h.shape), d_weight, d_bias


@_backward.register_fake
def _(grad: Tensor, h: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return h.new_empty(h.shape), weight.new_empty(weight.shape), weight.new_empty(weight.shape[:1])


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    h, weight, bias = inputs
    ctx.has_bias = bias is not None
    ctx.save_for_backward(h, weight)


def _gradient(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
    d_h, d_weight, d_bias = torch.ops.headwise.gelu_linear_backward(grad, *ctx.saved_tensors)
    return d_h, d_weight, d_bias if ctx.has_bias else None


_gelu_linear.register_autograd(_gradient, setup_context=_save)
