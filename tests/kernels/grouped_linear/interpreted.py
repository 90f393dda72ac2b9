"""Run by test_triton.py in a separate process: linear layers of many experts through Triton's
interpreter.
"""

# isort: off
from interpreting import compare, poison  # first
# isort: on

import random

import torch

from headwise.kernels.dispatch import dispatch
from headwise.kernels.grouped_linear import cpu, naive
from headwise.kernels.grouped_linear import triton as gpu
from headwise.tests.kernels.layouts import permuted, strided


def case(
    name,
    tokens,
    active,
    experts,
    width,
    outputs,
    which="drawn",
    how="gather",
    bias=True,
    dtype=torch.float32,
    layout=lambda x: x,
):
    torch.manual_seed(len(name))
    chosen = torch.rand(tokens, max(experts, active)).argsort(1)[:, :active].clamp_max(experts)
    if which == "one":
        chosen = torch.full_like(chosen, experts - 1)
    if which == "some" and tokens:
        chosen[chosen == 0] = experts
        chosen[: tokens // 4] = experts
    where = dispatch(chosen, experts)
    gather, (activation, gated) = how == "gather", ("none", False) if how == "gather" else how
    rows = tokens if gather else tokens * active
    x = torch.randn(rows, width * (2 if gated else 1)).to(dtype)
    shapes = (experts, outputs, width), (experts, outputs)
    weight, b = (torch.randn(shape).to(dtype) for shape in shapes)
    grad = torch.randn(tokens * active, outputs).to(dtype)
    sources = (where.tokens, where.place) if gather else (None, None)
    tensors = (x, weight, b if bias else None, where.offsets, *sources)
    tensors, grad = [None if t is None else layout(t) for t in tensors], layout(grad)
    inputs = (*tensors, activation, gated)
    tolerance = (3e-6 if dtype == torch.float32 else 4e-3) * max(1.0, width**0.5)
    compare(name, [gpu.forward(*inputs)], [cpu.forward(*inputs)], tolerance)
    gradients, expected = (form.backward(grad, *inputs) for form in (gpu, cpu))
    rows_of_expert = max(1.0, (tokens * active / experts) ** 0.5)
    compare(name, gradients, expected, tolerance * rows_of_expert * 2)
    print("ok", name)


if __name__ == "__main__":
    poison()
    case("gather", 40, 2, 4, 24, 20)
    case("one expert has all", 50, 1, 3, 16, 8, which="one")
    case("an expert and tokens without", 37, 2, 3, 17, 9, which="some")
    case("nobody", 0, 2, 3, 8, 8)
    case("one token, one expert", 1, 1, 1, 1, 1)
    case("wide", 9, 2, 2, 70, 130)
    for layout in (permuted, strided):
        case("permuted, in steps", 21, 2, 3, 18, 7, layout=layout)
        case("gated, in steps", 21, 2, 3, 18, 7, how=("silu", True), layout=layout)
    for activation in naive.ACTIVATIONS:
        case(activation, 21, 2, 3, 18, 7, how=(activation, False))
        case(f"gated {activation}", 21, 2, 3, 18, 7, how=(activation, True), bias=False)
    case("half", 40, 2, 4, 32, 16, dtype=torch.float16)
    case("half, gated", 40, 2, 4, 32, 16, how=("silu", True), dtype=torch.float16)
    draw = random.Random(0)
    for number in range(20):
        experts = draw.randint(1, 6)
        sizes = (
            draw.randint(0, 30),
            draw.randint(1, min(3, experts)),
            experts,
            draw.randint(1, 36),
            draw.randint(1, 36),
        )
        how = draw.choice(["gather", (draw.choice(naive.ACTIVATIONS), draw.random() < 0.5)])
        which = draw.choice(["drawn", "one", "some"])
        case(f"drawn {number}", *sizes, which=which, how=how, bias=draw.random() < 0.7)
