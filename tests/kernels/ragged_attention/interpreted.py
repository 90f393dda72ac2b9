"""Run by test_triton.py in a separate process: ragged attention through Triton's interpreter."""

# isort: off
from interpreting import compare, in_any_layout, poison  # first
# isort: on

import random

import torch

from headwise.kernels.ragged_attention import cpu
from headwise.kernels.ragged_attention import triton as gpu


def case(name, lengths, queries, heads, width, value_width, dtype=torch.float32, spare=0):
    torch.manual_seed(len(name))
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    keys, samples = int(offsets[-1]) + spare, len(lengths)
    query, key = (
        torch.randn(samples, queries, heads, width).to(dtype),
        torch.randn(keys, heads, width).to(dtype),
    )
    value = torch.randn(keys, heads, value_width).to(dtype)
    grad = torch.randn(samples, queries, heads, value_width).to(dtype)
    inputs = (query, key, value, offsets)
    tolerance = 2e-5 if dtype == torch.float32 else 6e-3
    expected, got = cpu.forward(*inputs, 0.4), gpu.forward(*inputs, 0.4)
    compare(name, got, expected, tolerance)
    compare(
        name,
        gpu.backward(grad, *inputs, *got, 0.4),
        cpu.backward(grad, *inputs, *expected, 0.4),
        5 * tolerance,
    )
    print("ok", name)


def laid_out():
    torch.manual_seed(0)
    query, key, grad = torch.randn(2, 3, 2, 4), torch.randn(6, 2, 4), torch.randn(2, 3, 2, 4)
    inputs = query, key, key + 1, torch.tensor([0, 2, 6])
    in_any_layout("forward", gpu.forward, *inputs, 0.4)
    results = gpu.forward(*inputs, 0.4)
    in_any_layout("backward", gpu.backward, grad, *inputs, *results, 0.4)


if __name__ == "__main__":
    poison()
    laid_out()
    case("short and empty", [3, 0, 1, 40, 0], 8, 2, 16, 16)
    case("odd", [5, 33, 32, 0], 3, 3, 5, 7)
    case("one query, long", [100], 1, 1, 8, 20)
    case("many queries", [20, 70], 75, 2, 16, 12)
    case("wide", [18, 3], 4, 1, 130, 40, dtype=torch.float16)
    case("half", [34, 2, 0], 8, 2, 32, 16, dtype=torch.float16)
    case("half, many queries", [34, 2], 40, 1, 16, 16, dtype=torch.float16)
    case("keys of no sample", [2, 3], 2, 2, 4, 4, spare=3)
    case("no keys", [0, 0], 2, 2, 4, 4)
    case("no samples", [], 2, 2, 4, 4, spare=2)
    draw = random.Random(1)
    # Keys of a sample are split: even and odd shares, splits without keys, samples without any.
    gpu.LEAST_KEYS = 8
    gpu.PROGRAMS = 24
    laid_out()
    case("split, short, long and empty", [100, 0, 3, 33], 5, 2, 16, 16)
    case("split, many queries", [150, 70], 75, 2, 16, 12)
    case("split, wide values", [90, 50], 3, 1, 8, 130)
    case("split, half", [200], 5, 2, 32, 16, dtype=torch.float16, spare=3)
    case("split, no keys", [0, 0, 0], 2, 2, 4, 4, spare=200)
    gpu.PROGRAMS = 200
    case("split, more splits than tiles", [400], 1, 1, 16, 16)
    for number in range(3):
        lengths = [draw.randint(0, 40) for _ in range(4)]
        sizes = (draw.randint(1, most) for most in (20, 3, 40, 40))
        case(f"drawn {number}", lengths, *sizes)
