"""End of differential attention: signal heads minus the noise head of their group, normalised head
by head.

Shapes: B batch, N tokens, T = B N rows, S signal heads, R noise heads (R divides S), G = S / R, W
width of a head.

    y_i = a_i - lambda b_{i // G};   out_i = scale * weight * y_i / sqrt(mean(y_i^2) + eps)
    d y = r (g - y r^2 mean(g y)), g = scale weight d out, r = 1 / sqrt(mean(y^2) + eps)
    d a_i = d y_i;   d b_j = -lambda sum_{i in j} d y_i;   d lambda = -sum b d y
    d weight = scale sum d out y r;   without a weight, out = y

Work: (S + R) W numbers read and S W written per row, ~8 flops per number: limited by memory. A
chain of repeat, product, difference, norm and scale moves about 5 S W numbers more and stores three
of them for the backward pass; here only the inputs and r (one number per head) are stored. On the
CPU, rows are taken in blocks that stay in the cache."""

import torch
from torch import Tensor

from ..forms import Form, triton_refused
from ..precision import compute_type, type_refused
from ..register import operator
from . import cpu, naive


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
            f"differential_combine: mixed must be (batch, {signal} + noise heads, tokens, width) "
            f"with noise heads dividing {signal}, got {tuple(mixed.shape)}"
        )
    if lam.ndim or (weight is not None and weight.shape != mixed.shape[-1:]):
        shape = None if weight is None else tuple(weight.shape)
        raise ValueError(
            f"differential_combine: lam must be one number and weight ({mixed.shape[-1]},), "
            f"got {tuple(lam.shape)} and {shape}"
        )
    # PyTorch's fused attention writes (B, N, heads, W) in memory, so that this is a view of it.
    rows = mixed.transpose(1, 2).flatten(0, 1)
    out = torch.ops.headwise.differential_combine(rows, lam, weight, signal, eps, scale)[0]
    return out.view(mixed.shape[0], mixed.shape[2], signal * mixed.shape[3])


def forms(mixed: Tensor) -> list[Form]:
    """What can combine such heads."""
    refused = triton_refused(mixed) or type_refused(mixed)
    return [
        Form("Triton kernel, a group of heads a program", refused),
        Form("PyTorch calls, by blocks of rows that fit the cache"),
    ]


def fake(
    rows: Tensor, lam: Tensor, weight: Tensor | None, signal: int, eps: float, scale: float
) -> tuple[Tensor, Tensor]:
    """Memory for out (T, S, W) and r (T, S), which is empty without a norm."""
    count, _, width = rows.shape
    rstd = rows.new_empty((0,) if weight is None else (count, signal), dtype=compute_type(rows))
    return rows.new_empty((count, signal, width)), rstd


def fits(rows: Tensor) -> bool:
    """There is no Triton kernel for float64."""
    return not type_refused(rows)


operator(
    "differential_combine",
    cpu.combine,
    fake=fake,
    results=("out", "rstd"),
    fits=fits,
    export=naive.differential_combine,
    backward=cpu.combine_backward,
    backward_fits=fits,
    gradients=("rows", "lam", "weight"),
)
