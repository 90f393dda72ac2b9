"""Pair-wise cross-attention compared with joined keys and values: time and peak memory, forward
and backward.

    python benchmarks/ops/pair_attention.py [--threads 2] [--rounds 5]

float32. The other form joins each sample's keys and values with those of its partner (`torch.cat`)
and calls `scaled_dot_product_attention`. Both must agree in values and gradients before anything is
timed. They are called in turn; the median of each counts. Peak memory is the growth of a process of
its own over one step, with one thread: everything but the inputs, gradients included.
"""

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.benchmarks.measure import (
    both_passes,
    machine_load,
    medians,
    parser_of,
    peak_bytes,
    peak_of,
    print_header,
    print_row,
)
from headwise.kernels.pair_attention import pair_attention

CASES = ((8, 12, 785, 64), (64, 3, 129, 64))  # batch, heads, tokens, width


def joined(query: Tensor, key: Tensor, value: Tensor, partner: Tensor) -> Tensor:
    """Attention to the joined keys and values of each sample and its partner."""
    keys, values = (torch.cat([x, x[partner]], 2) for x in (key, value))
    return F.scaled_dot_product_attention(query, keys, values)


FORMS = (pair_attention, joined)


def step(form: Callable[..., Tensor], case: tuple[int, ...]) -> Callable[[], tuple[Tensor, ...]]:
    """Forward and backward pass: the output and the gradients."""
    torch.manual_seed(0)
    inputs = [torch.randn(case, requires_grad=True) for _ in range(3)]
    gradient, partner = torch.randn(case), torch.randperm(case[0])
    return both_passes(form, inputs, partner, gradient=gradient)


def compare(case: tuple[int, ...], rounds: int) -> None:
    """Check that both forms agree, time them and print their row."""
    calls = [step(form, case) for form in FORMS]
    for actual, expected in zip(*(call() for call in calls), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
    ours, theirs = (1e3 * seconds for seconds in medians(calls, rounds))
    small, large = (peak_of(__file__, *case, form) / 2**20 for form in (0, 1))
    times = f"{ours:.1f}", f"{theirs:.1f}", f"{theirs / ours:.2f}x"
    print_row(*case, *times, f"{small:.1f}", f"{large:.1f}", f"{small / large:.2f}")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="calls of each form")
    parser.add_argument("--peak", type=int, nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        *case, form = arguments.peak
        print(peak_bytes(step(FORMS[form], tuple(case))))
        return
    with machine_load("forward and backward, float32", arguments.threads):
        names = ("batch", "heads", "tokens", "width", "ms here", "ms joined", "faster")
        print_header(*names, "MiB here", "MiB joined", "share")
        for case in CASES:
            compare(case, arguments.rounds)


if __name__ == "__main__":
    main()
