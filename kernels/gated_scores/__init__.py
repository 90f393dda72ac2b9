"""Scores of gated attention: which instances of a bag count, without the two gates in memory.

Shapes: M instances of all bags, H width, A width of the gates, K branches.

    v = tanh(h Wv^T + bv),  u = sigmoid(h Wu^T + bu),  scores = (v * u) Wa^T + ba        (M, K)

With softmax_pool(scores, h, per="head") this is the gated attention pooling of ABMIL (Ilse et al.,
arXiv 1802.04712, equation 9) and of ACMIL (arXiv 2311.07125), all branches at once.

Work: 4 M H A flops; M H numbers read, M K written. Written plainly, autograd keeps v, u and v * u,
3 M A numbers; here nothing is kept but h, and the backward pass forms the gates again, 4 M H A
flops in addition to the 8 M H A that it needs. On the CPU rows are taken in blocks, so that gates
and their gradients stay in the cache."""

import torch
from torch import Tensor

from ..forms import Form, triton_refused
from ..precision import match_autocast, type_refused
from ..register import operator
from . import cpu, naive


def gated_scores(
    h: Tensor, weight: Tensor, bias: Tensor, out_weight: Tensor, out_bias: Tensor
) -> Tensor:
    """`linear(tanh(linear(h, Wv, bv)) * sigmoid(linear(h, Wu, bu)), out_weight, out_bias)`, keeping
    only h.

    h: (M, H); weight: (2 A, H), rows Wv then Wu; bias: (2 A,); out_weight: (K, A); out_bias: (K,).
    Returns (M, K). Follows autocast like `F.linear`.

    Raises ValueError if the shapes do not fit.
    """
    operands = h, weight, bias, out_weight, out_bias
    branches, inner = out_weight.shape if out_weight.ndim == 2 else (-1, -1)
    fit = h.ndim == 2 and weight.shape == (2 * inner, h.shape[-1]) and bias.shape == (2 * inner,)
    if not fit or out_bias.shape != (branches,):
        shapes = ", ".join(str(tuple(x.shape)) for x in operands)
        raise ValueError(
            f"gated_scores: h, weight, bias, out_weight, out_bias do not fit: {shapes}"
        )
    return torch.ops.headwise.gated_scores(*match_autocast(*operands))


def forms(h: Tensor, weight: Tensor) -> list[Form]:
    """What can compute the scores of such instances."""
    refused = triton_refused(h, weight) or type_refused(h)
    return [
        Form("torch's product, then gates and scores in one Triton pass", refused),
        Form("PyTorch calls, by blocks of rows"),
    ]


def empty(h: Tensor, weight: Tensor, bias: Tensor, out_weight: Tensor, out_bias: Tensor) -> Tensor:
    """Memory for the scores (M, K)."""
    return h.new_empty((h.shape[0], out_weight.shape[0]))


def fits(h: Tensor) -> bool:
    """The Triton kernels sum in float32."""
    return not type_refused(h)


operator(
    "gated_scores",
    cpu.forward,
    fake=empty,
    fits=fits,
    export=naive.gated_scores,
    backward=cpu.backward,
    backward_fits=fits,
    gradients=("h", "weight", "bias", "out_weight", "out_bias"),
)
