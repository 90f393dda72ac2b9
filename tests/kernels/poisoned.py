"""New memory that holds NaN, so that a place which a kernel never writes shows in its result."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_factories = {name: getattr(torch, name) for name in ("empty", "empty_like")}
_new_empty = torch.Tensor.new_empty


def _poisoned(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.is_floating_point():
        return tensor.fill_(torch.nan)
    return (
        tensor if tensor.dtype == torch.bool else tensor.fill_(torch.iinfo(tensor.dtype).min // 2)
    )


def poison() -> None:
    """From now on torch.empty, empty_like and new_empty give NaN (or absurd whole numbers)."""
    for name, make in _factories.items():
        setattr(torch, name, lambda *a, _make=make, **k: _poisoned(_make(*a, **k)))
    torch.Tensor.new_empty = lambda self, *a, **k: _poisoned(_new_empty(self, *a, **k))


@contextmanager
def poisoned() -> Iterator[None]:
    """Within, new memory is poisoned."""
    poison()
    try:
        yield
    finally:
        for name, make in _factories.items():
            setattr(torch, name, make)
        torch.Tensor.new_empty = _new_empty
