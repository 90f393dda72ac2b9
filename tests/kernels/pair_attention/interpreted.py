"""Run by test_triton.py in a separate process: pair-wise cross-attention through Triton's
interpreter.
"""

# isort: off
from interpreting import compare, in_any_layout, poison  # first
# isort: on

import random

import torch

from headwise.kernels.pair_attention import cpu
from headwise.kernels.pair_attention import triton as gpu


def case(name, partner, heads, queries, keys, width, value_width, dtype=torch.float32):
    torch.manual_seed(len(name))
    batch, partner = len(partner), torch.tensor(partner, dtype=torch.int64)
    # Query and gradient as the layers before and after lay them out, keys straight.
    query = torch.randn(batch, queries, heads, width).to(dtype).transpose(1, 2)
    grad = torch.randn(batch, queries, heads, value_width).to(dtype).transpose(1, 2)
    key, value = (torch.randn(batch, heads, keys, e).to(dtype) for e in (width, value_width))
    inputs = (query, key, value, partner)
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
    query, key, grad = (torch.randn(2, 2, n, 4) for n in (5, 6, 5))
    inputs = query, key, key + 1, torch.tensor([1, 0])
    in_any_layout("forward", gpu.forward, *inputs, 0.4)
    results = gpu.forward(*inputs, 0.4)
    in_any_layout("backward", gpu.backward, grad, *inputs, *results, 0.4)


if __name__ == "__main__":
    poison()
    laid_out()
    case("exchange of neighbours", [1, 0, 3, 2], 2, 20, 20, 16, 16)
    case("one for all, itself included", [2, 2, 2], 1, 33, 33, 8, 8)
    case("odd, other widths", [1, 2, 0], 3, 37, 21, 5, 19)
    case("more keys", [1, 1], 2, 3, 70, 16, 16)
    case("one token", [0], 1, 1, 1, 1, 1)
    case("wide", [1, 0], 1, 18, 18, 130, 130, dtype=torch.float16)
    case("half", [1, 0], 2, 66, 66, 32, 16, dtype=torch.float16)
    case("no keys", [1, 0], 2, 3, 0, 4, 4)
    case("no samples", [], 2, 3, 3, 4, 4)
    draw = random.Random(1)
    for number in range(3):
        partner = [draw.randrange(3) for _ in range(3)]
        case(f"drawn {number}", partner, *(draw.randint(1, most) for most in (3, 40, 40, 40, 40)))
