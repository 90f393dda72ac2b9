"""Softmax-free attention in tiles compared with the plain formula: time and peak memory, forward
and backward.

    python benchmarks/ops/signed_root_attention.py [--threads 2] [--rounds 5]

float32. The plain form writes out the map of N x N numbers, and autograd then keeps it. Both must
agree in values and gradients, to 1e-5 of the largest, before anything is timed. They are called in
turn; the median of each counts. Peak memory is the growth of a process of its own over one step,
with one thread: everything but the inputs, gradients included.
"""

import argparse
from collections.abc import Callable

import torch
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
from headwise.kernels.signed_root_attention import signed_root, signed_root_attention

# Batch, positions, channels: the first two scales of GL-DMNet at 256 x 256.
CASES = ((4, 4096, 64), (4, 1024, 128))


def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The formula as it is written."""
    return signed_root(query @ key.mT, 1e-4) @ value


FORMS = (signed_root_attention, plain)


def step(form: Callable[..., Tensor], case: tuple[int, ...]) -> Callable[[], tuple[Tensor, ...]]:
    """Forward and backward pass: the output and the gradients."""
    torch.manual_seed(0)
    inputs = [torch.randn(case, requires_grad=True) for _ in range(3)]
    return both_passes(form, inputs, gradient=torch.randn(case))


def compare(case: tuple[int, ...], rounds: int) -> None:
    """Check that both forms agree, time them and print their row."""
    calls = [step(form, case) for form in FORMS]
    for actual, expected in zip(*(call() for call in calls), strict=True):
        tolerance = 1e-5 * float(expected.abs().max())
        torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)
    ours, theirs = (1e3 * seconds for seconds in medians(calls, rounds))
    small, large = (peak_of(__file__, *case, form) / 2**20 for form in (0, 1))
    times = f"{ours:.0f}", f"{theirs:.0f}", f"{ours / theirs:.2f}"
    print_row(*case, *times, f"{small:.1f}", f"{large:.1f}", f"{small / large:.3f}")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="calls of each form")
    parser.add_argument("--peak", type=int, nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        *case, form = arguments.peak
        print(peak_bytes(step(FORMS[form], tuple(case))))
        return
    with machine_load("forward and backward, float32", arguments.threads):
        names = ("batch", "positions", "channels", "ms here", "ms plain", "share")
        print_header(*names, "MiB here", "MiB plain", "share")
        for case in CASES:
            compare(case, arguments.rounds)


if __name__ == "__main__":
    main()
