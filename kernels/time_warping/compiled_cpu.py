"""CPU form of dynamic time warping and of the median filter of ragged rows, compiled by Numba.

Shapes: B batch, N rows, M columns. The GROUP matrices of a group lie side by side in the last axis,
along which vectors run."""

import numba
import numpy as np
import torch
from torch import Tensor

from .cpu import DIAGONAL, LEFT, UP

GROUP = 8  # float32 numbers in a vector of 256 bits


def time_warp(cost: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """(first, last), int64 (B, N)."""
    batch, n, _ = cost.shape
    kind = torch.float64 if cost.dtype == torch.float64 else torch.float32
    first = np.full((batch, n), -1, np.int64)
    last = np.full((batch, n), -1, np.int64)
    sizes = rows.contiguous().numpy(), columns.contiguous().numpy()
    # Matrices of similar sizes share a group, so that a small one does not wait for a large one.
    order = np.lexsort(sizes[::-1]).astype(np.int64)
    with _threads():
        _warp(cost.detach().to(kind).contiguous().numpy(), *sizes, order, first, last)
    return torch.from_numpy(first), torch.from_numpy(last)


def median_filter(x: Tensor, width: int, columns: Tensor) -> Tensor:
    """See `time_warping.median_filter`; x: (B, R, M)."""
    kind = torch.float64 if x.dtype == torch.float64 else torch.float32
    numbers = x.detach().to(kind).contiguous()
    filtered = numbers.clone()
    with _threads():
        _median(numbers.numpy(), width, columns.contiguous().numpy(), filtered.numpy())
    return filtered.to(x.dtype)


class _threads:
    """As many threads as torch may use. Numba may share torch's OpenMP and then changes the number
    of torch's threads, too, on which sums depend to the last digit; that number is restored."""

    def __enter__(self) -> None:
        self.torch, self.numba = torch.get_num_threads(), numba.get_num_threads()
        numba.set_num_threads(min(self.torch, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]

    def __exit__(self, *_: object) -> None:
        numba.set_num_threads(self.numba)
        torch.set_num_threads(self.torch)


@numba.njit(parallel=True, cache=True)
def _warp(cost, rows, columns, order, first, last):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    for group in numba.prange((len(order) + GROUP - 1) // GROUP):  # type: ignore[not-iterable]
        members = order[group * GROUP : (group + 1) * GROUP]
        n, m = 0, 0
        for b in members:
            n, m = max(n, rows[b]), max(m, columns[b])
        moves = np.empty((n, m, GROUP), np.int8)
        above = np.full((m + 1, GROUP), np.inf, cost.dtype)
        here = np.full((m + 1, GROUP), np.inf, cost.dtype)
        tile = np.zeros((m, GROUP), cost.dtype)
        above[0] = 0
        for i in range(n):
            for lane in range(len(members)):
                b = members[lane]
                if i < rows[b]:
                    for j in range(columns[b]):
                        tile[j, lane] = cost[b, i, j]
            _row(tile, above, here, moves[i])
            above, here = here, above
            above[0] = np.inf
            here[0] = np.inf
        for lane in range(len(members)):
            b = members[lane]
            i, j = rows[b] - 1, columns[b] - 1
            last[b, i] = j
            while i >= 0 and j >= 0:
                first[b, i] = j
                move = moves[i, j, lane]
                if move != UP:
                    j -= 1
                if move != LEFT:
                    i -= 1
                    if i >= 0 and j >= 0:
                        last[b, i] = j


@numba.njit(cache=True)
def _row(tile, above, here, moves):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """One row of all matrices of a group; the inner loop has no branch and a fixed length, so it
    becomes vectors.
    """
    for j in range(tile.shape[0]):
        for lane in range(GROUP):
            diagonal, up, left = above[j, lane], above[j + 1, lane], here[j, lane]
            straight = diagonal < up and diagonal < left
            rising = up < diagonal and up < left
            least = diagonal if straight else (up if rising else left)
            here[j + 1, lane] = tile[j, lane] + least
            moves[j, lane] = DIAGONAL if straight else (UP if rising else LEFT)


@numba.njit(parallel=True, cache=True)
def _median(x, width, columns, filtered):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    half, rows = width // 2, x.shape[1]
    for which in numba.prange(x.shape[0] * rows):  # type: ignore[not-iterable]
        b, row, count = which // rows, which % rows, columns[which // rows]
        if half == 0 or count <= half:
            continue
        # The window stays sorted: what leaves it makes room for what enters.
        window = np.empty(width, x.dtype)
        for k in range(width):
            window[k] = x[b, row, abs(k - half)]
        window.sort()
        filtered[b, row, 0] = window[half]
        for j in range(1, count):
            old = x[b, row, abs(j - 1 - half)]
            new = x[b, row, min(j + half, 2 * (count - 1) - j - half)]
            k = 0
            while window[k] != old:
                k += 1
            while k + 1 < width and window[k + 1] < new:
                window[k] = window[k + 1]
                k += 1
            while k > 0 and window[k - 1] > new:
                window[k] = window[k - 1]
                k -= 1
            window[k] = new
            filtered[b, row, j] = window[half]
