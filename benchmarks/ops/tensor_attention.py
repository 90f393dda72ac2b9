"""Third-order attention: exact in tiles compared with einsum, and the cost and the error of its
polynomial approximation.

    python benchmarks/ops/tensor_attention.py [--seconds 0.5]

First table: one call, N = M1 = M2, one sample, 4 heads of 16, forward and forward with backward;
both must agree; measured as `ratios.py` says. Second table: uniform entries in [-B, B] for q, k1,
k2: relative error by degree and B, and time against the exact form. Other work on the machine
spoils the figures.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from headwise.benchmarks import ratios
from headwise.benchmarks.measure import Case, Size, fastest
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


def forward(form: Callable[..., Tensor], inputs: list[Tensor]) -> None:
    with torch.no_grad():
        form(*inputs)


def step(form: Callable[..., Tensor], inputs: list[Tensor]) -> None:
    torch.autograd.grad(form(*inputs).square().mean(), inputs)


def cases(size: Size) -> Iterator[Case]:
    """The exact form in both ways, checked."""
    for tokens in (8,) if size == "tiny" else (64, 128, 192, 256):
        inputs = random_inputs(4, tokens, 16)
        expected = by_einsum(*inputs)
        torch.testing.assert_close(tensor_attention(*inputs), expected, rtol=1e-4, atol=1e-5)
        for name, call in (("forward", forward), ("forward and backward", step)):
            ours, other = (partial(call, form, inputs) for form in FORMS.values())
            yield Case(f"{tokens} tokens, {name}", ours, {"einsum": other})


def approximate(heads: int, seconds: float) -> None:
    """Print the table of the approximation, one thread."""
    torch.set_num_threads(1)
    print("d | N | B | relative error, degree 0 to 3 | exact s | approximate s, degree 0 to 3")
    for width, tokens in ((8, 64), (8, 256), (16, 256)):
        torch.manual_seed(0)
        q, k1, k2 = (2 * torch.rand(3, 1, heads, tokens, width) - 1).unbind()
        v1, v2 = torch.randn(2, 1, heads, tokens, width).unbind()
        with torch.no_grad():
            calls = [partial(tensor_attention, q, k1, v1, k2, v2)]
            calls += [partial(tensor_attention_approximate, q, k1, v1, k2, v2, p) for p in range(4)]
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


if __name__ == "__main__":
    approximate(4, ratios.main(__doc__, ["ops/tensor_attention"]).seconds)
