"""Run by test_triton.py in a separate process: the end of differential attention through Triton's
interpreter.
"""

# isort: off
from interpreting import compare, poison  # first
# isort: on

import random

import torch

from headwise.kernels.differential_combine import cpu
from headwise.kernels.differential_combine import triton as gpu
from headwise.tests.kernels.layouts import permuted, strided


def case(name, count, noise, group, width, norm=True, dtype=torch.float32, layout=lambda x: x):
    torch.manual_seed(len(name))
    signal = noise * group
    rows = torch.randn(count, signal + noise, width).to(dtype)
    lam = torch.tensor(0.7)
    weight = torch.randn(width) if norm else None
    rows, weight = layout(rows), None if weight is None else layout(weight)
    inputs = (rows, lam, weight, signal, 1e-3, 0.6)
    tolerance = 2e-5 if dtype == torch.float32 else 4e-3
    expected = cpu.combine(*inputs)
    compare(name, gpu.combine(*inputs), expected, tolerance)
    grad = torch.randn(count, signal, width).to(dtype)
    back = (layout(grad), rows, lam, weight, layout(expected[1]), signal, 0.6)
    compare(name, gpu.combine_backward(*back), cpu.combine_backward(*back), 5 * tolerance)
    print("ok", name)


if __name__ == "__main__":
    poison()
    case("ratio one", 70, 2, 1, 64)
    case("four to one", 33, 2, 4, 48)
    case("wide", 37, 1, 3, 200)
    case("narrow", 300, 1, 2, 2)
    case("no norm", 40, 2, 2, 33, norm=False)
    case("half", 45, 1, 4, 64, dtype=torch.float16)
    case("no rows", 0, 1, 4, 8)
    for layout in (permuted, strided):
        case("permuted, in steps", 33, 2, 4, 48, layout=layout)
    draw = random.Random(0)
    for number in range(6):
        shape = (draw.randint(1, 200), draw.randint(1, 3), draw.randint(1, 5), draw.randint(1, 130))
        case(f"drawn {number}", *shape, norm=draw.random() < 0.7)
