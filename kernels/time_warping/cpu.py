"""CPU form of dynamic time warping and of the median filter of ragged rows: compiled by Numba
(`compiled_cpu`), or in PyTorch where Numba is not installed or tensors are not on the CPU.

Shapes: B batch, R or N rows, M columns.
"""

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

DIAGONAL, UP, LEFT = 0, 1, 2


@cache
def numba_installed() -> bool:
    """Whether Numba can be imported; does not import it."""
    return find_spec("numba") is not None


def time_warp(cost: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """(first, last), int64 (B, N)."""
    if cost.is_cpu and numba_installed():
        from . import compiled_cpu

        return compiled_cpu.time_warp(cost, rows, columns)
    return torch_time_warp(cost, rows, columns)


def median_filter(x: Tensor, width: int, columns: Tensor) -> Tensor:
    """See `time_warping.median_filter`; x: (B, R, M)."""
    # The compiled form looks for the number that leaves its window, and NaN equals nothing.
    if x.is_cpu and numba_installed() and not x.isnan().any():
        from . import compiled_cpu

        return compiled_cpu.median_filter(x, width, columns)
    return torch_median_filter(x, width, columns)


def torch_time_warp(cost: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """As `time_warp`: all matrices advance together, by one antidiagonal per step."""
    batch, n, m = cost.shape
    cost = cost if cost.dtype == torch.float64 else cost.float()
    moves = torch.full((batch, n, m), LEFT, dtype=torch.int8, device=cost.device)
    # Sums of the last two antidiagonals by row, with a row above the first.
    before = cost.new_full((batch, n + 1), torch.inf)
    before[:, 0] = 0.0
    last = cost.new_full((batch, n + 1), torch.inf)
    all_rows = torch.arange(n, device=cost.device)
    for step in range(n + m - 1):
        row = all_rows[max(0, step - m + 1) : min(n, step + 1)]
        diagonal, up, left = before[:, row], last[:, row], last[:, row + 1]
        move = torch.where(
            (diagonal < up) & (diagonal < left),
            DIAGONAL,
            torch.where((up < diagonal) & (up < left), UP, LEFT),
        )
        least = torch.where(move == DIAGONAL, diagonal, torch.where(move == UP, up, left))
        moves[:, row, step - row] = move.to(torch.int8)
        new = cost.new_full((batch, n + 1), torch.inf)
        new[:, row + 1] = cost[:, row, step - row] + least
        before, last = last, new
    return _paths(moves, rows, columns)


def _paths(moves: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """(first, last) of all paths, followed back from the last cells."""
    batch, n, m = moves.shape
    first = torch.full((batch, n), -1, dtype=torch.int64, device=moves.device)
    last = first.clone()
    which = torch.arange(batch, device=moves.device)
    i, j = rows - 1, columns - 1
    last[which, i] = j
    for _ in range(n + m):
        alive = (i >= 0) & (j >= 0)
        b, r, c = which[alive], i[alive], j[alive]
        if not len(b):
            break
        first[b, r] = c
        move = moves[b, r, c]
        i, j = i.clone(), j.clone()
        i[b] = r - (move != LEFT).long()
        j[b] = c - (move != UP).long()
        entered = (move != LEFT) & (i[b] >= 0) & (j[b] >= 0)
        last[b[entered], i[b][entered]] = j[b][entered]
    return first, last


def torch_median_filter(x: Tensor, width: int, columns: Tensor) -> Tensor:
    """As `median_filter`: one sort of all windows per matrix."""
    half, filtered = width // 2, x.clone(memory_format=torch.contiguous_format)
    for entry, count in enumerate(columns.tolist()):
        if half and count > half:
            row = x[entry, :, :count]
            padded = torch.nn.functional.pad(row[None], (half, half), mode="reflect")[0]
            filtered[entry, :, :count] = padded.unfold(-1, width, 1).median(-1).values
    return filtered
