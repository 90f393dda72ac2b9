"""Attention by labels compared with two plain forms: time and peak memory, forward and backward.

    python benchmarks/ops/label_attention.py [--threads 1] [--seconds 3]

float32, 1,000 labels, texts of 512 tokens. "Means" is the usual form: the softmax of all scores, a
mean of the tokens for each label (batch x labels x width), and its product with the weights of the
label. "Evidence" takes the weights of the label to the tokens first, so that no mean exists, but
holds scores, weights and evidence (batch x labels x tokens). All must agree in values and
gradients before anything is timed. They are called in turn; the fastest of each counts. Peak memory
is the growth of a process of its own over one step, with one thread: everything but the inputs,
gradients included.
"""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from headwise.benchmarks.measure import (
    both_passes,
    fastest,
    machine_load,
    parser_of,
    peak_bytes,
    peak_of,
    print_header,
    print_row,
)
from headwise.kernels.label_attention import label_attention

CASES = ((16, 512, 1000, 64), (16, 512, 1000, 128), (16, 512, 1000, 256))


def means(h: Tensor, query: Tensor, weight: Tensor) -> Tensor:
    """With a mean of the tokens for each label."""
    weights = (h @ query.T * h.shape[2] ** -0.5).softmax(1)
    return ((weights.mT @ h) * weight).sum(-1)


def evidence(h: Tensor, query: Tensor, weight: Tensor) -> Tensor:
    """With all scores and what each token says for each label."""
    weights = (h @ query.T * h.shape[2] ** -0.5).softmax(1)
    return (weights * (h @ weight.T)).sum(1)


FORMS = (label_attention, means, evidence)


def step(form: Callable[..., Tensor], case: tuple[int, ...]) -> Callable[[], tuple[Tensor, ...]]:
    """Forward and backward pass: the logits and the gradients."""
    torch.manual_seed(0)
    batch, tokens, labels, width = case
    shapes = (batch, tokens, width), (labels, width), (labels, width)
    inputs = [torch.randn(shape, requires_grad=True) for shape in shapes]
    return both_passes(form, inputs, gradient=torch.randn(batch, labels))


def compare(case: tuple[int, ...], seconds: float) -> None:
    """Check that the forms agree, time them and print their row."""
    calls = [step(form, case) for form in FORMS]
    expected = calls[1]()
    for call in (calls[0], calls[2]):
        torch.testing.assert_close(call(), expected, rtol=1e-3, atol=1e-4)
    milliseconds = [1e3 * spent for spent in fastest(calls, seconds)]
    mebibytes = [peak_of(__file__, *case, form) / 2**20 for form in range(len(FORMS))]
    cells = [f"{x:.0f}" for x in (*milliseconds, *mebibytes)]
    ratios = [f"{x / mebibytes[0]:.1f}x" for x in mebibytes[1:]]
    print_row(*case, *cells, *ratios)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each form")
    parser.add_argument("--peak", type=int, nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        *case, form = arguments.peak
        print(peak_bytes(step(FORMS[form], tuple(case))))
        return
    with machine_load("forward and backward, float32", arguments.threads):
        names = ("batch", "tokens", "labels", "width", "ms here", "ms means", "ms evidence")
        memory = ("MiB here", "MiB means", "MiB evidence", "less than means", "less than evidence")
        print_header(*names, *memory)
        for case in CASES:
            compare(case, arguments.seconds)


if __name__ == "__main__":
    main()
