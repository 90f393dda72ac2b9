"""What the `interpreted.py` scripts share. Import it first: the interpreter must be chosen before
Triton is imported.

The interpreter computes bf16 wrongly, so use float32 and float16 only. New memory holds NaN, so
that a place which a kernel never writes shows in its result."""

import os

os.environ["TRITON_INTERPRET"] = "1"

import torch

from headwise.tests.kernels.layouts import LAYOUTS
from headwise.tests.kernels.poisoned import poison

__all__ = ["compare", "in_any_layout", "poison"]


def compare(name: str, got, expected, tolerance: float) -> None:
    """Equal shapes, types and values of two lists of tensors."""
    for a, b in zip(got, expected, strict=True):
        assert a.shape == b.shape, (name, a.shape, b.shape)
        assert a.dtype == b.dtype, (name, a.dtype, b.dtype)
        worst = (a.float() - b.float()).abs().max() if a.numel() else 0.0
        assert torch.allclose(a.float(), b.float(), atol=tolerance, rtol=tolerance), (name, worst)


def in_any_layout(name: str, function, *arguments) -> None:
    """The results do not depend on how tensors lie in memory."""
    tuple_of = lambda result: result if isinstance(result, tuple) else (result,)  # noqa: E731
    expected = tuple_of(function(*arguments))
    for lay in LAYOUTS:
        laid = [lay(x) if isinstance(x, torch.Tensor) else x for x in arguments]
        compare(f"{name}, {lay.__name__}", tuple_of(function(*laid)), expected, 1e-6)
    print("ok", name, "in any layout")
