"""Triton form of the linear layers of many experts.

Shapes: T tokens, S rows sorted by expert, E experts, D width of the input, F of the output.

Rows: a program owns a block of rows of one expert and a block of output columns. Two short lists,
made on the device, say which expert and which rows; they have room for S / ROWS + E blocks, so that
no count is waited for, and blocks after the last one end at once. Rows are gathered, or activated,
while they are loaded; bias, or the slope of the activation in the backward pass, is applied before
storing. Weights: a program owns a block of one expert's weight and walks its rows. Limited by
matrix products from some hundred rows an expert on, by reading the weights below. Sums are float32.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..launching import PRECISION, contiguous, kernel, launch
from .naive import ACTIVATIONS
from .slopes import sum_of_copies

ROWS = 64  # of a tile: fewer do not use Hopper's products of a group of warps


def _tile(x: Tensor, slope: bool = False) -> dict[str, int]:
    """Sides of a tile, and its warps. Numbers of 2 bytes leave room for twice as many columns,
    unless the slope of the activation needs the registers. Eight warps, since four spill where
    products have operands in registers (8.0, 8.6, 12.0).
    """
    half = x.element_size() == 2
    columns, step = 128 if half and not slope else 64, 64 if half else 32
    return {"ROWS": ROWS, "COLUMNS": columns, "STEP": step, "num_warps": 8}


@triton.jit
def _act(h, ACTIVATION: tl.constexpr):  # pragma: no cover - device code
    if ACTIVATION == 1:
        h = tl.maximum(h, 0.0)
    elif ACTIVATION == 2:
        h = 0.5 * h * (1.0 + tl.erf(h * 0.7071067811865476))
    elif ACTIVATION == 3:
        h = h * tl.sigmoid(1.702 * h)
    elif ACTIVATION == 4:
        h = h * tl.sigmoid(h)
    return h


@triton.jit
def _slope(h, ACTIVATION: tl.constexpr):  # pragma: no cover - device code
    slope = tl.full(h.shape, 1.0, tl.float32)
    if ACTIVATION == 1:
        slope = tl.where(h > 0.0, 1.0, 0.0)
    elif ACTIVATION == 2:
        slope = (
            0.5 * (1.0 + tl.erf(h * 0.7071067811865476))
            + h * tl.exp(-0.5 * h * h) * 0.3989422804014327
        )
    elif ACTIVATION == 3:
        s = tl.sigmoid(1.702 * h)
        slope = s + 1.702 * h * s * (1.0 - s)
    elif ACTIVATION == 4:
        s = tl.sigmoid(h)
        slope = s + h * s * (1.0 - s)
    return slope


@triton.jit
def _load(
    x, source, live, d, width, stride, ACTIVATION: tl.constexpr, GATED: tl.constexpr
):  # pragma: no cover
    """Rows of x, activated: (rows, len d), in the type of x."""
    place = x + source[:, None] * stride + d[None, :]
    inside = live[:, None] & (d < width)[None, :]
    raw = tl.load(place, mask=inside, other=0.0)
    if ACTIVATION > 0 or GATED:
        value = _act(raw.to(tl.float32), ACTIVATION)
        if GATED:
            value = value * tl.load(place + width, mask=inside, other=0.0).to(tl.float32)
        raw = value.to(raw.dtype)
    return raw


@kernel
def rows_kernel(
    x,
    weight,
    bias,
    tokens,
    hidden,
    expert_of,
    first_of,
    offsets,
    out,
    experts,
    width,
    outputs,
    x_s,
    w_e,
    w_in,
    w_out,
    o_s,
    GATHER: tl.constexpr,
    ACTIVATION: tl.constexpr,
    GATED: tl.constexpr,
    BIAS: tl.constexpr,
    SLOPE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEP: tl.constexpr,
):  # pragma: no cover - device code
    e = tl.load(expert_of + tl.program_id(0))
    if e >= experts:
        return
    rows = tl.load(first_of + tl.program_id(0)) + tl.arange(0, ROWS)
    live = rows < tl.load(offsets + e + 1)
    rows = rows.to(tl.int64)
    source = rows
    if GATHER:
        source = tl.load(tokens + rows, mask=live, other=0).to(tl.int64)
    f = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    expert_weight = weight + e.to(tl.int64) * w_e
    summed = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, width, STEP):
        d = start + tl.arange(0, STEP)
        # The slope belongs to what is stored: then nothing is activated on loading.
        if SLOPE:
            a = _load(x, source, live, d, width, x_s, 0, False)  # pyright: ignore[reportArgumentType]
        else:
            a = _load(x, source, live, d, width, x_s, ACTIVATION, GATED)
        place = expert_weight + d[:, None] * w_in + f[None, :] * w_out
        w = tl.load(place, mask=(d < width)[:, None] & (f < outputs)[None, :], other=0.0)
        summed += tl.dot(a, w, input_precision=PRECISION)
    if BIAS:
        summed += tl.load(bias + e.to(tl.int64) * outputs + f, mask=f < outputs, other=0.0).to(
            tl.float32
        )[None, :]
    inside = live[:, None] & (f < outputs)[None, :]
    place = rows[:, None] * o_s + f[None, :]
    if SLOPE:
        gate = tl.load(hidden + place, mask=inside, other=0.0).to(tl.float32)
        if GATED:
            up = tl.load(hidden + place + outputs, mask=inside, other=0.0).to(tl.float32)
            tl.store(out + place + outputs, summed * _act(gate, ACTIVATION), mask=inside)
            summed = summed * up
        summed = summed * _slope(gate, ACTIVATION)
    tl.store(out + place, summed, mask=inside)


@kernel
def weight_kernel(
    grad,
    x,
    tokens,
    offsets,
    d_weight,
    d_bias,
    width,
    outputs,
    g_s,
    x_s,
    GATHER: tl.constexpr,
    ACTIVATION: tl.constexpr,
    GATED: tl.constexpr,
    BIAS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEP: tl.constexpr,
):  # pragma: no cover - device code
    e = tl.program_id(0)
    f = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    d = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    summed = tl.zeros((ROWS, COLUMNS), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    last = tl.load(offsets + e + 1)
    for start in range(tl.load(offsets + e), last, STEP):
        rows = start + tl.arange(0, STEP)
        live = rows < last
        rows = rows.to(tl.int64)
        source = rows
        if GATHER:
            source = tl.load(tokens + rows, mask=live, other=0).to(tl.int64)
        a = _load(x, source, live, d, width, x_s, ACTIVATION, GATED)
        place = grad + rows[None, :] * g_s + f[:, None]
        g = tl.load(place, mask=live[None, :] & (f < outputs)[:, None], other=0.0)
        summed += tl.dot(g, a, input_precision=PRECISION)
        if BIAS:
            total += tl.sum(g.to(tl.float32), 1)
    place = (e.to(tl.int64) * outputs + f)[:, None] * width + d[None, :]
    tl.store(d_weight + place, summed, mask=(f < outputs)[:, None] & (d < width)[None, :])
    if BIAS:
        # Of the programs of an expert that hold the same outputs, the first stores their bias.
        stores = (tl.program_id(2) == 0) & (f < outputs)
        tl.store(d_bias + e.to(tl.int64) * outputs + f, total, mask=stores)


def _tiles(offsets: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Expert (E: none) and first row of each block of rows, int32, as many as there can be."""
    experts = offsets.shape[0] - 1
    ends = ((offsets.diff() + ROWS - 1) // ROWS).cumsum(0)
    block = torch.arange(triton.cdiv(rows, ROWS) + experts, device=offsets.device)
    expert = torch.searchsorted(ends, block, right=True)
    known = expert.clamp_max(experts - 1)
    before = torch.nn.functional.pad(ends, (1, 0))[known]
    return expert.to(torch.int32), (offsets[known] + (block - before) * ROWS).to(torch.int32)


def _rows(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offsets: Tensor,
    tokens: Tensor | None,
    hidden: Tensor | None,
    activation: str,
    gated: bool,
    transposed: bool,
) -> Tensor:
    """x_s W_e^T + b_e, or transposed x_s W_e; then, with `hidden`, times the slope of the
    activation there.
    """
    rows = x.shape[0] if tokens is None else tokens.shape[0]
    weight = weight.mT if transposed else weight
    experts, outputs, width = weight.shape
    out = x.new_zeros((rows, outputs * (2 if gated and hidden is not None else 1)))
    if out.numel():
        (expert, first), tile = _tiles(offsets, rows), _tile(x, hidden is not None)
        optional = [x if tensor is None else tensor for tensor in (bias, tokens, hidden)]
        strides = weight.stride(0), weight.stride(2), weight.stride(1)
        launch(
            rows_kernel,
            (expert.shape[0], triton.cdiv(outputs, tile["COLUMNS"])),
            *(x, weight, *optional, expert, first, offsets, out, experts, width, outputs),
            *(x.stride(0), *strides, out.stride(0)),
            GATHER=tokens is not None,
            ACTIVATION=ACTIVATIONS.index(activation),
            GATED=gated,
            BIAS=bias is not None,
            SLOPE=hidden is not None,
            **tile,
        )
    return out


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offsets: Tensor,
    tokens: Tensor | None,
    place: Tensor | None,
    activation: str,
    gated: bool,
) -> Tensor:
    """As `cpu.forward`, by Triton."""
    x, weight, offsets = contiguous(x, weight, offsets)
    bias = None if bias is None else bias.contiguous()
    tokens = None if tokens is None else tokens.contiguous()
    return _rows(x, weight, bias, offsets, tokens, None, activation, gated, False)


def backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offsets: Tensor,
    tokens: Tensor | None,
    place: Tensor | None,
    activation: str,
    gated: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `cpu.backward`, by Triton."""
    grad, x, weight, offsets = contiguous(grad, x, weight, offsets)
    tokens = None if tokens is None else tokens.contiguous()
    experts, outputs, width = weight.shape
    d_weight = torch.empty_like(weight)
    d_bias = weight.new_empty((0,) if bias is None else bias.shape)
    if weight.numel():
        tile = _tile(x)
        grid = experts, triton.cdiv(outputs, ROWS), triton.cdiv(width, tile["COLUMNS"])
        launch(
            weight_kernel,
            grid,
            *(grad, x, offsets if tokens is None else tokens, offsets, d_weight, d_bias),
            *(width, outputs, grad.stride(0), x.stride(0)),
            GATHER=tokens is not None,
            ACTIVATION=ACTIVATIONS.index(activation),
            GATED=gated,
            BIAS=bias is not None,
            **tile,
        )
    if place is None:
        d_x = _rows(grad, weight, None, offsets, None, x, activation, gated, True)
    else:
        d_rows = _rows(grad, weight, None, offsets, None, None, "none", False, True)
        d_x = sum_of_copies(d_rows, place, x)
    return d_x, d_weight, d_bias
