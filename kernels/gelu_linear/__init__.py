"""Linear layer of a GELU that keeps only the input of the GELU for the backward pass.

Shapes: h (..., K), weight (O, K), bias (O,) -> (..., O). R rows in all.

    out = gelu(h) W^T + b;   dW = dout^T gelu(h);   dh = (dout W) * gelu'(h)

The plain form keeps h (for gelu') and gelu(h) (for dW): 2 R K numbers. Here gelu(h) is computed
again: about 20 flops a number against the 2 O flops of each of the two matrix products that use it,
so the price is below 1 % from O = 512 on, and R K fewer numbers are kept. On the CPU rows are taken
in blocks that stay in the cache between GELU and product."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..forms import Form
from ..precision import match_autocast
from ..register import operator
from . import cpu

# Numbers of h up to which calling an operator of our own costs more than it saves.
SMALL_NUMBERS = 1 << 19


def gelu_linear(h: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`linear(gelu(h), weight, bias)` with the exact (erf) GELU, keeping only h for the backward
    pass.

    h: (..., K); weight: (O, K); bias: (O,) or None. Returns (..., O). Follows autocast like
    `F.linear`.

    Raises ValueError if the shapes do not fit. Source: recomputation, Chen et al. arXiv 1604.06174,
    section 4."""
    bias_fits = bias is None or bias.shape == weight.shape[:1]
    if weight.ndim != 2 or h.shape[-1] != weight.shape[1] or not bias_fits:
        shapes = [None if x is None else tuple(x.shape) for x in (h, weight, bias)]
        raise ValueError("gelu_linear: h {}, weight {}, bias {} do not fit".format(*shapes))
    h, weight, bias = match_autocast(h, weight, bias)
    if not torch.compiler.is_compiling() and not _keeping_refused(h):
        return exported(h, weight, bias)
    return torch.ops.headwise.gelu_linear(h, weight, bias)


def _keeping_refused(h: Tensor) -> str:
    """Why PyTorch's own two calls, which keep gelu(h), are not taken; "" where they are."""
    if h.numel() <= SMALL_NUMBERS or (not torch.is_grad_enabled() and not h.is_cpu):
        return ""
    return "it would keep gelu(h)" if torch.is_grad_enabled() else "blocks stay in the cache"


def forms(h: Tensor) -> list[Form]:
    """What can compute the layer of such an input."""
    blocks = "all rows at once"
    if h.is_cpu and h.numel():
        rows = cpu.rows_per_block(h.reshape(-1, h.shape[-1]))
        blocks = f"blocks of {rows} rows"
    return [
        Form("PyTorch's gelu and linear", _keeping_refused(h)),
        Form(f"gelu again in the backward pass, {blocks}"),
    ]


def exported(h: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """PyTorch's own operators: for small inputs and for exported programs."""
    return F.linear(F.gelu(h), weight, bias)


def empty(h: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Memory for the result (..., O)."""
    return h.new_empty((*h.shape[:-1], weight.shape[0]))


operator(
    "gelu_linear",
    cpu.forward,
    fake=empty,
    export=exported,
    backward=cpu.backward,
    gradients=("h", "weight", "bias"),
)
