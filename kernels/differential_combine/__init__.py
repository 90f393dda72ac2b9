"""End of differential attention: signal heads minus the noise head of their group, normalised head
by head.

Shapes: B batch, N tokens, T = B N rows, S signal heads, R noise heads (R divides S), G = S / R, W
width of a head.

    y_i = a_i - lambda b_{i // G};   out_i = scale * weight * y_i / sqrt(mean(y_i^2) + eps)      (weight None: out = y)
    d y = r (g - y r^2 mean(g y)), g = scale weight d out, r = 1 / sqrt(mean(y^2) + eps)
    d a_i = d y_i;   d b_j = -lambda sum_{i in j} d y_i;   d lambda = -sum b d y;   d weight = scale sum d out y r

Work: (S + R) W numbers read and S W written a row, ~8 flops a number: limited by memory. The plain
chain of repeat, product, difference, norm and scale moves about 5 S W numbers more and keeps three
of them for the backward pass; here only the inputs and r (one number a head) are kept. On the CPU
rows are taken in blocks that stay in the cache."""

from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

BLOCK_NUMBERS = 1 << 17  # numbers of a block of rows: 512 KiB of float32


def differential_combine(
    mixed: Tensor,
    lam: Tensor,
    weight: Tensor | None = None,
    *,
    signal: int,
    eps: float = 1e-5,
    scale: float = 1.0,
) -> Tensor:
    """Signal heads minus lam times the noise head of their group, then RMS norm of each head and
    scale.

    mixed: (B, S + R, N, W), outputs of the attention heads, the S = signal heads first; lam: ();
    weight: (W,) of the norm, None for neither norm nor scale. Returns (B, N, S W), the heads
    joined.

    Raises ValueError if the shapes do not fit. Source: Differential Transformer, arXiv 2410.05258,
    equations 1 and 3; groups: arXiv 2510.06949."""
    noise = mixed.shape[1] - signal if mixed.ndim == 4 else 0
    if noise < 1 or signal < 1 or signal % noise:
        raise ValueError(
            f"differential_combine: mixed must be (batch, {signal} + noise heads, tokens, width) with noise heads "
            f"dividing {signal}, got {tuple(mixed.shape)}"
        )
    if lam.ndim or (weight is not None and weight.shape != mixed.shape[-1:]):
        given = None if weight is None else tuple(weight.shape)
        raise ValueError(
            f"differential_combine: lam must be one number and weight ({mixed.shape[-1]},), "
            f"got {tuple(lam.shape)} and {given}"
        )
    # PyTorch's fused attention writes (B, N, heads, W) in memory, so that this is a view of it.
    rows = mixed.transpose(1, 2).flatten(0, 1)
    out = torch.ops.headwise.differential_combine(rows, lam, weight, signal, eps, scale)[0]
    return out.view(mixed.shape[0], mixed.shape[2], signal * mixed.shape[3])


def compute_type(x: Tensor) -> torch.dtype:
    """Half precision is computed in float32."""
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


def difference(rows: Tensor, lam: Tensor, signal: int) -> tuple[Tensor, Tensor]:
    """y (t, R, G, W) and the noise heads (t, R, W) of some rows (t, S + R, W), in the type of the
    sums.
    """
    kind = compute_type(rows)
    a, b = rows[:, :signal].to(kind), rows[:, signal:].to(kind)
    return a.unflatten(1, (b.shape[1], -1)) - lam.to(kind) * b[:, :, None], b


