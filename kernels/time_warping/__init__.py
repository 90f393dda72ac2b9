"""Dynamic time warping and median filters for a whole batch of ragged matrices.

Shapes: B batch, N rows (tokens), M columns (frames); matrix b has rows[b] x columns[b] of them, the
rest is padding.

    total_ij = cost_ij + min(total_{i-1,j-1}, total_{i-1,j}, total_{i,j-1}),  total_{-1,-1} = 0

A path goes from the first cell to the last; where sums are equal it goes left (Whisper's order:
diagonal if it is less than both, up if it is less than both, else left). Work: three comparisons a
cell, in sequence along both axes; a matrix by itself waits for each sum. The CPU form (Numba,
compiled once) runs eight matrices side by side in the lanes of its vectors, and groups of them on
all threads; only directions, a byte a cell, are kept. On the GPU a program owns a matrix and walks
its antidiagonals."""

from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor

from . import cpu as plain


class Warped(NamedTuple):
    """first, last: int64 (B, N), the columns in which the path enters and leaves each row; -1 in
    rows of padding.

    The path of a matrix is, row by row, the columns from first to last; the next row starts at the
    same column as the last one ended (a step up) or at the one after it (a diagonal step)."""

    first: Tensor
    last: Tensor


def time_warp(cost: Tensor, rows: Tensor | None = None, columns: Tensor | None = None) -> Warped:
    """The cheapest path through each matrix. cost: (B, N, M), finite; rows, columns: int64 (B,), by
    default all.

    Raises ValueError if shapes do not fit or a matrix has no cell.
    """
    rows, columns = _sizes("time_warp", cost, rows, columns)
    return Warped(*torch.ops.headwise.time_warp(cost, rows, columns))


def median_filter(x: Tensor, width: int = 7, columns: Tensor | None = None) -> Tensor:
    """Median over `width` (odd) columns of each row of (B, ..., M), mirrored at both ends of the
    columns that are there (the end itself once); a row that is too short to be mirrored stays as it
    is, and so does padding.

    Raises ValueError if shapes do not fit.
    """
    if width < 1 or width % 2 == 0 or x.ndim < 2:
        raise ValueError(
            f"median_filter: needs an odd width and (batch, ..., columns), got {width} and "
            f"{tuple(x.shape)}"
        )
    size = x.shape[-1]
    flat = x.reshape(len(x), -1, size) if x.numel() else x.reshape(len(x), 0, size)
    _, counts = _sizes("median_filter", flat, None, columns, empty=True)
    return torch.ops.headwise.median_filter(flat, width, counts).view(x.shape)


def _sizes(
    name: str, x: Tensor, rows: Tensor | None, columns: Tensor | None, empty: bool = False
) -> tuple[Tensor, Tensor]:
    if x.ndim != 3 or not x.dtype.is_floating_point:
        raise ValueError(
            f"{name}: needs real numbers (batch, rows, columns), got {x.dtype} {tuple(x.shape)}"
        )
    found = []
    for what, given, most in (("rows", rows, x.shape[1]), ("columns", columns, x.shape[2])):
        sizes = (
            torch.full((len(x),), most, dtype=torch.int64, device=x.device)
            if given is None
            else given
        )
        least = 0 if empty else 1
        if (
            sizes.shape != (len(x),)
            or sizes.dtype != torch.int64
            or (len(x) and (int(sizes.min()) < least or int(sizes.max()) > most))
        ):
            raise ValueError(
                f"{name}: {what} must be int64 ({len(x)},), from {least} to {most}, got {sizes.tolist()}"
            )
        found.append(sizes)
    return found[0], found[1]


def _compiled(x: Tensor) -> bool:
    return x.is_cpu and find_spec("numba") is not None


@torch.library.custom_op("headwise::time_warp", mutates_args=())
def _time_warp(cost: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    if _compiled(cost):
        from . import compiled_cpu as compiled

        return compiled.time_warp(cost, rows, columns)
    return plain.time_warp(cost, rows, columns)


@_time_warp.register_fake
def _(cost: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    shape = cost.shape[:2]
    return cost.new_empty(shape, dtype=torch.int64), cost.new_empty(shape, dtype=torch.int64)


@_time_warp.register_kernel("cuda")
def _(cost, rows, columns):  # type: ignore[no-untyped-def]  # pragma: no cover - needs a GPU
    if find_spec("triton") is not None:
        from . import triton as device

        if device.fits(cost):
            return device.time_warp(cost, rows, columns)
    return plain.time_warp(cost, rows, columns)


@torch.library.custom_op("headwise::median_filter", mutates_args=())
def _median_filter(x: Tensor, width: int, columns: Tensor) -> Tensor:
    if _compiled(x):
        from . import compiled_cpu as compiled

        return compiled.median_filter(x, width, columns)
    return plain.median_filter(x, width, columns)


@_median_filter.register_fake
def _(x: Tensor, width: int, columns: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@_median_filter.register_kernel("cuda")
def _(x, width, columns):  # type: ignore[no-untyped-def]  # pragma: no cover - needs a GPU
    if find_spec("triton") is not None:
        from . import triton as device

        return device.median_filter(x, width, columns)
    return plain.median_filter(x, width, columns)
