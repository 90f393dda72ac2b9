"""Pair-wise cross-attention compared with joined keys and values: time and peak memory, forward
and backward.

    python benchmarks/ops/pair_attention.py [--threads 2] [--seconds 0.5]

float32. The other form joins each sample's keys and values with those of its partner (`torch.cat`)
and calls `scaled_dot_product_attention`. Both must agree in values and gradients. Measured as
`ratios.py` says; memory is everything but the inputs, gradients included.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.benchmarks import ratios
from headwise.benchmarks.measure import Case, Size, both_passes
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


def cases(size: Size) -> Iterator[Case]:
    """Both forms, checked."""
    for case in ((2, 1, 16, 8),) if size == "tiny" else CASES:
        ours, other = (step(form, case) for form in FORMS)
        for actual, expected in zip(ours(), other(), strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
        batch, heads, tokens, width = case
        name = f"batch {batch}, {heads} heads of {width}, {tokens} tokens"
        yield Case(name, ours, {"joined keys and values": other})


if __name__ == "__main__":
    ratios.main(__doc__, ["ops/pair_attention"])
