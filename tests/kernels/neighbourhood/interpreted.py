"""Run by test_triton.py in a separate process: the neighbourhood kernels through Triton's
interpreter.
"""

# isort: off
from interpreting import compare, in_any_layout, poison  # first
# isort: on

import torch

from headwise.kernels.neighbourhood import cpu
from headwise.kernels.neighbourhood import triton as gpu


def case(size, window, clamp, *, heads=2, features=5, dtype=torch.float32, masked=False):
    name = f"{size} window {window} clamp {clamp} {dtype} masked {masked}"
    torch.manual_seed(sum(size) + window)
    cells = size[0] * size[1]
    logits = torch.randn(2, heads, cells, window**2).to(dtype)
    value, query = (torch.randn(2, heads, cells, features).to(dtype) for _ in range(2))
    mask = None
    if masked:
        mask = torch.rand(2, cells) < 0.5
        mask[0] = False
    tolerance = 2e-5 if dtype == torch.float32 else 6e-3
    layout = (*size, window, clamp)
    expected = cpu.read(logits, value, mask, *layout)
    compare(name, gpu.read(logits, value, mask, *layout), expected, tolerance)
    grads = torch.randn(value.shape).to(dtype), torch.randn(expected[1].shape)
    back = cpu.read_backward(*grads, logits, value, mask, *expected, *layout)
    slopes = gpu.read_backward(*grads, logits, value, mask, *expected, *layout)
    compare(name, slopes, back, 2 * tolerance)
    for ours, theirs, pair in (
        (gpu.weighted, cpu.weighted, (logits, value)),
        (gpu.products, cpu.products, (query, value)),
        (gpu.scattered, cpu.scattered, (logits, query)),
    ):
        compare(name, [ours(*pair, *layout)], [theirs(*pair, *layout)], 5 * tolerance)
    print("ok", name)


def laid_out():
    torch.manual_seed(0)
    layout = (2, 3, 3, False)
    logits, value, mask = torch.randn(2, 2, 6, 9), torch.randn(2, 2, 6, 4), torch.rand(2, 6) < 0.7
    out, lse = gpu.read(logits, value, mask, *layout)
    in_any_layout("read", gpu.read, logits, value, mask, *layout)
    slopes = value + 1, lse, logits, value, mask, out, lse
    in_any_layout("read backward", gpu.read_backward, *slopes, *layout)
    in_any_layout("weighted", gpu.weighted, logits, value, *layout)
    in_any_layout("products", gpu.products, value, value + 1, *layout)
    in_any_layout("scattered", gpu.scattered, logits, value, *layout)


if __name__ == "__main__":
    poison()
    laid_out()
    case((1, 1), 3, False)
    case((5, 7), 3, False, masked=True)
    case((5, 5), 5, True, heads=1, masked=True)
    case((3, 4), 7, False, heads=1, features=17)
    case((3, 4), 3, True, dtype=torch.float16)
    for seed in range(4):
        dice = torch.Generator().manual_seed(seed)
        height, width, half, features = torch.randint(1, 7, (4,), generator=dice).tolist()
        window = 2 * (half % 3) + 1
        case(
            (height, width),
            window,
            min(height, width) >= window and seed % 2 == 0,
            features=features,
            masked=seed > 1,
        )
