"""Every operator with tensors that lie in memory in other ways, without samples, without tokens,
and of one token: what it returns is what its fake form promises, in shape, type and strides, and
does not change.

The fake forms decide what `torch.compile` builds: strides that differ end in an error there."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch._library.custom_ops import OPDEFS

from headwise.tests.kernels.cases import CASES, Case, Maker, Sizes, differentiated, straight
from headwise.tests.kernels.layouts import LAYOUTS, Recorded


def recorded(
    case: Case, lay: Callable[[Tensor], Tensor], batch: int, tokens: int
) -> tuple[list[Tensor], list]:
    """Results and gradients of a case, and the calls of operators that it makes."""
    x = Maker(lay)
    sizes = Sizes(batch, tokens=tokens, keys=tokens + 1)
    with Recorded() as calls:
        results, slopes = differentiated(x, case(x, sizes))
    return [*results, *slopes], calls.calls


def variants() -> Iterator[tuple[Callable, Callable, int, int]]:
    for case in CASES:
        yield from ((case, lay, batch, 5) for lay in LAYOUTS for batch in (1, 3))
        yield from ((case, straight, batch, tokens) for batch, tokens in ((0, 5), (1, 1), (2, 0)))


@pytest.mark.parametrize(("case", "lay", "batch", "tokens"), list(variants()))
def test_fake_forms_promise_what_operators_return(
    case: Callable, lay: Callable, batch: int, tokens: int
) -> None:
    _, calls = recorded(case, lay, batch, tokens)
    assert calls
    for call, arguments in calls:
        laid = [lay(x.detach()) if isinstance(x, Tensor) else x for x in arguments]
        torch.library.opcheck(call, tuple(laid), test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("lay", LAYOUTS)
@pytest.mark.parametrize("case", CASES)
def test_results_and_gradients_do_not_depend_on_strides(case: Callable, lay: Callable) -> None:
    expected, _ = recorded(case, straight, 3, 5)
    for got, other in zip(recorded(case, lay, 3, 5)[0], expected, strict=True):
        torch.testing.assert_close(got, other)


def test_every_operator_is_among_them() -> None:
    names = {call.name() for case in CASES for call, _ in recorded(case, straight, 2, 3)[1]}
    registered = {
        name
        for name, definition in OPDEFS.items()
        if definition._init_fn.__module__.startswith("headwise.kernels.")
    }
    assert registered == names
