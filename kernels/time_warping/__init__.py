"""Dynamic time warping and median filters for a whole batch of ragged matrices.

Shapes: B batch, N rows (tokens), M columns (frames). Matrix b has rows[b] rows and columns[b]
columns, the rest is padding.

    total_ij = cost_ij + min(total_{i-1,j-1}, total_{i-1,j}, total_{i,j-1}),  total_{-1,-1} = 0

A path goes from the first cell to the last; where sums are equal it goes left (Whisper's order:
diagonal if it is less than both, up if it is less than both, else left). Work: three comparisons
per cell, in sequence along both axes, so that a single matrix waits for each sum. The CPU form
(Numba, compiled once) runs eight matrices side by side in the lanes of its vectors, and groups of
them on all threads; only the directions are kept, one byte per cell. Without Numba, PyTorch takes
an antidiagonal of all matrices per step. On the GPU a program owns a matrix and walks its
antidiagonals."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..forms import Form, triton_refused
from ..register import operator
from . import cpu

MOST_ROWS = 1024  # of a matrix, in the Triton form


class Warped(NamedTuple):
    """first, last: int64 (B, N), the columns in which the path enters and leaves each row; -1 in
    rows of padding.

    The path of a matrix is, row by row, the columns from first to last. A row starts at the column
    in which the row before ended (a step up) or at the next one (a diagonal step)."""

    first: Tensor
    last: Tensor


def time_warp(cost: Tensor, rows: Tensor | None = None, columns: Tensor | None = None) -> Warped:
    """The cheapest path through each matrix. cost: (B, N, M), finite; rows, columns: int64 (B,), by
    default all.

    Raises ValueError if shapes do not fit or a matrix has no cell. Nothing is read back from a GPU.
    """
    rows, columns = _sizes("time_warp", cost, rows, columns)
    return Warped(*torch.ops.headwise.time_warp(cost, rows, columns))


def median_filter(x: Tensor, width: int = 7, columns: Tensor | None = None) -> Tensor:
    """Median over `width` (odd) columns of each row of (B, ..., M), mirrored at both ends of the
    first columns[b] columns (the end itself counts once). A row that is too short to be mirrored
    stays as it is, and so does padding.

    Raises ValueError if shapes do not fit.

    >>> median_filter(torch.tensor([[1.0, 9.0, 2.0, 3.0]]), 3)
    tensor([[9., 2., 3., 2.]])
    """
    if width < 1 or width % 2 == 0 or x.ndim < 2:
        raise ValueError(
            f"median_filter: needs an odd width and (batch, ..., columns), got {width} and "
            f"{tuple(x.shape)}"
        )
    size = x.shape[-1]
    flat = x.reshape(len(x), -1, size) if x.numel() else x.reshape(len(x), 0, size)
    _, counts = _sizes("median_filter", flat, None, columns, least=0)
    return torch.ops.headwise.median_filter(flat, width, counts).view(x.shape)


def _sizes(
    name: str, x: Tensor, rows: Tensor | None, columns: Tensor | None, least: int = 1
) -> tuple[Tensor, Tensor]:
    """Checked rows and columns of each matrix, int64 (B,), by default all. Sizes on a GPU that do
    not fit end the program there, as an index out of range does in PyTorch.
    """
    if x.ndim != 3 or not x.dtype.is_floating_point:
        raise ValueError(
            f"{name}: needs real numbers (batch, rows, columns), got {x.dtype} {tuple(x.shape)}"
        )
    batch, *largest = x.shape
    sizes = []
    for axis, size, most in zip(("rows", "columns"), (rows, columns), largest):
        expected = f"{name}: {axis} must be int64 ({batch},), from {least} to {most}"
        if size is None:
            if batch and most < least:
                raise ValueError(f"{expected}, got {tuple(x.shape)}")
            size = torch.full((batch,), most, dtype=torch.int64, device=x.device)
        elif size.shape != (batch,) or size.dtype != torch.int64:
            raise ValueError(f"{expected}, got {size.dtype} {tuple(size.shape)}")
        elif size.is_cuda or torch.compiler.is_compiling():
            # Checked where the numbers are: the host would wait for them, and no graph holds that.
            torch.ops.aten._assert_async.msg(((size >= least) & (size <= most)).all(), expected)
        elif batch and (int(size.min()) < least or int(size.max()) > most):
            raise ValueError(f"{expected}, got {size.tolist()}")
        sizes.append(size)
    return sizes[0], sizes[1]


def forms(cost: Tensor) -> list[Form]:
    """What can find the paths through such matrices (B, N, M)."""
    refused = triton_refused(cost)
    if cost.dtype == torch.float64:
        refused = refused or "float64"
    elif not warp_fits(cost):
        refused = refused or f"more than {MOST_ROWS} rows"
    compiled = f"the tensors are on {cost.device.type}"
    if cost.is_cpu:
        compiled = "" if cpu.numba_installed() else "Numba is not installed"
    return [
        Form("Triton kernel, a program for each matrix", refused),
        Form("Numba, eight matrices side by side", compiled),
        Form("PyTorch calls, one antidiagonal a step"),
    ]


def empty_path(cost: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Memory for first and last (B, N)."""
    first, last = (cost.new_empty(cost.shape[:2], dtype=torch.int64) for _ in range(2))
    return first, last


def warp_fits(cost: Tensor) -> bool:
    """A program of the Triton form holds a column; its sums are float32."""
    return cost.shape[1] <= MOST_ROWS and cost.dtype != torch.float64


operator("time_warp", cpu.time_warp, fake=empty_path, fits=warp_fits)
operator(
    "median_filter",
    cpu.median_filter,
    fake=lambda x, width, columns: x.new_empty(x.shape),
    fits=lambda x: True,
)
