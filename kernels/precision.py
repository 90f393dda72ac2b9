"""In which type operators sum, and how much of their intermediate results fits the cache."""

from contextlib import AbstractContextManager, nullcontext
from typing import TypeVarTuple, cast

import torch
from torch import Tensor

Others = TypeVarTuple("Others")

SLICE_NUMBERS = 1 << 19  # 2 MiB of float32: about the private cache of two cores


def compute_type(x: Tensor) -> torch.dtype:
    """Type of the sums over x: float32 for half precision, else the type of x."""
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


def autocast_type(x: Tensor) -> torch.dtype | None:
    """Type that autocast gives to the factors of a product with x; None where autocast is off, as
    it always is on the device "meta".
    """
    device = x.device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)


def outside_autocast(x: Tensor) -> AbstractContextManager[object]:
    """A context in which autocast leaves tensors on the device of x as they are."""
    if autocast_type(x) is None:
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def match_autocast(x: Tensor, *others: *Others) -> tuple[Tensor, *Others]:
    """Cast tensors as autocast would cast the operands of a linear layer; without autocast, return
    them as they are. None stays None.
    """
    dtype = autocast_type(x)
    if dtype is None or x.dtype == torch.float64:
        return x, *others
    converted = tuple(x.to(dtype) if isinstance(x, Tensor) else x for x in others)
    return x.to(dtype), *cast("tuple[*Others]", converted)


def widest(x: Tensor, *, single: int, half: int = 256) -> int:
    """Width of the widest heads that a kernel takes in the type of x; 0 for float64, which the
    Triton kernels do not compute in.
    """
    return {torch.float32: single, torch.float16: half, torch.bfloat16: half}.get(x.dtype, 0)


def type_refused(x: Tensor) -> str:
    """Why no Triton kernel takes numbers of the type of x: all of them sum in float32. "" where
    one does.
    """
    return f"{x.dtype}" if x.dtype == torch.float64 else ""


def width_refused(x: Tensor, width: int, *, single: int, half: int = 256) -> str:
    """Why a kernel for heads up to `widest` does not take heads of this width in the type of x; ""
    where it does.
    """
    limit, name = widest(x, single=single, half=half), str(x.dtype).removeprefix("torch.")
    if width <= limit:
        return ""
    return f"heads wider than {limit} in {name}" if limit else name
