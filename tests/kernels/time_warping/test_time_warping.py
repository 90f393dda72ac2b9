"""Dynamic time warping and the median filter of ragged batches, against the recursions written
out.
"""

import math

import pytest
import torch

from headwise.kernels.time_warping import cpu as plain
from headwise.kernels.time_warping import median_filter, time_warp


def path(cost):
    """Cells of the cheapest path of a matrix, by the recursion over lists; ties as Whisper has
    them.
    """
    rows, columns = len(cost), len(cost[0])
    total = {(i, j): math.inf for i in range(-1, rows) for j in range(-1, columns)}
    total[-1, -1] = 0.0
    came = {}
    for i in range(rows):
        for j in range(columns):
            diagonal, up, left = total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]
            if diagonal < up and diagonal < left:
                came[i, j], least = (i - 1, j - 1), diagonal
            elif up < diagonal and up < left:
                came[i, j], least = (i - 1, j), up
            else:
                came[i, j], least = (i, j - 1), left
            total[i, j] = float(torch.tensor(cost[i][j]) + torch.tensor(least))
    cells = [(rows - 1, columns - 1)]
    while cells[-1] != (0, 0):
        cells.append(came[cells[-1]])
    return cells[::-1]


@pytest.mark.parametrize("form", [time_warp, plain.time_warp], ids=["compiled", "plain"])
@pytest.mark.parametrize(
    ("batch", "rows", "columns", "ties"),
    [(1, 1, 1, False), (3, 6, 9, False), (11, 9, 5, False), (20, 12, 12, True), (2, 1, 8, False)],
)
def test_paths_of_ragged_batches(form, batch, rows, columns, ties):
    torch.manual_seed(batch)
    cost = torch.randn(batch, rows, columns)
    cost = cost.round() if ties else cost
    n, m = torch.randint(1, rows + 1, (batch,)), torch.randint(1, columns + 1, (batch,))
    first, last = form(cost, n, m)
    for b in range(batch):
        cells = path(cost[b, : n[b], : m[b]].tolist())
        for i in range(rows):
            own = [j for row, j in cells if row == i]
            assert (int(first[b, i]), int(last[b, i])) == (
                (min(own), max(own)) if own else (-1, -1)
            )


def test_whole_matrices_by_default_and_in_double():
    cost = torch.randn(3, 5, 8, dtype=torch.float64)
    whole = time_warp(cost, torch.tensor([5] * 3), torch.tensor([8] * 3))
    assert all(torch.equal(a, b) for a, b in zip(time_warp(cost), whole))
    assert whole.first[:, 0].tolist() == [0] * 3
    assert whole.last[:, -1].tolist() == [7] * 3


@pytest.mark.parametrize("form", [median_filter, plain.median_filter], ids=["compiled", "plain"])
@pytest.mark.parametrize("width", [1, 3, 7])
def test_median_filter(form, width):
    torch.manual_seed(width)
    x = torch.randn(6, 4, 15).round(decimals=1)  # with equal values
    columns = torch.tensor([15, 0, 1, 3, 4, 9])
    found = form(x, width, columns)
    half = width // 2
    for b in range(6):
        count = int(columns[b])
        for r in range(4):
            row = x[b, r, :count].tolist()
            expected = row
            if count > half:
                mirrored = (
                    row[1 : half + 1][::-1] + row + row[-half - 1 : -1][::-1] if half else row
                )
                expected = [sorted(mirrored[j : j + width])[half] for j in range(count)]
            assert found[b, r].tolist() == expected + x[b, r, count:].tolist()


def test_median_filter_of_many_dimensions():
    x = torch.randn(2, 3, 4, 20)
    assert torch.equal(median_filter(x), median_filter(x.flatten(1, 2)).view(x.shape))
    assert median_filter(x[:0]).shape == (0, 3, 4, 20)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_of_torch_stay(threads):
    """Numba may run on torch's own OpenMP."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        time_warp(torch.randn(20, 3, 4))
        median_filter(torch.randn(2, 3, 20))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_checked_and_compiled():
    cost, sizes = torch.randn(2, 4, 6), (torch.tensor([4, 2]), torch.tensor([6, 5]))
    names = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.headwise.time_warp.default, (cost, *sizes), test_utils=names)
    torch.library.opcheck(
        torch.ops.headwise.median_filter.default, (cost, 3, sizes[1]), test_utils=names
    )


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: time_warp(torch.zeros(2, 0, 3)), "from 1 to 0"),
        (lambda: time_warp(torch.zeros(2, 3)), "batch, rows"),
        (lambda: time_warp(torch.zeros(1, 2, 3), torch.tensor([3])), "from 1 to 2"),
        (lambda: median_filter(torch.zeros(1, 2, 3), 4), "an odd width"),
    ],
)
def test_mistakes(call, said):
    with pytest.raises(ValueError, match=said):
        call()
