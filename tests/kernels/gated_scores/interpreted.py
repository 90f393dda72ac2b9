"""Run by test_triton.py in a separate process: scores of gated attention through Triton's
interpreter.
"""

# isort: off
from interpreting import compare, poison  # first
# isort: on

import torch

from headwise.kernels.gated_scores import cpu
from headwise.kernels.gated_scores import triton as gpu
from headwise.tests.kernels.layouts import permuted, strided


def case(name, rows, width, inner, branches, dtype=torch.float32, chunk=None, layout=None):
    torch.manual_seed(len(name))
    h = torch.randn(rows, width).to(dtype)
    weight, bias = (
        (torch.randn(2 * inner, width) / width**0.5).to(dtype),
        torch.randn(2 * inner).to(dtype),
    )
    out_weight, out_bias = (
        (torch.randn(branches, inner) / inner**0.5).to(dtype),
        torch.randn(branches).to(dtype),
    )
    tolerance = 1e-5 if dtype == torch.float32 else 5e-3
    weights = (weight, bias, out_weight, out_bias)
    if layout:
        h, *weights = (layout(x) for x in (h, *weights))
    compare(name, [gpu.forward(h, *weights)], [cpu.forward(h, *weights)], tolerance)
    grad = torch.randn(rows, branches).to(dtype)
    grad = layout(grad) if layout else grad
    gpu.CHUNK = chunk or 1 << 15
    expected = cpu.backward(grad, h, *weights)
    compare(name, gpu.backward(grad, h, *weights), expected, 10 * tolerance * max(1, rows) ** 0.5)
    print("ok", name)


if __name__ == "__main__":
    poison()
    case("one branch", 70, 40, 33, 1)
    case("odd", 65, 17, 5, 5)
    case("many branches", 30, 64, 32, 19)
    case("several chunks", 150, 24, 16, 3, chunk=64)
    case("half", 66, 33, 40, 5, dtype=torch.float16)
    case("one row", 1, 3, 2, 2)
    case("no rows", 0, 4, 3, 2)
    case("permuted", 70, 17, 19, 3, layout=permuted)
    case("in steps", 70, 17, 19, 3, layout=strided)
