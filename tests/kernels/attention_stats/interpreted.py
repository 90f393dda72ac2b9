"""Run by test_triton.py in a separate process: read-outs of attention through Triton's
interpreter.
"""

# isort: off
from interpreting import compare, in_any_layout, poison  # first
# isort: on

import torch

from headwise.kernels.attention_stats import cpu
from headwise.kernels.attention_stats import triton as gpu


def case(
    name,
    batch=2,
    heads=2,
    kv=1,
    queries=37,
    keys=50,
    width=20,
    value=12,
    kind=None,
    dtype=torch.float32,
    causal=False,
    numbers="shared",
    weighted=True,
    top=3,
    wide=1.0,
):
    torch.manual_seed(len(name))
    query = (wide * torch.randn(batch, heads, queries, width)).to(dtype)
    key = torch.randn(batch, kv, keys, width).to(dtype)
    values = torch.randn(batch, kv, keys, value).to(dtype) if value else None
    shapes = {
        "keys": (batch, 1, 1, keys),
        "pairs": (batch, 1, queries, keys),
        "heads": (1, heads, queries, keys),
    }
    mask = torch.rand(shapes[kind]) < 0.6 if kind else None
    if mask is not None:
        mask[0] = False if kind != "heads" else mask[0] & (torch.arange(queries)[:, None] > 3)
    held = {"shared": (batch, 1, keys), "heads": (batch, heads, keys)}.get(numbers)
    counts = torch.rand(held) if held else None
    weights = torch.rand(batch, queries) if weighted else None
    rest = (mask, counts, weights, 0.3, causal, top != 1, weighted, top)
    got = gpu.stats(query, key, values, *rest)
    expected = cpu.stats(query, key, values, *rest)
    tolerance = 2e-5 if dtype == torch.float32 else 2e-3
    compare(name, got[:6], expected[:6], tolerance)
    shown = expected[6] >= 0
    assert torch.equal(got[6] >= 0, shown), name
    if top and dtype == torch.float32:
        assert (got[6] == expected[6]).float().mean() > 0.999, name
    print("ok", name)


def fuzzed(count):
    """Sizes around the borders of tiles, drawn."""
    generator = torch.Generator().manual_seed(0)

    def draw(*choices):
        return choices[int(torch.randint(len(choices), (), generator=generator))]

    for turn in range(count):
        kv = draw(1, 2)
        case(
            f"fuzzed {turn}",
            draw(1, 2),
            kv * draw(1, 2),
            kv,
            draw(1, 15, 64, 65),
            draw(1, 31, 63, 64, 66),
            draw(1, 8, 17),
            draw(0, 5, 16),
            draw(None, "keys", "pairs"),
            causal=draw(False, True),
            numbers=draw("", "shared"),
            weighted=draw(False, True),
            top=draw(0, 1, 2, 9),
        )


def laid_out():
    torch.manual_seed(0)
    query, key = torch.randn(2, 2, 5, 4), torch.randn(2, 1, 6, 4)
    marks, numbers, weights = torch.rand(2, 1, 5, 6) < 0.7, torch.rand(2, 2, 6), torch.rand(2, 5)
    rest = marks, numbers, weights, 0.4, False, True, True, 3
    in_any_layout("forward", gpu.stats, query, key, key + 1, *rest)


if __name__ == "__main__":
    poison()
    laid_out()
    case("plain")
    case("mask of keys", kind="keys")
    case("mask of pairs, causal", kind="pairs", causal=True)
    case("mask of heads, key numbers of heads", kind="heads", numbers="heads")
    case("causal, more queries", queries=70, keys=20, causal=True)
    case("causal, more keys", queries=20, keys=130, causal=True, heads=4, kv=2)
    case("wide", queries=33, keys=40, width=100, value=70)
    case("half", dtype=torch.float16, kind="pairs")
    case("far scores", wide=15.0)
    case("no keys", keys=0)
    fuzzed(10)
