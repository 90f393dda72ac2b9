"""Run by test_triton.py in a separate process: attention by labels through Triton's interpreter."""

# isort: off
from interpreting import compare, in_any_layout, poison  # first
# isort: on

import random

import torch

from headwise.kernels.label_attention import cpu
from headwise.kernels.label_attention import triton as gpu


def random_inputs(batch, tokens, labels, width, masked=True, dtype=torch.float32):
    torch.manual_seed(batch + tokens + labels)
    h, query, weight = (
        torch.randn(shape).to(dtype) for shape in ((batch, tokens, width), *[(labels, width)] * 2)
    )
    if not masked:
        return h, query, weight, None
    mask = torch.rand(batch, tokens) < 0.7
    if batch > 1:
        mask[1] = False
    return h.masked_fill(~mask[..., None], torch.nan), query, weight, mask


def case(name, *sizes, dtype=torch.float32, **options):
    inputs = random_inputs(*sizes, dtype=dtype, **options)
    tolerance = 2e-5 if dtype == torch.float32 else 6e-3
    expected, got = cpu.forward(*inputs, 0.4), gpu.forward(*inputs, 0.4)
    compare(name, got, expected, tolerance)
    grad = torch.randn_like(got[0])
    of_both = [
        form.backward(grad, *inputs, *got, 0.4) for form, got in ((gpu, got), (cpu, expected))
    ]
    compare(name, *of_both, 5 * tolerance)
    print("ok", name)


def laid_out():
    inputs = random_inputs(2, 5, 3, 4)
    results = gpu.forward(*inputs, 0.4)
    in_any_layout("forward", gpu.forward, *inputs, 0.4)
    grad = torch.randn_like(results[0])
    in_any_layout("backward", gpu.backward, grad, *inputs, *results, 0.4)


if __name__ == "__main__":
    poison()
    laid_out()
    case("more than a tile of everything", 2, 70, 67, 40)
    case("no mask, odd", 3, 33, 5, 19, masked=False)
    case("one of each", 1, 1, 1, 1, masked=False)
    case("half", 2, 66, 17, 130, dtype=torch.float16)
    case("no samples", 0, 3, 3, 4)
    case("no tokens", 2, 0, 3, 4)
    case("no labels", 2, 3, 0, 4)
    gpu.SLOPES = 300  # the labels of the backward pass in chunks
    case("chunks of labels", 2, 20, 11, 8)
    draw = random.Random(1)
    for number in range(2):
        case(f"{number} at random", *(draw.randint(1, most) for most in (3, 40, 40, 40)))
