"""Checks of arguments that several operators share."""

import torch
from torch import Tensor


def check_floating(operation: str, *tensors: Tensor) -> None:
    """Raises ValueError unless the tensors are of one floating type."""
    first = tensors[0].dtype
    if any(x.dtype != first for x in tensors) or not first.is_floating_point:
        types = ", ".join(str(x.dtype) for x in tensors)
        raise ValueError(f"{operation}: needs one floating type, got {types}")


def check_offsets(operation: str, offsets: Tensor, count: int, what: str) -> None:
    """Raises ValueError for offsets (B + 1,) of B segments that descend or leave the `count` rows;
    what: these rows are. Waits for the device of the offsets.
    """
    if not len(offsets) or offsets.diff().lt(0).any() or offsets[0] < 0 or offsets[-1] > count:
        raise ValueError(
            f"{operation}: offsets must ascend from 0 to {count}, the number of {what}, at most"
        )


def check_pair(operation: str, query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor | None:
    """The mask in four dimensions, which broadcast to (B, H, N, M).

    query: (B, H, N, d); key: (B, K, M, d), K dividing H; mask: bool, (B, M), (B, N, M) or four
    dimensions. Raises ValueError if shapes or types do not fit.
    """
    fit = (
        query.ndim == key.ndim == 4
        and query.shape[0] == key.shape[0]
        and query.shape[3] == key.shape[3]
    )
    if not fit or key.shape[1] == 0 or query.shape[1] % key.shape[1] or query.dtype != key.dtype:
        raise ValueError(
            f"{operation}: query (B, H, N, d) and key (B, K, M, d), K dividing H, do not fit: "
            f"{tuple(query.shape)} {query.dtype} and {tuple(key.shape)} {key.dtype}"
        )
    if mask is None:
        return None
    shape = tuple(mask.shape)
    if mask.ndim == 2:
        mask = mask[:, None, None]
    elif mask.ndim == 3:
        mask = mask[:, None]
    full = (*query.shape[:3], key.shape[2])
    if mask.dtype != torch.bool or mask.ndim != 4 or not broadcasts(mask, full):
        raise ValueError(
            f"{operation}: mask must be bool and broadcast to {full}, got {mask.dtype} {shape}"
        )
    return mask


def broadcasts(x: Tensor, shape: tuple[int, ...]) -> bool:
    """Whether x broadcasts to the shape."""
    sizes = zip(x.shape[::-1], shape[::-1], strict=False)
    return x.ndim <= len(shape) and all(size in (1, full) for size, full in sizes)
