"""PyTorch form of `gelu_linear`, on any device.

Shapes: h (..., K), weight (O, K), bias (O,). R rows of h in all.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK_NUMBERS = 1 << 21  # numbers of h in a block: 8 MiB of float32


def rows_per_block(h: Tensor) -> int:
    """Rows of h (R, K) taken at a time: all of them on a GPU, and in half precision, where the sums
    of blocks would be rounded.
    """
    if not h.is_cpu or h.dtype not in (torch.float32, torch.float64):
        return max(h.shape[0], 1)
    return max(256, BLOCK_NUMBERS // max(h.shape[1], 1))


def forward(h: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(..., O)."""
    flat = h.reshape(-1, h.shape[-1])
    step = rows_per_block(flat)
    if flat.shape[0] <= step:
        return F.linear(F.gelu(h), weight, bias)
    out = h.new_empty((flat.shape[0], weight.shape[0]))
    for h_block, out_block in zip(flat.split(step), out.split(step)):
        if bias is None:
            torch.mm(F.gelu(h_block), weight.t(), out=out_block)
        else:
            torch.addmm(bias, F.gelu(h_block), weight.t(), out=out_block)
    return out.view(*h.shape[:-1], weight.shape[0])


def backward(
    grad: Tensor, h: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of h, weight and bias (empty without one)."""
    flat, flat_grad = h.reshape(-1, h.shape[-1]), grad.reshape(-1, grad.shape[-1])
    step = rows_per_block(flat)
    d_bias = weight.new_empty((0,)) if bias is None else flat_grad.sum(0)
    if flat.shape[0] <= step:
        d_weight = flat_grad.t() @ F.gelu(flat)
        d_h = torch.ops.aten.gelu_backward(flat_grad @ weight, flat)
        return d_h.view(h.shape), d_weight, d_bias
    d_weight = torch.zeros_like(weight, memory_format=torch.contiguous_format)
    d_h = torch.empty_like(flat, memory_format=torch.contiguous_format)
    for h_block, g, d_block in zip(flat.split(step), flat_grad.split(step), d_h.split(step)):
        d_weight.addmm_(g.t(), F.gelu(h_block))
        torch.ops.aten.gelu_backward.grad_input(g @ weight, h_block, grad_input=d_block)
    return d_h.view(h.shape), d_weight, d_bias
