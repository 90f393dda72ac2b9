"""Run by test_triton.py in a separate process: gathered heads through Triton's interpreter."""

# isort: off
from interpreting import compare, in_any_layout, poison  # first
# isort: on

import random

import torch

from headwise.kernels.gathered_heads import cpu
from headwise.kernels.gathered_heads import triton as gpu


def case(
    name,
    batch,
    heads,
    groups,
    tokens,
    keys,
    width,
    kind=None,
    causal=False,
    share=0.5,
    dtype=torch.float32,
):
    torch.manual_seed(len(name))
    # Query and gradient as the layers before and after lay them out, keys straight.
    query = torch.randn(batch, tokens, heads, width).to(dtype).transpose(1, 2)
    grad = torch.randn(batch, tokens, heads, width).to(dtype).transpose(1, 2)
    key, value = (torch.randn(batch, groups, keys, width).to(dtype) for _ in range(2))
    gate = torch.randn(batch, heads, tokens) * (torch.rand(batch, heads, tokens) < share)
    gate[0, 0] = 0.0
    gate[-1, -1] = 0.7
    shapes = {
        "keys": (batch, 1, 1, keys),
        "pairs": (batch, 1, tokens, keys),
        "heads": (batch, heads, tokens, keys),
    }
    mask = None if kind is None else torch.rand(shapes[kind]) < 0.6
    if mask is not None:
        mask[-1, :, 0] = False
    inputs = (query, key, value, gate, mask)
    tolerance = 2e-5 if dtype == torch.float32 else 6e-3
    expected = cpu.forward(*inputs, causal, 0.4)
    got = gpu.forward(*inputs, causal, 0.4)
    compare(name, got[:1], expected[:1], tolerance)
    back = cpu.backward(grad, *inputs, *expected, causal, 0.4)
    slopes = gpu.backward(grad, *inputs, *got, causal, 0.4)
    compare(name, slopes[:3], back[:3], 5 * tolerance)
    # A rounded output divided by a small gate: in half precision that is all the gradient of a gate
    # knows.
    compare(name, [(slopes[3] * gate)], [(back[3] * gate)], 10 * tolerance)
    print("ok", name)


def laid_out():
    torch.manual_seed(0)
    query, key, grad = torch.randn(1, 2, 5, 4), torch.randn(1, 2, 6, 4), torch.randn(1, 2, 5, 4)
    gate, mask = torch.rand(1, 2, 5).relu(), torch.rand(1, 1, 5, 6) < 0.7
    inputs = query, key, key + 1, gate, mask
    in_any_layout("forward", gpu.forward, *inputs, False, 0.4)
    results = gpu.forward(*inputs, False, 0.4)
    in_any_layout("backward", gpu.backward, grad, *inputs, *results, False, 0.4)


if __name__ == "__main__":
    poison()
    laid_out()
    case("plain", 2, 2, 2, 70, 70, 16)
    case("keys masked, grouped", 2, 4, 2, 33, 50, 20, kind="keys")
    case("pairs, causal", 1, 2, 1, 40, 40, 8, kind="pairs", causal=True)
    case("heads masked, more keys, causal", 1, 3, 3, 20, 45, 33, kind="heads", causal=True)
    case("fewer keys, causal", 1, 2, 2, 40, 25, 16, causal=True)
    case("wide", 1, 2, 2, 35, 35, 130)
    case("half", 1, 2, 2, 66, 66, 32, dtype=torch.float16, causal=True)
    case("all on", 1, 2, 2, 65, 65, 4, share=1.0)
    case("one", 1, 1, 1, 1, 1, 1)
    draw = random.Random(1)
    for number in range(4):
        groups, width = draw.randint(1, 2), draw.randint(1, 40)
        sizes = draw.randint(1, 80), draw.randint(1, 80)
        kind = draw.choice([None, "keys", "pairs", "heads"])
        case(
            f"drawn {number}",
            1,
            2 * groups,
            groups,
            *sizes,
            width,
            kind,
            draw.random() < 0.5,
            draw.random(),
        )
