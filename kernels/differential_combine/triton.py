"""Triton form of the end of differential attention.

Shapes: T rows (batch times tokens), S signal heads, R noise heads, G = S / R, W width of a head.

A program owns a block of rows of one group: it reads the noise head once and walks the G signal
heads. The gradients of lambda and of the norm's weight are summed over the rows of a program and
written as partial sums, which PyTorch adds up: no atomic operations, so two runs give the same
numbers."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..launching import contiguous, launch, power_of_two

NUMBERS = 1024  # numbers of a tile: 8 a thread, without spills on sm_90


@triton.jit(do_not_specialize=["count"])
def combine_kernel(
    rows,
    lam,
    weight,
    out,
    rstd,
    count,
    signal,
    noise,
    group,
    width,
    eps,
    scale,
    NORM: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):  # pragma: no cover - device code
    t = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    j = tl.program_id(1)
    w = tl.arange(0, WIDTH)
    inside = (t < count)[:, None] & (w < width)[None, :]
    start = t[:, None] * (signal + noise) * width + w[None, :]
    b = tl.load(rows + start + (signal + j) * width, mask=inside, other=0.0).to(tl.float32)
    b = b * tl.load(lam).to(tl.float32)
    factor = tl.full((WIDTH,), 1.0, tl.float32)
    if NORM:
        factor = tl.load(weight + w, mask=w < width, other=0.0).to(tl.float32) * scale
    for i in range(j * group, j * group + group):
        y = tl.load(rows + start + i * width, mask=inside, other=0.0).to(tl.float32) - b
        if NORM:
            r = tl.rsqrt(tl.sum(y * y, 1) / width + eps)
            tl.store(rstd + t * signal + i, r, mask=t < count)
            y = y * r[:, None] * factor[None, :]
        tl.store(out + (t[:, None] * signal + i) * width + w[None, :], y, mask=inside)


@triton.jit(do_not_specialize=["count"])
def combine_backward_kernel(
    grad,
    rows,
    lam,
    weight,
    rstd,
    d_rows,
    d_lam,
    d_weight,
    count,
    signal,
    noise,
    group,
    width,
    scale,
    NORM: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):  # pragma: no cover - device code
    t = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    j = tl.program_id(1)
    w = tl.arange(0, WIDTH)
    inside = (t < count)[:, None] & (w < width)[None, :]
    start = t[:, None] * (signal + noise) * width + w[None, :]
    b = tl.load(rows + start + (signal + j) * width, mask=inside, other=0.0).to(tl.float32)
    factor = tl.load(lam).to(tl.float32)
    affine = tl.full((WIDTH,), 1.0, tl.float32)
    if NORM:
        affine = tl.load(weight + w, mask=w < width, other=0.0).to(tl.float32) * scale
    summed = tl.zeros((ROWS, WIDTH), tl.float32)
    for_weight = tl.zeros((WIDTH,), tl.float32)
    for i in range(j * group, j * group + group):
        g = tl.load(
            grad + (t[:, None] * signal + i) * width + w[None, :], mask=inside, other=0.0
        ).to(tl.float32)
        if NORM:
            a = tl.load(rows + start + i * width, mask=inside, other=0.0).to(tl.float32)
            r = tl.load(rstd + t * signal + i, mask=t < count, other=0.0)
            unit = (a - factor * b) * r[:, None]
            for_weight += tl.sum(g * unit, 0)
            g = g * affine[None, :]
            g = (g - unit * (tl.sum(g * unit, 1) / width)[:, None]) * r[:, None]
        tl.store(d_rows + start + i * width, g, mask=inside)
        summed += g
    tl.store(d_rows + start + (signal + j) * width, -factor * summed, mask=inside)
    place = tl.program_id(0) * noise + j
    tl.store(d_lam + place, tl.sum(tl.sum(-summed * b, 1), 0))
    if NORM:
        tl.store(d_weight + place.to(tl.int64) * width + w, for_weight * scale, mask=w < width)


def _tile(width: int) -> tuple[int, int]:
    padded = power_of_two(width)
    return max(1, NUMBERS // padded), padded


def combine(
    rows: Tensor, lam: Tensor, weight: Tensor | None, signal: int, eps: float, scale: float
) -> tuple[Tensor, Tensor]:
    """As `cpu.combine`, by Triton."""
    rows = rows.contiguous()
    count, heads, width = rows.shape
    noise = heads - signal
    out = rows.new_empty((count, signal, width))
    rstd = rows.new_empty((0,) if weight is None else (count, signal), dtype=torch.float32)
    block, padded = _tile(width)
    if rows.numel():
        tensors = rows, lam, rows if weight is None else weight.contiguous(), out, rstd
        sizes, grid = (
            (count, signal, noise, signal // noise, width),
            (triton.cdiv(count, block), noise),
        )
        flags = {"NORM": weight is not None, "ROWS": block, "WIDTH": padded}
        launch(combine_kernel, grid, *tensors, *sizes, eps, scale, **flags)
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
    """As `cpu.combine_backward`, by Triton."""
    grad, rows, rstd = contiguous(grad, rows, rstd)
    count, heads, width = rows.shape
    noise = heads - signal
    block, padded = _tile(width)
    programs = triton.cdiv(count, block) * noise
    d_rows = rows.new_empty(rows.shape)
    d_lam = rows.new_zeros((programs,), dtype=torch.float32)
    d_weight = rows.new_zeros((0, 0) if weight is None else (programs, width), dtype=torch.float32)
    if rows.numel():
        tensors = grad, rows, lam, rows if weight is None else weight.contiguous(), rstd
        sizes, grid = (
            (count, signal, noise, signal // noise, width),
            (triton.cdiv(count, block), noise),
        )
        flags = {"NORM": weight is not None, "ROWS": block, "WIDTH": padded}
        slopes = d_rows, d_lam, d_weight
        launch(combine_backward_kernel, grid, *tensors, *slopes, *sizes, scale, **flags)
    d_weight = d_weight.sum(0)
    d_weight = d_weight.to(rows.dtype if weight is None else weight.dtype)
    return d_rows, d_lam.sum().to(lam.dtype), d_weight
