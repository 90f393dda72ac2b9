"""Attention rollout of the class token, and pair-wise attention, beside the usual way; one run on this machine.

    python benchmarks/rollout.py [--seconds 5]

Rollout: one picture of 785 tokens (448 x 448, patches of 16), 12 layers, 12 heads of 64 (ViT-B of DCAL). The usual way,
as public code does it, keeps the softmax maps of all layers, averages heads, adds the residual and multiplies whole
matrices, of which it then reads one row. "from queries and keys" is all of it: both sides must form the scores of
eleven layers, which bounds what can be won. "the chain" is what follows once maps are there: products of matrices
against products of a row with a matrix.

Pair-wise attention: forward and backward against keys and values of both pictures joined (`torch.cat`), then PyTorch's
fused attention.

No figure is printed before both forms agree to 1e-5. Calls are made in turn, and the fastest of each counts; peak
memory is the growth of a process of its own over one call.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.kernels.attention_stats import rollout_row
from headwise.kernels.pair_attention import pair_attention

sys.path.insert(0, str(Path(__file__).parent))
from measure import fastest, memory_environment, peak_bytes

TOKENS, LAYERS, HEADS, WIDTH = 785, 12, 12, 64
PAIRS = {"8 pictures, 785 tokens, 12 heads of 64": (8, 12, 785, 64), "64, 129, 3 of 64": (64, 3, 129, 64)}
Call = Callable[[], object]


def usual(layers: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Maps of all layers, then products of matrices, then a row."""
    maps = [torch.softmax(query @ key.mT * WIDTH**-0.5, -1) for query, key in layers]
    return full_chain([each.mean(1) for each in maps])


def full_chain(maps: list[Tensor]) -> Tensor:
    eye, result = torch.eye(TOKENS), torch.eye(TOKENS)[None]
    for each in maps:
        result = (0.5 * each + 0.5 * eye) @ result
    return result[:, 0]


def row_chain(maps: list[Tensor]) -> Tensor:
    row = torch.eye(1, TOKENS)
    for each in reversed(maps):
        row = 0.5 * (row[:, None] @ each)[:, 0] + 0.5 * row
    return row


def drawn(batch: int, heads: int, tokens: int, width: int, count: int) -> list[Tensor]:
    """As the projections of a transformer leave them."""
    return [torch.randn(batch, tokens, heads, width).transpose(1, 2) for _ in range(count)]


@torch.no_grad()
def rollouts() -> dict[str, tuple[Call, Call]]:
    torch.manual_seed(0)
    each = drawn(1, HEADS, TOKENS, WIDTH, 2 * LAYERS)
    layers = list(zip(each[::2], each[1::2]))
    maps = [torch.softmax(query @ key.mT * WIDTH**-0.5, -1).mean(1) for query, key in layers]
    return {
        "from queries and keys": (lambda: rollout_row(layers), lambda: usual(layers)),
        "the chain": (lambda: row_chain(maps), lambda: full_chain(maps)),
    }


def joined(query: Tensor, key: Tensor, value: Tensor, partner: Tensor) -> Tensor:
    keys, values = torch.cat([key, key[partner]], 2), torch.cat([value, value[partner]], 2)
    return F.scaled_dot_product_attention(query, keys, values)


def pairs(name: str) -> tuple[Call, Call]:
    torch.manual_seed(0)
    given = [x.requires_grad_() for x in drawn(*PAIRS[name], 3)]
    partner = torch.arange(PAIRS[name][0]).roll(1)

    def step(form: Callable[..., Tensor]) -> list[Tensor]:
        out = form(*given, partner)
        return [out.detach(), *torch.autograd.grad(out.square().sum(), given)]

    return lambda: step(pair_attention), lambda: step(joined)


def cases() -> dict[str, Callable[[], tuple[Call, Call]]]:
    found: dict[str, Callable[[], tuple[Call, Call]]] = {
        f"rollout, {name}": lambda name=name: rollouts()[name] for name in ("from queries and keys", "the chain")
    }
    return found | {f"pair-wise, {name}": lambda name=name: pairs(name) for name in PAIRS}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5, help="time for each form")
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        name, side = options.memory
        with torch.set_grad_enabled(name.startswith("pair")):
            print(json.dumps(peak_bytes(cases()[name]()[int(side)])))
        return
    print(f"{torch.get_num_threads()} threads; ours against the usual way")
    print("| what | time | ratio | peak memory | ratio |\n|---|---|---|---|---|")
    for name, make in cases().items():
        with torch.set_grad_enabled(name.startswith("pair")):
            ours, theirs = make()
            torch.testing.assert_close(ours(), theirs(), atol=1e-5, rtol=1e-4)
            quick, slow = fastest([ours, theirs], options.seconds)
        peaks = [
            json.loads(subprocess.run(
                [sys.executable, __file__, "--memory", name, str(side)], check=True, capture_output=True, text=True,
                env=os.environ | memory_environment(),
            ).stdout)
            for side in (0, 1)
        ]  # fmt: skip
        small, large = (peak / 2**20 for peak in peaks)
        print(f"| {name} | {quick * 1e3:.2f} ms, {slow * 1e3:.2f} ms | {slow / quick:.1f}x | "
              f"{small:.1f} MiB, {large:.1f} MiB | {small / large:.2f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
