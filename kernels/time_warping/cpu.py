"""PyTorch form of dynamic time warping and of the median filter of ragged rows: without Numba or
Triton.

Shapes: B batch, N rows, M columns.
"""

import torch
from torch import Tensor

DIAGONAL, UP, LEFT = 0, 1, 2


def time_warp(cost: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """(first, last), int64 (B, N); all matrices advance together, an antidiagonal a step."""
    batch, n, m = cost.shape
    cost = cost if cost.dtype == torch.float64 else cost.float()
    moves = torch.full((batch, n, m), LEFT, dtype=torch.int8, device=cost.device)
    # Sums of the last two antidiagonals by row, with a row above the first.
    before = cost.new_full((batch, n + 1), torch.inf)
    before[:, 0] = 0.0
    last = cost.new_full((batch, n + 1), torch.inf)
    every = torch.arange(n, device=cost.device)
    for step in range(n + m - 1):
        row = every[max(0, step - m + 1) : min(n, step + 1)]
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


def median_filter(x: Tensor, width: int, columns: Tensor) -> Tensor:
    """See `time_warping.median_filter`; x: (B, R, M)."""
    half, found = width // 2, x.clone()
    for entry, count in enumerate(columns.tolist()):
        if half and count > half:
            row = x[entry, :, :count]
            padded = torch.nn.functional.pad(row[None], (half, half), mode="reflect")[0]
            found[entry, :, :count] = padded.unfold(-1, width, 1).median(-1).values
    return found
