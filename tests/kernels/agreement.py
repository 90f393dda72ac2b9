"""What tests of operators share: a form against another one, with gradients."""

from collections.abc import Sequence

import torch
from torch import Tensor


def gradients(out: Tensor, inputs: Sequence[Tensor], weight: Tensor) -> tuple[Tensor, ...]:
    """Gradients of the weighted sum of a result; zeros for an input that it does not depend on."""
    return torch.autograd.grad((out * weight).sum(), inputs, materialize_grads=True)


def assert_agree(
    out: Tensor, expected: Tensor, inputs: Sequence[Tensor], **tolerances: float
) -> None:
    """Equal values, and equal gradients of the inputs for a random gradient of the result."""
    torch.testing.assert_close(out, expected, **tolerances)
    grad = torch.randn_like(expected)
    of_both = [torch.autograd.grad(result, inputs, grad) for result in (out, expected)]
    torch.testing.assert_close(*of_both, **tolerances)
