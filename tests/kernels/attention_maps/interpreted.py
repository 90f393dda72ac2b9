"""Run by test_triton.py in a separate process: attention with maps of its heads through Triton's
interpreter.
"""

# isort: off
from interpreting import compare, in_any_layout, poison  # first
# isort: on

import random

import torch

from headwise.kernels.attention_maps import cpu
from headwise.kernels.attention_maps import triton as gpu


def case(
    name,
    chosen,
    batch=2,
    heads=3,
    queries=37,
    keys=50,
    width=20,
    value=12,
    kind=None,
    mean=False,
    dtype=torch.float32,
):
    torch.manual_seed(len(name))
    query = torch.randn(batch, heads, queries, width).to(dtype)
    key = torch.randn(batch, heads, keys, width).to(dtype)
    values = torch.randn(batch, heads, keys, value).to(dtype)
    shapes = {
        "keys": (batch, 1, 1, keys),
        "pairs": (batch, 1, queries, keys),
        "heads": (1, heads, queries, keys),
    }
    mask = torch.rand(shapes[kind]) < 0.6 if kind else None
    if mask is not None:
        mask[..., :1, :] = False  # a query without keys
    rest = (torch.tensor(chosen), mean, mask, 0.3)
    compare(
        name,
        gpu.attend(query, key, values, *rest),
        cpu.attend(query, key, values, *rest),
        2e-5 if dtype == torch.float32 else 2e-3,
    )
    print("ok", name)


def laid_out():
    torch.manual_seed(0)
    query, key = torch.randn(1, 2, 5, 4), torch.randn(1, 2, 6, 4)
    chosen, mask = torch.tensor([1, 0]), torch.rand(1, 1, 5, 6) < 0.7
    in_any_layout("forward", gpu.attend, query, key, key + 1, chosen, False, mask, 0.4)


if __name__ == "__main__":
    poison()
    laid_out()
    case("all heads", [0, 1, 2])
    case("some, in another order", [2, 0])
    case("mean of all", [0, 1, 2], mean=True)
    case("mean of one", [1], mean=True)
    case("mask of keys", [1, 2], kind="keys")
    case("mask of pairs, mean", [0, 2], kind="pairs", mean=True)
    case("mask of heads", [2, 1], kind="heads")
    case("half", [0, 2], dtype=torch.float16)
    case("no keys", [0], keys=0)
    case("no queries", [0], queries=0)
    draw = random.Random(1)
    for number in range(6):
        heads = draw.randint(1, 5)
        chosen = draw.sample(range(heads), draw.randint(1, heads))
        case(
            f"drawn {number}",
            chosen,
            draw.randint(1, 2),
            heads,
            draw.randint(1, 70),
            draw.randint(1, 70),
            draw.randint(1, 40),
            draw.randint(1, 40),
            draw.choice([None, "pairs"]),
            draw.random() < 0.5,
        )
