"""Run by test_triton.py in a process of its own: time warping and median filter through Triton's
interpreter.
"""

# isort: off
from interpreting import poison  # first
# isort: on

import random

import torch

from headwise.kernels.time_warping import cpu
from headwise.kernels.time_warping import triton as gpu


def case(name, batch, rows, columns, ties=False, width=7):
    generator = torch.Generator().manual_seed(len(name))
    cost = torch.randn(batch, rows, columns, generator=generator)
    if ties:
        cost = cost.round()
    sizes = [torch.randint(1, most + 1, (batch,), generator=generator) for most in (rows, columns)]
    if batch:
        sizes[0][0], sizes[1][0] = rows, columns
    for got, expected in zip(
        gpu.time_warp(cost, *sizes), cpu.torch_time_warp(cost, *sizes), strict=True
    ):
        assert torch.equal(got, expected), name
    assert torch.equal(
        gpu.median_filter(cost, width, sizes[1]), cpu.torch_median_filter(cost, width, sizes[1])
    ), name
    print("ok", name)


if __name__ == "__main__":
    poison()
    case("one cell", 1, 1, 1)
    case("one row", 2, 1, 9)
    case("one column", 2, 9, 1)
    case("ragged", 4, 7, 30)
    case("more rows than columns", 3, 20, 6, width=3)
    case("equal sums", 3, 12, 12, ties=True, width=5)
    case("nothing", 0, 3, 3)
    draw = random.Random(2)
    for number in range(4):
        case(
            f"drawn {number}",
            draw.randint(1, 3),
            draw.randint(1, 20),
            draw.randint(1, 40),
            width=draw.choice([1, 9]),
        )
