"""Run by test_triton.py in a separate process: time warping and median filter through Triton's
interpreter.
"""

# isort: off
from interpreting import poison  # first
# isort: on

import random

import torch

from headwise.kernels.time_warping import cpu
from headwise.kernels.time_warping import triton as gpu


def case(name, batch, rows, columns, equal_sums=False, width=7):
    generator = torch.Generator().manual_seed(len(name))
    cost = torch.randn(batch, rows, columns, generator=generator)
    if equal_sums:
        cost = cost.round()
    sizes = [torch.randint(1, most + 1, (batch,), generator=generator) for most in (rows, columns)]
    if batch:
        sizes[0][0], sizes[1][0] = rows, columns
    results, expected = (
        [*warp(cost, *sizes), median(cost, width, sizes[1])]
        for warp, median in (
            (gpu.time_warp, gpu.median_filter),
            (cpu.torch_time_warp, cpu.torch_median_filter),
        )
    )
    assert all(map(torch.equal, results, expected)), name
    print("ok", name)


def sizes_in_steps():
    """Sizes are a column of a table, and so lie in memory in steps."""
    table = torch.tensor([[5, 12], [3, 9], [4, 11]])
    torch.manual_seed(3)
    cost = torch.randn(12, 5, 3).transpose(0, 2)
    for device, plain, more in (
        (gpu.time_warp, cpu.torch_time_warp, (table[:, 0], table[:, 1])),
        (gpu.median_filter, cpu.torch_median_filter, (5, table[:, 1])),
    ):
        got, expected = device(cost, *more), plain(cost, *more)
        assert all(map(torch.equal, got, expected)), device
    print("ok sizes in steps")


if __name__ == "__main__":
    poison()
    sizes_in_steps()
    case("one cell", 1, 1, 1)
    case("one row", 2, 1, 9)
    case("one column", 2, 5, 1)
    case("ragged", 3, 5, 30)
    case("more rows than columns", 2, 20, 6, width=3)
    case("equal sums", 2, 12, 12, equal_sums=True, width=3)
    case("nothing", 0, 3, 3)
    draw = random.Random(2)
    for number in range(3):
        sizes = draw.randint(1, 3), draw.randint(1, 12), draw.randint(1, 40)
        case(f"drawn {number}", *sizes, width=draw.choice([1, 3]))
