"""What tests of operators share: a form against another one, with gradients; what a form holds."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


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


class NewTensors(TorchDispatchMode):
    """Numbers of every tensor with memory of its own that an operator returns."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        memory = {x.untyped_storage().data_ptr() for x in args if isinstance(x, Tensor)}
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else (out,):
            if isinstance(x, Tensor) and x.untyped_storage().data_ptr() not in memory:
                self.sizes.append(x.numel())
        return out