def combine(
    rows: Tensor, lam: Tensor, weight: Tensor | None, signal: int, eps: float, scale: float
) -> tuple[Tensor, Tensor]:
    """(out (T, S, W), r (T, S)) of rows (T, S + R, W); r is empty without a norm."""
    kind, (count, _, width) = compute_type(rows), rows.shape
    out = rows.new_empty((count, signal, width))
    rstd = rows.new_empty((0,) if weight is None else (count, signal), dtype=kind)
    step = max(1, BLOCK_NUMBERS // max(rows[:1].numel(), 1))
    for first in range(0, count, step):
        place = slice(first, first + step)
        y = difference(rows[place], lam, signal)[0].flatten(1, 2)
        if weight is not None:
            r = torch.linalg.vector_norm(y, dim=-1).square_().div_(width).add_(eps).rsqrt_()
            rstd[place] = r
            y.mul_(r[..., None]).mul_(weight.to(kind) * scale)
        out[place] = y
    return out, rstd


def combine_backward(
    grad: Tensor,
    rows: Tensor,
    lam: Tensor,
    weight: Tensor | None,
    rstd: Tensor,
    signal: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of rows, lam () and weight (W,), the latter empty without a norm."""
    kind, (count, _, width) = compute_type(rows), rows.shape
    d_rows = rows.new_empty(rows.shape)
    d_lam = torch.zeros((), dtype=kind, device=rows.device)
    d_weight = rows.new_zeros((0,) if weight is None else (width,), dtype=kind)
    step = max(1, BLOCK_NUMBERS // max(rows[:1].numel(), 1))
    for first in range(0, count, step):
        place = slice(first, first + step)
        y, b = difference(rows[place], lam, signal)
        g = grad[place].to(kind).view(y.shape)
        if weight is not None:
            r = rstd[place].view(*y.shape[:-1], 1)
            unit = y.mul_(r)
            d_weight += torch.einsum("trgw,trgw->w", g, unit)
            g = g * (weight.to(kind) * scale)
            g = torch.addcmul(g, unit, (g * unit).mean(-1, keepdim=True), value=-1).mul_(r)
        summed = g.sum(2)
        d_lam -= (summed * b).sum()
        d_rows[place, :signal] = g.flatten(1, 2)
        d_rows[place, signal:] = summed.mul_(-lam.to(kind))
    return d_rows, d_lam, d_weight.mul_(scale)


def triton_form(
    rows: Tensor,
) -> ModuleType | None:  # pragma: no cover - asked only with a CUDA tensor
    """The Triton kernels, or None where Triton is not installed or the type is not for them."""
    if find_spec("triton") is None or rows.dtype == torch.float64:
        return None
    from . import triton as differential_combine_triton

    return differential_combine_triton


@torch.library.custom_op("headwise::differential_combine", mutates_args=())
def _combine(
    rows: Tensor, lam: Tensor, weight: Tensor | None, signal: int, eps: float, scale: float
) -> tuple[Tensor, Tensor]:
    return combine(rows, lam, weight, signal, eps, scale)


@_combine.register_fake
def _(
    rows: Tensor, lam: Tensor, weight: Tensor | None, signal: int, eps: float, scale: float
) -> tuple[Tensor, Tensor]:
    count, _, width = rows.shape
    rstd = rows.new_empty((0,) if weight is None else (count, signal), dtype=compute_type(rows))
    return rows.new_empty((count, signal, width)), rstd


@torch.library.custom_op("headwise::differential_combine_backward", mutates_args=())
def _combine_backward(
    grad: Tensor,
    rows: Tensor,
    lam: Tensor,
    weight: Tensor | None,
    rstd: Tensor,
    signal: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return combine_backward(grad.contiguous(), rows, lam, weight, rstd, signal, scale)


@_combine_backward.register_fake
def _(
    grad: Tensor,
    rows: Tensor,
    lam: Tensor,
    weight: Tensor | None,
    rstd: Tensor,
    signal: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    kind = compute_type(rows)
    d_weight = rows.new_empty((0,) if weight is None else (rows.shape[-1],), dtype=kind)
    return rows.new_empty(rows.shape), rows.new_empty((), dtype=kind), d_weight


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    rows, lam, weight, ctx.signal, _, ctx.scale = inputs
    ctx.save_for_backward(rows, lam, weight, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _gradient(ctx, grad: Tensor | None, _: Tensor | None):  # type: ignore[no-untyped-def]
    if grad is None:
        return None, None, None, None, None, None
    rows, lam, weight, rstd = ctx.saved_tensors
    d_rows, d_lam, d_weight = torch.ops.headwise.differential_combine_backward(
        grad, rows, lam, weight, rstd, ctx.signal, ctx.scale
    )
    return (
        d_rows,
        d_lam.to(lam.dtype),
        None if weight is None else d_weight.to(weight.dtype),
        None,
        None,
        None,
    )


_combine.register_autograd(_gradient, setup_context=_save)


# Triton is imported at the first call with a CUDA tensor: it is optional, and nobody on a CPU pays
# for it.
@_combine.register_kernel("cuda")
def _(rows, lam, weight, signal, eps, scale):  # type: ignore[no-untyped-def]  # pragma: no cover - needs a GPU
    form = triton_form(rows)
    return (form.combine if form else combine)(rows, lam, weight, signal, eps, scale)


@_combine_backward.register_kernel("cuda")
def _(grad, rows, lam, weight, rstd, signal, scale):  # type: ignore[no-untyped-def]  # pragma: no cover - needs a GPU
    form = triton_form(rows)
    back = form.combine_backward if form else combine_backward
    return back(grad.contiguous(), rows, lam, weight, rstd, signal, scale)
