"""Softmax-free attention in tiles beside the plain formula, time and peak memory, forward and
backward.

    python benchmarks/signed_root_attention.py [--threads 2] [--rounds 5]

float32. The plain form writes out the map of N x N numbers, as autograd then keeps it. Both must
agree in values and gradients, to 1e-5 of the largest, before anything is timed. They are called in
turn; the median of each counts. Peak memory is the growth of a process of its own over one step,
with one thread: all but the inputs, gradients included."""

import argparse
import os
from collections.abc import Callable

import torch
from measure import medians, peak_bytes, peak_of
from torch import Tensor

from headwise.kernels.signed_root_attention import signed_root, signed_root_attention

CASES = (
    (4, 4096, 64),
    (4, 1024, 128),
)  # batch, positions, channels: the first two scales of GL-DMNet at 256 x 256


def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return signed_root(query @ key.mT, 1e-4) @ value


FORMS = (signed_root_attention, plain)


def step(form: Callable[..., Tensor], case: tuple[int, ...]) -> Callable[[], tuple[Tensor, ...]]:
    """Forward and backward pass: the output and the gradients."""
    torch.manual_seed(0)
    given = [torch.randn(case, requires_grad=True) for _ in range(3)]
    back = torch.randn(case)

    def call() -> tuple[Tensor, ...]:
        out = form(*given)
        return out.detach(), *torch.autograd.grad(out, given, back)

    return call


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--rounds", type=int, default=5, help="calls of each form")
    arguments.add_argument("--peak", type=int, nargs=4, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.peak:
        print(peak_bytes(step(FORMS[given.peak[3]], tuple(given.peak[:3]))))
        return
    torch.set_num_threads(given.threads)
    load = os.getloadavg()[0]
    print(f"torch {torch.__version__}, {given.threads} threads, forward and backward, float32\n")
    print(
        "| batch | positions | channels | ms here | ms plain | share | MiB here | MiB plain | share |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for case in CASES:
        calls = [step(form, case) for form in FORMS]
        for one, other in zip(*(call() for call in calls), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * float(other.abs().max()))
        mine, other = (1e3 * spent for spent in medians(calls, given.rounds))
        small, large = (peak_of(__file__, *case, form) / 2**20 for form in (0, 1))
        print(
            f"| {' | '.join(map(str, case))} | {mine:.0f} | {other:.0f} | {mine / other:.2f} "
            f"| {small:.1f} | {large:.1f} | {small / large:.3f} |",
            flush=True,
        )
    print(
        f"\nload of the machine {load:.1f} before, {os.getloadavg()[0]:.1f} after (alone: about {given.threads})"
    )


if __name__ == "__main__":
    main()
