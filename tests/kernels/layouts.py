"""An operator and its backward form on tensors that lie in memory in other ways."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


def permuted(x: Tensor) -> Tensor:
    """The same numbers, the last dimension outermost in memory; of one dimension, in steps of 2."""
    if x.ndim < 2:
        return strided(x)
    order = tuple(reversed(range(x.ndim)))
    return x.permute(order).contiguous().permute(order)


def strided(x: Tensor) -> Tensor:
    """The same numbers, every second one of a tensor that is twice as wide."""
    if x.ndim == 0:
        return x
    wide = x.new_zeros((*x.shape[:-1], 2 * x.shape[-1]))
    wide[..., ::2] = x
    return wide[..., ::2]


LAYOUTS: tuple[Callable[[Tensor], Tensor], ...] = (permuted, strided)


class Recorded(TorchDispatchMode):
    """Within, the calls of the project's operators, forward and backward: (operator, arguments)."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[torch._ops.OpOverload, tuple[object, ...]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func.namespace == "headwise":
            self.calls.append((func, args))
        return func(*args, **(kwargs or {}))


def _in(layout: Callable[[Tensor], Tensor], arguments: Sequence[object]) -> list[object]:
    return [layout(x.detach()) if isinstance(x, Tensor) else x for x in arguments]


def check_layouts(operator: torch._ops.OpOverload, arguments: Sequence[object]) -> None:
    """For the call and its backward pass, in each layout: results equal those of contiguous tensors
    and have the strides that the fake form promises.
    """
    trains = hasattr(torch.ops.headwise, f"{operator.overloadpacket.__name__}_backward")
    leaves = [
        x.detach().requires_grad_(trains and x.is_floating_point()) if isinstance(x, Tensor) else x
        for x in arguments
    ]
    with Recorded() as recorded:
        out = operator(*leaves)
        results = [
            x for x in (out if isinstance(out, (tuple, list)) else (out,)) if x.requires_grad
        ]
        if results:
            sum(x.float().sum() for x in results).backward()  # type: ignore[union-attr]
    assert len(recorded.calls) > bool(results), recorded.calls
    for call, arguments_of_call in recorded.calls:
        expected = call(*_in(torch.Tensor.contiguous, arguments_of_call))
        for layout in LAYOUTS:
            laid_out = _in(layout, arguments_of_call)
            torch.testing.assert_close(call(*laid_out), expected, equal_nan=True)
            torch.library.opcheck(call, tuple(laid_out), test_utils=("test_faketensor",))
