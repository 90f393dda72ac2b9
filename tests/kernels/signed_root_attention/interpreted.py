"""Run by test_triton.py in a separate process: softmax-free attention through Triton's
interpreter.
"""

# isort: off
from interpreting import compare, in_any_layout, poison  # first
# isort: on

import random

import torch

from headwise.kernels.signed_root_attention import cpu
from headwise.kernels.signed_root_attention import triton as gpu


def case(name, batch, queries, keys, width, value_width, dtype=torch.float32, eps=1e-2):
    torch.manual_seed(len(name))
    # Query and gradient as convolutions lay them out, channels first; keys and values straight.
    # Products of about 1, whatever the width.
    query = (torch.randn(batch, width, queries) * width**-0.25).to(dtype).transpose(1, 2)
    grad = (torch.randn(batch, value_width, queries) * value_width**-0.25).to(dtype).transpose(1, 2)
    key, value = ((torch.randn(batch, keys, e) * e**-0.25).to(dtype) for e in (width, value_width))
    single = dtype == torch.float32
    inputs = grad, query, key, value, eps
    for form in ("tiles", "maps") if single else ("tiles",):
        gpu.maps_refused = lambda *_, form=form: "" if form == "maps" else "not asked for"
        expected, got = cpu.forward(*inputs[1:]), gpu.forward(*inputs[1:])
        compare(f"{name}, {form}", [got], [expected], 5e-5 if single else 2e-2)
        tolerance = 1e-3 if single else 6e-2
        compare(f"{name}, {form}", gpu.backward(*inputs), cpu.backward(*inputs), tolerance)
        print("ok", name, form)


def laid_out():
    torch.manual_seed(0)
    query, key, grad = torch.randn(2, 5, 4), torch.randn(2, 6, 4), torch.randn(2, 5, 4)
    in_any_layout("forward", gpu.forward, query, key, key + 1, 1e-3)
    in_any_layout("backward", gpu.backward, grad, query, key, key + 1, 1e-3)


if __name__ == "__main__":
    poison()
    laid_out()
    gpu.maps_refused = lambda *_: ""
    laid_out()
    gpu.MAP_NUMBERS = 37 * 21 * 2  # one call for two samples, one for the last
    case("square", 2, 64, 64, 16, 16)
    case("odd, values twice as wide", 3, 37, 21, 19, 38)
    case("several slices", 1, 40, 70, 130, 200)
    case("one token", 1, 1, 1, 1, 1)
    case("half", 2, 66, 66, 32, 64, dtype=torch.float16)
    case("half, several slices", 1, 70, 40, 70, 140, dtype=torch.float16)
    case("no keys", 2, 3, 0, 4, 4)
    case("no queries", 2, 0, 3, 4, 4)
    case("no samples", 0, 3, 3, 4, 4)
    draw = random.Random(1)
    for number in range(3):
        case(f"drawn {number}", *(draw.randint(1, most) for most in (3, 80, 80, 40, 80)))
