"""Third-order attention: exact in tiles compared with einsum, and the cost and the error of its
polynomial approximation.

    python benchmarks/ops/tensor_attention.py [--seconds 1] [--width 16] [--heads 4]

First table: time and growth of peak memory of one call, N = M1 = M2, one sample, forward and
forward with backward. No figure is printed before both agree. Peak memory is that of a process of
its own. Second table: uniform entries in [-B, B] for q, k1, k2: relative error by degree and B, and
time against the exact form. Other work on the machine spoils the figures.
"""

import argparse
import functools

import torch
from torch import Tensor

from headwise.benchmarks.measure import fastest, parser_of, peak_bytes, peak_of
from headwise.kernels.tensor_attention import (
    approximation_error,
    tensor_attention,
    tensor_attention_approximate,
)


def by_einsum(q: Tensor, k1: Tensor, v1: Tensor, k2: Tensor, v2: Tensor) -> Tensor:
    """The formula as einsum writes it, with all scores in memory."""
    scores = torch.einsum("bhid,bhjd,bhld->bhijl", q, k1, k2) / q.shape[-1]
    weights = scores.flatten(3).softmax(-1).view(scores.shape)
    return torch.einsum("bhijl,bhje,bhle->bhie", weights, v1, v2)


FORMS = {"tiles": tensor_attention, "einsum": by_einsum}


def random_inputs(heads: int, tokens: int, width: int) -> list[Tensor]:
    """Queries, and keys and values of both kinds, with gradients."""
    torch.manual_seed(0)
    return [torch.randn(1, heads, tokens, width, requires_grad=True) for _ in range(5)]


def forward(form: str, inputs: list[Tensor]) -> None:
    with torch.no_grad():
        FORMS[form](*inputs)


def step(form: str, inputs: list[Tensor]) -> None:
    torch.autograd.grad(FORMS[form](*inputs).square().mean(), inputs)


def peak(form: str, what: str, heads: int, tokens: int, width: int) -> float:
    """MiB, measured in a process of its own."""
    words = (form, what, tokens, "--heads", heads, "--width", width)
    return peak_of(__file__, *words) / 2**20


def exact(heads: int, width: int, seconds: float) -> None:
    """Print the table of the exact form."""
    forms = "tiles, einsum"
    print(f"N | forward s: {forms} | MiB: {forms} | with backward s: {forms} | MiB: {forms}")
    for tokens in (64, 128, 192, 256):
        inputs = random_inputs(heads, tokens, width)
        torch.testing.assert_close(
            tensor_attention(*inputs), by_einsum(*inputs), rtol=1e-4, atol=1e-5
        )
        cells = []
        for what in (forward, step):
            calls = [functools.partial(what, form, inputs) for form in FORMS]
            cells.append(", ".join(f"{t:.4f}" for t in fastest(calls, seconds)))
            cells.append(
                ", ".join(
                    f"{peak(form, what.__name__, heads, tokens, width):.0f}" for form in FORMS
                )
            )
        print(tokens, *cells, sep=" | ", flush=True)


def approximate(heads: int, seconds: float) -> None:
    """Print the table of the approximation."""
    print("d | N | B | relative error, degree 0 to 3 | exact s | approximate s, degree 0 to 3")
    for width, tokens in ((8, 64), (8, 256), (16, 256)):
        torch.manual_seed(0)
        q, k1, k2 = (2 * torch.rand(3, 1, heads, tokens, width) - 1).unbind()
        v1, v2 = torch.randn(2, 1, heads, tokens, width).unbind()
        with torch.no_grad():
            calls = [functools.partial(tensor_attention, q, k1, v1, k2, v2)]
            calls += [
                functools.partial(tensor_attention_approximate, q, k1, v1, k2, v2, p)
                for p in range(4)
            ]
            times = fastest(calls, seconds)
        wide1, wide2 = v1.double(), v2.double()
        for bound in (0.5, 1.0, 1.5, 2.0):
            scaled = [(bound * x).double() for x in (q, k1, k2)]
            errors = [
                approximation_error(scaled[0], scaled[1], wide1, scaled[2], wide2, p).relative
                for p in range(4)
            ]
            error_text = ", ".join(f"{error:.1e}" for error in errors)
            print(
                width,
                tokens,
                bound,
                error_text,
                f"{times[0]:.4f}",
                ", ".join(f"{t:.4f}" for t in times[1:]),
                sep=" | ",
            )


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--width", type=int, default=16, help="of a head, first table")
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.peak:
        form, what, tokens = arguments.peak
        tensors = random_inputs(arguments.heads, int(tokens), arguments.width)
        print(peak_bytes(lambda: {"forward": forward, "step": step}[what](form, tensors)))
    else:
        exact(arguments.heads, arguments.width, arguments.seconds)
        approximate(arguments.heads, arguments.seconds)


if __name__ == "__main__":
    main()
