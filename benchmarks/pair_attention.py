"""Pair-wise cross-attention beside joined keys and values, time and peak memory, forward and
backward.

    python benchmarks/pair_attention.py [--threads 2] [--rounds 5]

float32. The other form joins each sample's keys and values with those of its partner (`torch.cat`)
and calls `scaled_dot_product_attention`. Both must agree in values and gradients before anything is
timed. They are called in turn; the median of each counts. Peak memory is the growth of a process of
its own over one step, with one thread: all but the inputs, gradients included."""

import argparse
import os
from collections.abc import Callable

import torch
import torch.nn.functional as F
from measure import medians, peak_bytes, peak_of
from torch import Tensor

from headwise.kernels.pair_attention import pair_attention

CASES = ((8, 12, 785, 64), (64, 3, 129, 64))  # batch, heads, tokens, width


def joined(query: Tensor, key: Tensor, value: Tensor, partner: Tensor) -> Tensor:
    keys, values = (torch.cat([x, x[partner]], 2) for x in (key, value))
    return F.scaled_dot_product_attention(query, keys, values)


FORMS = (pair_attention, joined)


def step(form: Callable[..., Tensor], case: tuple[int, ...]) -> Callable[[], tuple[Tensor, ...]]:
    """Forward and backward pass: the output and the gradients."""
    torch.manual_seed(0)
    given = [torch.randn(case, requires_grad=True) for _ in range(3)]
    back, partner = torch.randn(case), torch.randperm(case[0])

    def call() -> tuple[Tensor, ...]:
        out = form(*given, partner)
        return out.detach(), *torch.autograd.grad(out, given, back)

    return call


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--rounds", type=int, default=5, help="calls of each form")
    arguments.add_argument("--peak", type=int, nargs=5, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.peak:
        print(peak_bytes(step(FORMS[given.peak[4]], tuple(given.peak[:4]))))
        return
    torch.set_num_threads(given.threads)
    load = os.getloadavg()[0]
    print(f"torch {torch.__version__}, {given.threads} threads, forward and backward, float32\n")
    print(
        "| batch | heads | tokens | width | ms here | ms joined | faster | MiB here | MiB joined | share |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for case in CASES:
        calls = [step(form, case) for form in FORMS]
        for one, other in zip(*(call() for call in calls), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        mine, other = (1e3 * spent for spent in medians(calls, given.rounds))
        small, large = (peak_of(__file__, *case, form) / 2**20 for form in (0, 1))
        print(
            f"| {' | '.join(map(str, case))} | {mine:.1f} | {other:.1f} | {other / mine:.2f}x "
            f"| {small:.1f} | {large:.1f} | {small / large:.2f} |",
            flush=True,
        )
    print(
        f"\nload of the machine {load:.1f} before, {os.getloadavg()[0]:.1f} after (alone: about {given.threads})"
    )


if __name__ == "__main__":
    main()
