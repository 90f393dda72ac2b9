"""Read-outs of attention without its matrix, compared with the matrix and its reduction, in one run
on this machine.

    python benchmarks/ops/attention_stats.py [--quick] [--seconds 3] [--output
    runs/benchmarks/attention_stats]

The other form is softmax(q k^T / sqrt(d)) as one tensor (batch 1, 4 heads, width 32) and the
read-out as one would write it in PyTorch. No figure is printed before both forms agree. Both are
called in turn and the fastest call of each counts; peak memory is the growth of the process over
one call, in a process of its own for each form, after a small call of the same kind. "and gradient"
adds the backward pass towards queries, keys and values. Rollout is of 4 layers; its other form
multiplies a row with each matrix (faster than the usual product of matrices) and holds one at a
time.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headwise.benchmarks.measure import (
    fastest,
    machine_load,
    parser_of,
    peak_bytes,
    peak_of,
    print_header,
    print_row,
)
from headwise.kernels.attention_stats import attention_stats, rollout_row
from headwise.models.attention.diversification import diversification_loss

HEADS, WIDTH, LAYERS = 4, 32, 4
Read = Callable[[Tensor, Tensor, Tensor], list[Tensor]]


def weights(query: Tensor, key: Tensor) -> Tensor:
    return (query @ key.mT * WIDTH**-0.5).softmax(-1)


def chosen(key: Tensor) -> Tensor:
    """The set of keys of the key mass: the first four."""
    return (torch.arange(key.shape[2]) < 4)[None]


def ours(name: str) -> Read:
    """The read-out without the matrix."""

    def read(query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        rows = torch.arange(0, query.shape[2], query.shape[2] // 16)
        if name == "all":
            want = ("lse", "entropy", "column_mass", "key_mass")
            stats = attention_stats(query, key, value, want=want, keys=chosen(key))
            return [getattr(stats, field) for field in ("output", *want)]
        if name == "output, entropy":
            stats = attention_stats(query, key, value, want=("entropy",))
            return [getattr(stats, field) for field in ("output", "entropy")]
        stats = attention_stats(query, key, want=(name,), keys=chosen(key), rows=rows)
        return [getattr(stats, "top_values" if name == "top" else name)]

    return read


def theirs(name: str) -> Read:
    """The read-out by the matrix."""

    def read(query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        if name == "lse":
            return [(query @ key.mT * WIDTH**-0.5).logsumexp(-1)]
        p = weights(query, key)
        rows = torch.arange(0, query.shape[2], query.shape[2] // 16)
        make = {
            "output": lambda: p @ value,
            "lse": lambda: (query @ key.mT * WIDTH**-0.5).logsumexp(-1),
            "entropy": lambda: -(p * p.clamp_min(1e-30).log()).sum(-1),
            "column_mass": lambda: p.sum(2),
            "key_mass": lambda: p[..., :4].sum(-1),
            "top": lambda: p.topk(8, -1)[0],
            "class_row": lambda: p[:, :, 0].clone(),
            "mean_rows": lambda: p[:, :, rows].mean(1),
        }
        read_outs = {
            "all": ("output", "lse", "entropy", "column_mass", "key_mass"),
            "output, entropy": ("output", "entropy"),
        }
        return [make[field]() for field in read_outs.get(name, (name,))]

    return read


def our_rollout(query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
    return [rollout_row([(query, key)] * LAYERS)]


def their_rollout(query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
    row = torch.eye(1, query.shape[2])
    for _ in range(LAYERS):
        row = 0.5 * (row[:, None] @ weights(query, key).mean(1))[:, 0] + 0.5 * row
    return [row]


def our_loss(query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
    return [diversification_loss(query, key)]


def their_loss(query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
    maps = weights(query, key).mean(1)
    mean = maps.mean(1, keepdim=True)
    limit = 2.0 / key.shape[2]
    maps, mean = maps * (maps > limit), mean * (mean > limit)
    return [torch.nn.functional.cosine_similarity(maps, mean, -1).mean()]


def with_gradient(read: Read) -> Read:
    def both(query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        tensors = [t.detach().requires_grad_() for t in (query, key, value)]
        out = read(tensors[0], tensors[1], tensors[2])
        total = torch.stack([t.square().sum() for t in out]).sum()
        back = torch.autograd.grad(total, tensors, allow_unused=True)
        return [t.detach() for t in out] + [t for t in back if t is not None]

    return both


NAMES = (
    "lse",
    "entropy",
    "column_mass",
    "key_mass",
    "top",
    "class_row",
    "mean_rows",
    "output, entropy",
    "all",
)
FORMS: dict[str, tuple[Read, Read]] = {name: (ours(name), theirs(name)) for name in NAMES}
FORMS["rollout"] = (our_rollout, their_rollout)
for gradient in ("entropy", "column_mass", "output, entropy"):
    FORMS[f"{gradient}, and gradient"] = (
        with_gradient(ours(gradient)),
        with_gradient(theirs(gradient)),
    )
FORMS["diversification loss, and gradient"] = (with_gradient(our_loss), with_gradient(their_loss))


def inputs(tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, HEADS, tokens, WIDTH) for _ in range(3))
    return 2 * query, key, value


def call(read: Read, name: str, tensors: tuple[Tensor, Tensor, Tensor]) -> list[Tensor]:
    with torch.set_grad_enabled("gradient" in name):
        return read(*tensors)


def check(name: str, tokens: int = 256) -> None:
    """Both forms agree, gradients included."""
    actual, expected = (call(read, name, inputs(tokens)) for read in FORMS[name])
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5 * max(1.0, float(b.abs().max())))


def calls(name: str, tokens: int) -> list[Callable[[], list[Tensor]]]:
    """Both forms of a read-out on the same tensors."""
    tensors = inputs(tokens)
    return [partial(call, read, name, tensors) for read in FORMS[name]]


def compare(name: str, tokens: int, seconds: float) -> dict[str, Any]:
    """Time both forms, print their row and give it by name."""
    ours, theirs = fastest(calls(name, tokens), seconds / 2)
    small, large = (peak_of(__file__, name, tokens, form, settings={}) for form in (0, 1))
    times = f"{ours * 1e3:.1f}", f"{theirs * 1e3:.1f}", f"{theirs / ours:.1f}x"
    memory = f"{small / 2**20:.1f}", f"{large / 2**20:.1f}", f"{small / max(large, 1):.3f}"
    print_row(name, tokens, *times, *memory)
    measured = {"seconds": [ours, theirs], "peak_bytes": [small, large]}
    return {"read_out": name, "tokens": tokens, **measured}


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--quick", action="store_true", help="1,024 tokens only, less time")
    parser.add_argument("--seconds", type=float, default=3.0, help="time spent on each pair")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/attention_stats"))
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        name, tokens, form = arguments.peak[0], *map(int, arguments.peak[1:])
        print(peak_bytes(calls(name, tokens)[form], calls(name, 64)[form]))
        return
    sizes, seconds = ([1024], 0.5) if arguments.quick else ([1024, 4096], arguments.seconds)
    rows: list[dict[str, Any]] = []
    with machine_load(f"{HEADS} heads of {WIDTH}, batch 1"):
        names = ("read-out", "tokens", "ms here", "ms by the matrix", "")
        print_header(*names, "MiB here", "MiB by the matrix", "")
        for name in FORMS:
            check(name)
            rows += [compare(name, tokens, seconds) for tokens in sizes]
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "attention_stats.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
