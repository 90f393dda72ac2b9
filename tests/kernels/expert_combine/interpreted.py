"""Run by test_triton.py in a separate process: the sum over a token's experts through Triton's
interpreter.
"""

# isort: off
from interpreting import compare, poison  # first
# isort: on

import random

import torch

from headwise.kernels.dispatch import dispatch
from headwise.kernels.expert_combine import cpu
from headwise.kernels.expert_combine import triton as gpu
from headwise.tests.kernels.layouts import permuted, strided


def case(
    name, tokens, active, experts, width, dropped=False, dtype=torch.float32, layout=lambda x: x
):
    torch.manual_seed(len(name))
    chosen = torch.rand(tokens, experts).argsort(1)[:, :active]
    if dropped and tokens:
        chosen[torch.rand(chosen.shape) < 0.3] = experts
    place = dispatch(chosen, experts).place
    y, weights = torch.randn(tokens * active, width).to(dtype), torch.rand(tokens, active)
    grad = torch.randn(tokens, width).to(dtype)
    tolerance = 2e-6 if dtype == torch.float32 else 4e-3
    inputs, grad = [layout(x) for x in (y, weights, place)], layout(grad)
    compare(name, [gpu.forward(*inputs)], [cpu.forward(*inputs)], tolerance)
    gradients, expected = (form.backward(grad, *inputs) for form in (gpu, cpu))
    compare(name, gradients, expected, tolerance * max(1, width) ** 0.5)
    print("ok", name)


if __name__ == "__main__":
    poison()
    case("usual", 40, 2, 4, 24)
    case("wide", 9, 3, 3, 200)
    case("nobody", 0, 2, 3, 8)
    case("one", 1, 1, 1, 1)
    case("half", 33, 2, 4, 65, dropped=True, dtype=torch.float16)
    for layout in (permuted, strided):
        case("permuted, in steps", 21, 2, 3, 18, layout=layout)
    draw = random.Random(0)
    for number in range(20):
        experts = draw.randint(1, 8)
        sizes = draw.randint(0, 60), draw.randint(1, min(4, experts)), experts, draw.randint(1, 90)
        case(f"drawn {number}", *sizes, dropped=draw.random() < 0.4)
