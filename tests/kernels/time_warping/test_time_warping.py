"""Dynamic time warping and the median filter of ragged batches, against their recursions."""

import pytest
import torch

from headwise.kernels.time_warping import cpu, median_filter, naive, time_warp
from headwise.tests.kernels.waiting import assert_never_waits


@pytest.fixture(params=[True, False], ids=["numba", "torch"])
def form(request, monkeypatch):
    """Compiled, or as where Numba is not installed."""
    monkeypatch.setattr(cpu, "numba_installed", lambda: request.param)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize(
    ("batch", "rows", "columns", "equal_sums"),
    [(1, 1, 1, False), (11, 9, 5, False), (20, 12, 12, True), (2, 1, 8, False)],
)
def test_paths_of_ragged_batches(batch, rows, columns, equal_sums):
    torch.manual_seed(batch)
    cost = torch.randn(batch, rows, columns)
    cost = cost.round() if equal_sums else cost.double()  # sums without rounding, as Python's
    n, m = torch.randint(1, rows + 1, (batch,)), torch.randint(1, columns + 1, (batch,))
    first, last = time_warp(cost, n, m)
    for b in range(batch):
        cells = naive.path(cost[b, : n[b], : m[b]].tolist())
        for i in range(rows):
            visited = [j for row, j in cells if row == i] or [-1]
            assert (int(first[b, i]), int(last[b, i])) == (min(visited), max(visited))


def test_all_rows_and_columns_by_default():
    cost = torch.randn(3, 5, 8)
    warped = time_warp(cost, torch.tensor([5] * 3), torch.tensor([8] * 3))
    assert all(torch.equal(a, b) for a, b in zip(time_warp(cost), warped))
    assert warped.first[:, 0].tolist() == [0] * 3
    assert warped.last[:, -1].tolist() == [7] * 3


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("width", [1, 3, 7])
def test_medians_of_ragged_rows(width):
    torch.manual_seed(width)
    x = torch.randn(6, 4, 15).round(decimals=1)  # with equal values
    columns = [15, 0, 1, 3, 4, 9]
    filtered = median_filter(x, width, torch.tensor(columns))
    for b, count in enumerate(columns):
        for row, filtered_row in zip(x[b].tolist(), filtered[b].tolist()):
            assert filtered_row == naive.median_filter(row[:count], width) + row[count:]


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


def test_sizes_on_a_gpu_are_checked_there():
    cost, sizes = torch.randn(2, 4, 6), (torch.tensor([4, 2]), torch.tensor([6, 5]))
    assert_never_waits(time_warp, cost, *sizes)
    assert_never_waits(lambda x, columns: median_filter(x, 3, columns), cost, sizes[1])
    assert_never_waits(lambda x: median_filter(time_warp(x).first[:, None].float()), cost)


def test_operators_keep_their_promises_to_pytorch():
    cost, sizes = torch.randn(2, 4, 6), (torch.tensor([4, 2]), torch.tensor([6, 5]))
    names = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.headwise.time_warp.default, (cost, *sizes), test_utils=names)
    torch.library.opcheck(
        torch.ops.headwise.median_filter.default, (cost, 3, sizes[1]), test_utils=names
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: time_warp(torch.zeros(2, 0, 3)), "from 1 to 0"),
        (lambda: time_warp(torch.zeros(2, 3)), "batch, rows"),
        (lambda: time_warp(torch.zeros(1, 2, 3), torch.tensor([3])), "from 1 to 2"),
        (lambda: median_filter(torch.zeros(1, 2, 3), 4), "an odd width"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.usefixtures("form")
def test_a_number_that_is_nan_stays_in_its_windows():
    x = torch.arange(40.0).view(1, 2, 20)
    x[0, 0, 10] = torch.nan
    filtered = median_filter(x, 5)
    expected = median_filter(torch.arange(40.0).view(1, 2, 20), 5)
    assert torch.equal(filtered[0, 1], expected[0, 1])
    assert torch.equal(filtered[0, 0, :8], expected[0, 0, :8])
    assert torch.equal(filtered[0, 0, 13:], expected[0, 0, 13:])


def test_sizes_are_compiled_without_a_break():
    cost, rows, columns = torch.randn(2, 3, 5), torch.tensor([2, 3]), torch.tensor([5, 4])
    compiled = torch.compile(time_warp, fullgraph=True, backend="eager")
    assert all(map(torch.equal, compiled(cost, rows, columns), time_warp(cost, rows, columns)))
    with pytest.raises(RuntimeError, match="columns must be"):
        compiled(cost, rows, columns + 1)
