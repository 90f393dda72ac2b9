"""Triton form of dynamic time warping and of the median filter of ragged rows.

Shapes: B batch, N rows, M columns.

`warp_kernel`: a program owns a matrix and walks its antidiagonals, one lane per row. The sums of
the last two antidiagonals are in three lines of scratch memory in turn, with a barrier between
writing and reading. `trace_kernel`: a program follows one path back. `median_kernel`: a program
owns a block of columns of a row; the value that has half of the others below it is the median."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..launching import contiguous, launch

COLUMNS = 256


@triton.jit(do_not_specialize=["n", "m"])
def warp_kernel(
    cost, rows, columns, scratch, moves, n, m, ROWS: tl.constexpr
):  # pragma: no cover - device code
    b = tl.program_id(0).to(tl.int64)
    row_count, column_count = tl.load(rows + b).to(tl.int32), tl.load(columns + b).to(tl.int32)
    i = tl.arange(0, ROWS)
    lines = scratch + b * 3 * (ROWS + 1)
    for line in range(3):
        tl.store(lines + line * (ROWS + 1) + i, float("inf"))
        tl.store(lines + line * (ROWS + 1) + ROWS, float("inf"))
    tl.debug_barrier()
    # The sum before the first cell is 0: in the line of two steps ago, above the first row.
    tl.store(lines + 1 * (ROWS + 1), 0.0)
    tl.debug_barrier()
    for step in range(row_count + column_count - 1):
        here = lines + (step % 3) * (ROWS + 1)
        last = lines + ((step + 2) % 3) * (ROWS + 1)
        before = lines + ((step + 1) % 3) * (ROWS + 1)
        j = step - i
        alive = (i < row_count) & (j >= 0) & (j < column_count)
        diagonal = tl.load(before + i, mask=alive, other=float("inf"))
        up = tl.load(last + i, mask=alive, other=float("inf"))
        left = tl.load(last + i + 1, mask=alive, other=float("inf"))
        straight = (diagonal < up) & (diagonal < left)
        rising = (up < diagonal) & (up < left)
        least = tl.where(straight, diagonal, tl.where(rising, up, left))
        place = (b * n + i) * m + j
        value = tl.load(cost + place, mask=alive, other=0.0).to(tl.float32) + least
        tl.store(
            moves + place, tl.where(straight, 0, tl.where(rising, 1, 2)).to(tl.int8), mask=alive
        )
        tl.debug_barrier()
        tl.store(here, float("inf"))
        tl.store(here + i + 1, tl.where(alive, value, float("inf")))
        tl.debug_barrier()


@triton.jit(do_not_specialize=["n", "m"])
def trace_kernel(moves, rows, columns, first, last, n, m):  # pragma: no cover - device code
    b = tl.program_id(0).to(tl.int64)
    i, j = tl.load(rows + b) - 1, tl.load(columns + b) - 1
    tl.store(last + b * n + i, j)
    while (i >= 0) & (j >= 0):
        tl.store(first + b * n + i, j)
        move = tl.load(moves + (b * n + i) * m + j)
        j = j - (move != 1).to(tl.int64)
        entered = move != 2
        i = i - entered.to(tl.int64)
        tl.store(last + b * n + i, j, mask=entered & (i >= 0) & (j >= 0))


@triton.jit(do_not_specialize=["rows", "m"])
def median_kernel(
    x, columns, out, rows, m, WIDTH: tl.constexpr, HALF: tl.constexpr, COLUMNS: tl.constexpr
):  # pragma: no cover - device code
    row = tl.program_id(0).to(tl.int64)
    count = tl.load(columns + row // rows).to(tl.int32)
    j = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = j < m
    median = tl.load(x + row * m + j, mask=inside, other=0.0)
    filtered = (j < count) & (count > HALF)
    for a in range(WIDTH):
        at = tl.abs(j + a - HALF)
        at = tl.where(at >= count, 2 * (count - 1) - at, at)
        candidate = tl.load(x + row * m + at, mask=filtered, other=0.0)
        below = tl.zeros((COLUMNS,), tl.int32)
        for c in range(WIDTH):
            to = tl.abs(j + c - HALF)
            to = tl.where(to >= count, 2 * (count - 1) - to, to)
            rival = tl.load(x + row * m + to, mask=filtered, other=0.0)
            below += ((rival < candidate) | ((rival == candidate) & (c < a))).to(tl.int32)
        median = tl.where(filtered & (below == HALF), candidate, median)
    tl.store(out + row * m + j, median, mask=inside)


def time_warp(cost: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """As `cpu.time_warp`, by Triton."""
    batch, n, m = cost.shape
    cost, rows, columns = contiguous(cost, rows, columns)
    first = torch.full((batch, n), -1, dtype=torch.int64, device=cost.device)
    last = first.clone()
    if not batch:
        return first, last
    lanes = triton.next_power_of_2(n)
    scratch = torch.empty((batch, 3, lanes + 1), dtype=torch.float32, device=cost.device)
    moves = torch.empty((batch, n, m), dtype=torch.int8, device=cost.device)
    warps, tensors = max(1, min(8, lanes // 32)), (cost, rows, columns, scratch, moves)
    launch(warp_kernel, (batch,), *tensors, n, m, ROWS=lanes, num_warps=warps)
    tensors = moves, rows, columns, first, last
    launch(trace_kernel, (batch,), *tensors, n, m, num_warps=1)
    return first, last


def median_filter(x: Tensor, width: int, columns: Tensor) -> Tensor:
    """As `cpu.median_filter`, by Triton; x: (B, R, M)."""
    batch, rows, m = x.shape
    x, columns = contiguous(x, columns)
    out = torch.empty_like(x)
    if x.numel():
        grid = (batch * rows, triton.cdiv(m, COLUMNS))
        flags = {"WIDTH": width, "HALF": width // 2, "COLUMNS": COLUMNS}
        launch(median_kernel, grid, x, columns, out, rows, m, **flags)
    return out
