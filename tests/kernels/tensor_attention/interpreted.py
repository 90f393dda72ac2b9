"""Run by test_triton.py in a separate process: third-order attention through Triton's
interpreter.
"""

# isort: off
from interpreting import compare, in_any_layout, poison  # first
# isort: on

import torch

from headwise.kernels.tensor_attention import cpu
from headwise.kernels.tensor_attention import triton as gpu


def case(name, lead, queries, first, second, width, size, dtype=torch.float32, masked=""):
    torch.manual_seed(len(name))
    shapes = [(queries, width), (first, width), (first, size), (second, width), (second, size)]
    tensors = [torch.randn(*lead, *shape).to(dtype) for shape in shapes]
    masks = [None, None]
    for side, count in ((0, first), (1, second)):
        if str(side + 1) in masked:
            mask = torch.rand(lead[0], count) < 0.6
            mask[0] = False
            masks[side] = mask
            for x in tensors[1 + 2 * side : 3 + 2 * side]:
                x.masked_fill_(~mask[:, None, :, None], torch.nan)
    tolerance = 2e-5 if dtype == torch.float32 else 6e-3
    arguments = (*tensors, *masks)
    expected = cpu.forward(*arguments, 0.3)
    compare(name, gpu.forward(*arguments, 0.3), expected, tolerance)
    grad = torch.randn(expected[0].shape).to(dtype)
    back = (grad, *arguments, *expected, 0.3)
    compare(name, gpu.backward(*back), cpu.backward(*back), 4 * tolerance)
    print("ok", name)


def laid_out():
    torch.manual_seed(0)
    query, key1, key2, grad = (torch.randn(2, 1, n, 4) for n in (5, 6, 3, 5))
    masks = torch.tensor([[True, False] * 3, [True] * 6]), torch.tensor([[True, True, False]] * 2)
    inputs = query, key1, key1 + 1, key2, key2 + 1, *masks
    in_any_layout("forward", gpu.forward, *inputs, 0.4)
    results = gpu.forward(*inputs, 0.4)
    in_any_layout("backward", gpu.backward, grad, *inputs, *results, 0.4)


if __name__ == "__main__":
    poison()
    laid_out()
    tiles = gpu._tiles
    gpu._tiles = lambda *a: (
        tiles(*a) | {"ROWS": 16, "COLUMNS": 16}
    )  # several tiles of each axis at small sizes
    case("plain", (2, 1), 19, 21, 5, 8, 6)
    case("first mask", (2, 2), 5, 18, 4, 20, 17, masked="1")
    case("second mask", (2, 1), 17, 3, 7, 5, 5, masked="2")
    case("both masks", (2, 1), 6, 17, 18, 4, 3, masked="12")
    case("half", (1, 2), 18, 17, 6, 16, 16, dtype=torch.float16)
    case("one of each", (1, 1), 1, 1, 1, 1, 1)
    case("no second token", (1, 2), 3, 4, 0, 4, 4)
    generator = torch.Generator().manual_seed(7)
    for run in range(4):
        n, m1, m2, d, e = torch.randint(1, 24, (5,), generator=generator).tolist()
        case(f"drawn {run}", (2, 1), n, m1, min(m2, 9), d, e, masked=("", "1", "2", "12")[run])
