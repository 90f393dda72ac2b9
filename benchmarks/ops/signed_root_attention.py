"""Softmax-free attention in tiles compared with the plain formula: time and peak memory, forward
and backward.

    python benchmarks/ops/signed_root_attention.py [--threads 2] [--seconds 0.5]

float32. The plain form writes out the map of N x N numbers, and autograd then keeps it. Both must
agree in values and gradients, to 1e-5 of the largest. Measured as `ratios.py` says; memory is
everything but the inputs, gradients included.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from headwise.benchmarks import ratios
from headwise.benchmarks.measure import Case, Size, both_passes
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


def cases(size: Size) -> Iterator[Case]:
    """Both forms, checked."""
    for case in ((1, 64, 16),) if size == "tiny" else CASES:
        ours, other = (step(form, case) for form in FORMS)
        for actual, expected in zip(ours(), other(), strict=True):
            tolerance = 1e-5 * float(expected.abs().max())
            torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)
        batch, positions, channels = case
        name = f"batch {batch}, {positions} positions, {channels} channels"
        yield Case(name, ours, {"plain formula": other})


if __name__ == "__main__":
    ratios.main(__doc__, ["ops/signed_root_attention"])
