"""Scores of gated attention: which instances of a bag count, without the two gates in memory.

Shapes: M instances of all bags, H width, A width of the gates, K branches.

    v = tanh(h Wv^T + bv),  u = sigmoid(h Wu^T + bu),  scores = (v * u) Wa^T + ba        (M, K)

With softmax_pool(scores, h, per="head") this is the gated attention pooling of ABMIL (Ilse et al.,
arXiv 1802.04712, equation 9) and of ACMIL (arXiv 2311.07125), all branches at once.

Work: 4 M H A flops; M H numbers read, M K written. Written plainly, autograd keeps v, u and v * u,
3 M A numbers; here nothing is kept but h, and the backward pass forms the gates again, 4 M H A
flops beside the 8 M H A that it needs. On the CPU rows are taken in blocks, so that gates and their
gradients stay in the cache."""

from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

from ..gelu_linear import match_autocast
from ..softmax_pool.cpu import compute_type

BLOCK = 2048  # rows whose gates are in the cache together


def gated_scores(
    h: Tensor, weight: Tensor, bias: Tensor, out_weight: Tensor, out_bias: Tensor
) -> Tensor:
    """`linear(tanh(linear(h, Wv, bv)) * sigmoid(linear(h, Wu, bu)), out_weight, out_bias)`, keeping
    only h.

    h: (M, H); weight: (2 A, H), rows Wv then Wu; bias: (2 A,); out_weight: (K, A); out_bias: (K,).
    Returns (M, K). Follows autocast like `F.linear`.

    Raises ValueError if the shapes do not fit.
    """
    branches, inner = out_weight.shape if out_weight.ndim == 2 else (-1, -1)
    fit = h.ndim == 2 and weight.shape == (2 * inner, h.shape[-1]) and bias.shape == (2 * inner,)
    if not fit or out_bias.shape != (branches,):
        shapes = ", ".join(str(tuple(x.shape)) for x in (h, weight, bias, out_weight, out_bias))
        raise ValueError(
            f"gated_scores: h, weight, bias, out_weight, out_bias do not fit: {shapes}"
        )
    return torch.ops.headwise.gated_scores(*match_autocast(h, weight, bias, out_weight, out_bias))


def gates(h: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """(v, u), each (M, A), in the type of the sums."""
    z = torch.nn.functional.linear(h, weight, bias).to(compute_type(h))
    inner = weight.shape[0] // 2
    return z[:, :inner].tanh(), z[:, inner:].sigmoid()


def scores_plain(
    h: Tensor, weight: Tensor, bias: Tensor, out_weight: Tensor, out_bias: Tensor
) -> Tensor:
    """The formula, all rows at once: the form of an exported program."""
    v, u = gates(h, weight, bias)
    return torch.nn.functional.linear((v * u).to(h.dtype), out_weight, out_bias)


def forward_plain(
    h: Tensor, weight: Tensor, bias: Tensor, out_weight: Tensor, out_bias: Tensor
) -> Tensor:
    """Block by block."""
    out = h.new_empty((h.shape[0], out_weight.shape[0]))
    for start in range(0, h.shape[0], BLOCK):
        rows = slice(start, start + BLOCK)
        out[rows] = scores_plain(h[rows], weight, bias, out_weight, out_bias)
    return out


def backward_plain(
    grad: Tensor, h: Tensor, weight: Tensor, bias: Tensor, out_weight: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of h, weight, bias, out_weight and out_bias, sums over rows in the type of the
    sums.
    """
    kind = compute_type(h)
    d_h = torch.empty_like(h, memory_format=torch.contiguous_format)
    d_weight, d_bias = (
        weight.new_zeros(weight.shape, dtype=kind),
        bias.new_zeros(bias.shape, dtype=kind),
    )
    d_out = out_weight.new_zeros(out_weight.shape, dtype=kind)
    inner = out_weight.shape[1]
    for start in range(0, h.shape[0], BLOCK):
        rows = slice(start, start + BLOCK)
        g, part = grad[rows].to(kind), h[rows]
        v, u = gates(part, weight, bias)
        gated = v * u
        d_out.addmm_(g.t(), gated)
        d_gated = g @ out_weight.to(kind)
        d_z = v.new_empty((v.shape[0], 2 * inner))
        # d tanh = 1 - v^2, d sigmoid = u (1 - u)
        torch.mul(d_gated, u.addcmul(gated, v, value=-1.0), out=d_z[:, :inner])
        torch.mul(d_gated, gated.addcmul_(gated, u, value=-1.0), out=d_z[:, inner:])
        d_bias += d_z.sum(0)
        d_z = d_z.to(h.dtype)
        d_weight += (d_z.t() @ part).to(kind)
        torch.mm(d_z, weight, out=d_h[rows])
    return (
        d_h,
        d_weight.to(weight.dtype),
        d_bias.to(bias.dtype),
        d_out.to(out_weight.dtype),
        grad.sum(0),
    )


@torch.library.custom_op("headwise::gated_scores", mutates_args=())
def _scores(
    h: Tensor, weight: Tensor, bias: Tensor, out_weight: Tensor, out_bias: Tensor
) -> Tensor:
    return forward_plain(h, weight, bias, out_weight, out_bias)


@_scores.register_fake
def _(h: Tensor, weight: Tensor, bias: Tensor, out_weight: Tensor, out_bias: Tensor) -> Tensor:
    return h.new_empty((h.shape[0], out_weight.shape[0]))


@torch.library.custom_op("headwise::gated_scores_backward", mutates_args=())
def _scores_backward(
    grad: Tensor, h: Tensor, weight: Tensor, bias: Tensor, out_weight: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return backward_plain(grad, h, weight, bias, out_weight)


@_scores_backward.register_fake
def _(
    grad: Tensor, h: Tensor, weight: Tensor, bias: Tensor, out_weight: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    d_h = torch.empty_like(h, memory_format=torch.contiguous_format)
    return (
        d_h,
        torch.empty_like(weight),
        torch.empty_like(bias),
        torch.empty_like(out_weight),
        grad.new_empty(grad.shape[1]),
    )


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs[:4])


def _gradient(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
    return torch.ops.headwise.gated_scores_backward(grad.contiguous(), *ctx.saved_tensors)


_scores.register_autograd(_gradient, setup_context=_save)


def triton_form(h: Tensor) -> ModuleType | None:  # pragma: no cover - asked only with a CUDA tensor
    """The Triton kernels, or None where they cannot run."""
    if h.dtype == torch.float64 or find_spec("triton") is None:
        return None
    from . import triton as gated_scores_triton

    return gated_scores_triton


@_scores.register_kernel("cuda")
def _(h, *weights):  # type: ignore[no-untyped-def]  # pragma: no cover - needs a GPU
    form = triton_form(h)
    return form.forward(h, *weights) if form else forward_plain(h, *weights)


@_scores_backward.register_kernel("cuda")
def _(grad, h, *weights):  # type: ignore[no-untyped-def]  # pragma: no cover - needs a GPU
    form = triton_form(h)
    return form.backward(grad, h, *weights) if form else backward_plain(grad, h, *weights)
