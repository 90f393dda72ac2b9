"""Attention within a window of a grid, from scores that may come from anywhere, without unfolding
the grid.

Shapes: B batch, H heads, N = Y X cells row by row, w window (odd), W = w w members of a window row
by row, d width of queries and keys, e width of values.

    scores_ij = q_i . k_j,   out_i = sum_j p_ij v_j,   p_i = softmax over the members j of i's window [and more keys]
    d p_ij = g_i . v_j,   d scores = p (d p - g . out),   d v_j = sum over all i whose window holds j of p_ij g_i

Work: 2 B H N W e flops for each of these products, and N W scores, which are given. Unfolding
copies each value W times (289 at 17 x 17) and keeps them; here values stay where they are. Scores,
their softmax and the sum are three operators, since their users put other things in between (a
relative bias, a mixing of groups, a term after it). Border "mask": the window is centred and what
lies outside the image is no member. "clamp": the window is shifted inside the image, so that it
always has W members.

Kept for the backward pass: inputs, output and lse; the softmax is made again.
"""

from typing import Literal

import torch
from torch import Tensor

from ..forms import Form, triton_refused
from ..partial_softmax import merge_partials
from . import cpu as plain

Border = Literal["mask", "clamp"]


def _check(
    operation: str, grid: Tensor, other: Tensor, size: tuple[int, int], window: int, border: Border
) -> None:
    if grid.ndim != 4 or other.ndim != 4 or grid.shape[:3] != other.shape[:3]:
        raise ValueError(
            f"{operation}: needs two (batch, heads, cells, ·), got {tuple(grid.shape)}, {tuple(other.shape)}"
        )
    if size[0] * size[1] != grid.shape[2]:
        raise ValueError(
            f"{operation}: size {size[0]} x {size[1]} does not hold {grid.shape[2]} cells"
        )
    if window < 1 or window % 2 == 0:
        raise ValueError(f"{operation}: window must be odd, got {window}")
    if border not in ("mask", "clamp"):
        raise ValueError(f"{operation}: border must be 'mask' or 'clamp', got {border!r}")
    if border == "clamp" and min(size) < window:
        raise ValueError(
            f"{operation}: a window of {window} cannot be shifted inside {size[0]} x {size[1]} cells"
        )


def neighbourhood_index(
    size: tuple[int, int],
    window: int,
    border: Border = "mask",
    *,
    device: torch.device | None = None,
) -> tuple[Tensor, Tensor]:
    """Members of each window: int64 (N, W), 0 outside the image, and bool (N, W), True = inside."""
    where = plain.layout(*size, window, border == "clamp", device or torch.device("cpu"))
    steps = torch.arange(window, device=where.rows.device)
    row = (where.rows[:, None] + steps - where.pad)[:, None, :, None]
    column = (where.columns[:, None] + steps - where.pad)[None, :, None, :]
    inside = (row >= 0) & (row < size[0]) & (column >= 0) & (column < size[1])
    index = (row * size[1] + column).masked_fill(~inside, 0)
    return index.reshape(size[0] * size[1], -1), inside.reshape(size[0] * size[1], -1)


def relative_index(
    size: tuple[int, int],
    window: int,
    border: Border = "mask",
    *,
    device: torch.device | None = None,
) -> Tensor:
    """int64 (N, W): place in a table of (2 w - 1)^2 biases of how each member lies to its cell, row
    by row.
    """
    where = plain.layout(*size, window, border == "clamp", device or torch.device("cpu"))
    steps = torch.arange(window, device=where.rows.device) - where.pad + window - 1
    row = where.rows[:, None] + steps - torch.arange(size[0], device=steps.device)[:, None]
    column = where.columns[:, None] + steps - torch.arange(size[1], device=steps.device)[:, None]
    index = row[:, None, :, None] * (2 * window - 1) + column[None, :, None, :]
    return index.reshape(size[0] * size[1], -1)


def neighbourhood_scores(
    query: Tensor, key: Tensor, size: tuple[int, int], window: int, *, border: Border = "mask"
) -> Tensor:
    """query_i . key_j for the members j of i's window: (B, H, N, d) twice -> (B, H, N, W), 0
    outside the image.

    Raises ValueError if shapes do not fit.
    """
    _check("neighbourhood_scores", query, key, size, window, border)
    return torch.ops.headwise.neighbourhood_scores(query, key, *size, window, border == "clamp")


def neighbourhood_sum(
    weights: Tensor, value: Tensor, size: tuple[int, int], window: int, *, border: Border = "mask"
) -> Tensor:
    """sum_j weights_ij value_j over i's window, as given: (B, H, N, W), (B, H, N, e) -> (B, H, N,
    e).

    Raises ValueError if shapes do not fit.
    """
    _check("neighbourhood_sum", weights, value, size, window, border)
    return torch.ops.headwise.neighbourhood_sum(weights, value, *size, window, border == "clamp")


def neighbourhood_attention(
    logits: Tensor,
    value: Tensor,
    size: tuple[int, int],
    window: int,
    *,
    border: Border = "mask",
    mask: Tensor | None = None,
    extra: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """One softmax over i's window [and over further keys], then the weighted mean of the values.

    logits: (B, H, N, W); value: (B, H, N, e); mask: bool (B, N), True = a cell that may be attended
    to; extra: (out, lse) of the attention to the further keys, (B, H, N, e) and (B, H, N), as
    `attend_with_lse` gives them. A cell without any key receives 0. Returns (B, H, N, e).

    Raises ValueError if shapes do not fit.
    """
    _check("neighbourhood_attention", logits, value, size, window, border)
    if logits.shape[3] != window * window:
        raise ValueError(
            f"neighbourhood_attention: needs {window * window} logits a cell, got {logits.shape[3]}"
        )
    if mask is not None and (
        mask.dtype != torch.bool or mask.shape != (value.shape[0], value.shape[2])
    ):
        raise ValueError(
            f"neighbourhood_attention: mask must be bool (batch, cells), got {tuple(mask.shape)}"
        )
    if extra is not None and (extra[0].shape != value.shape or extra[1].shape != value.shape[:3]):
        got = ", ".join(str(tuple(part.shape)) for part in extra)
        raise ValueError(
            f"neighbourhood_attention: extra must be (out, lse) for {tuple(value.shape)}, got {got}"
        )
    local = torch.ops.headwise.neighbourhood_read(
        logits, value, mask, *size, window, border == "clamp"
    )
    if extra is None:
        return local[0]
    wide = local[1].dtype
    out, _ = merge_partials([(out.to(wide), lse.to(wide)) for out, lse in (local, extra)])
    return out.to(value.dtype)


def forms(*tensors: Tensor) -> list[Form]:
    """What can compute these operators for such tensors."""
    return [
        Form("Triton kernel, window by window", triton_refused(*tensors)),
        Form("PyTorch, products of bands"),
    ]


def _layout(value: Tensor, height: int, width: int, window: int, clamp: bool) -> plain.Layout:
    return plain.layout(height, width, window, clamp, value.device)


@torch.library.custom_op("headwise::neighbourhood_scores", mutates_args=())
def _scores(
    query: Tensor, key: Tensor, height: int, width: int, window: int, clamp: bool
) -> Tensor:
    return plain.products(query, key, _layout(query, height, width, window, clamp)).to(query.dtype)


@_scores.register_fake
def _(query, key, height, width, window, clamp):  # type: ignore[no-untyped-def]
    return query.new_empty((*query.shape[:3], window * window))


@torch.library.custom_op("headwise::neighbourhood_sum", mutates_args=())
def _sum(
    weights: Tensor, value: Tensor, height: int, width: int, window: int, clamp: bool
) -> Tensor:
    return plain.weighted(weights, value, _layout(value, height, width, window, clamp)).to(
        value.dtype
    )


@_sum.register_fake
def _(weights, value, height, width, window, clamp):  # type: ignore[no-untyped-def]
    return value.new_empty(value.shape)


@torch.library.custom_op("headwise::neighbourhood_scatter", mutates_args=())
def _scatter(
    weights: Tensor, value: Tensor, height: int, width: int, window: int, clamp: bool
) -> Tensor:
    return plain.scattered(weights, value, _layout(value, height, width, window, clamp)).to(
        value.dtype
    )


@_scatter.register_fake
def _(weights, value, height, width, window, clamp):  # type: ignore[no-untyped-def]
    return value.new_empty(value.shape)


@torch.library.custom_op("headwise::neighbourhood_read", mutates_args=())
def _read(
    logits: Tensor,
    value: Tensor,
    mask: Tensor | None,
    height: int,
    width: int,
    window: int,
    clamp: bool,
) -> tuple[Tensor, Tensor]:
    return plain.read(logits, value, mask, _layout(value, height, width, window, clamp))


@_read.register_fake
def _(logits, value, mask, height, width, window, clamp):  # type: ignore[no-untyped-def]
    return value.new_empty(value.shape), logits.new_empty(
        logits.shape[:3], dtype=plain.compute_type(logits)
    )


@torch.library.custom_op("headwise::neighbourhood_read_backward", mutates_args=())
def _read_backward(
    grad: Tensor,
    grad_lse: Tensor,
    logits: Tensor,
    value: Tensor,
    mask: Tensor | None,
    out: Tensor,
    lse: Tensor,
    height: int,
    width: int,
    window: int,
    clamp: bool,
) -> tuple[Tensor, Tensor]:
    where = _layout(value, height, width, window, clamp)
    return plain.read_backward(grad, grad_lse, logits, value, mask, out, where)


@_read_backward.register_fake
def _(grad, grad_lse, logits, value, mask, out, lse, height, width, window, clamp):  # type: ignore[no-untyped-def]
    return logits.new_empty(logits.shape), value.new_empty(value.shape)


# Triton is imported at the first call with a CUDA tensor: it is optional, and nobody on a CPU pays
# for it.
def _device(value: Tensor):  # type: ignore[no-untyped-def]  # pragma: no cover - needs a GPU
    """The Triton form, None where it cannot take the tensors: without Triton, float64, or values
    wider than 128.
    """
    from importlib.util import find_spec

    if value.dtype == torch.float64 or value.shape[3] > 128 or find_spec("triton") is None:
        return None
    from . import triton as neighbourhood_triton

    return neighbourhood_triton


@_scores.register_kernel("cuda")
def _(query, key, height, width, window, clamp):  # type: ignore[no-untyped-def]  # pragma: no cover - needs a GPU
    device = _device(query)
    if device is not None:
        return device.products(query, key, height, width, window, clamp)
    return plain.products(query, key, _layout(query, height, width, window, clamp)).to(query.dtype)


@_sum.register_kernel("cuda")
def _(weights, value, height, width, window, clamp):  # type: ignore[no-untyped-def]  # pragma: no cover - needs a GPU
    device = _device(value)
    if device is not None:
        return device.weighted(weights, value, height, width, window, clamp)
    return plain.weighted(weights, value, _layout(value, height, width, window, clamp)).to(
        value.dtype
    )


@_scatter.register_kernel("cuda")
def _(weights, value, height, width, window, clamp):  # type: ignore[no-untyped-def]  # pragma: no cover - needs a GPU
    device = _device(value)
    if device is not None:
        return device.scattered(weights, value, height, width, window, clamp)
    return plain.scattered(weights, value, _layout(value, height, width, window, clamp)).to(
        value.dtype
    )


@_read.register_kernel("cuda")
def _(logits, value, mask, height, width, window, clamp):  # type: ignore[no-untyped-def]  # pragma: no cover - needs a GPU
    device = _device(value)
    if device is not None:
        return device.read(logits, value, mask, height, width, window, clamp)
    return plain.read(logits, value, mask, _layout(value, height, width, window, clamp))


@_read_backward.register_kernel("cuda")
def _(grad, grad_lse, logits, value, mask, out, lse, height, width, window, clamp):  # type: ignore[no-untyped-def]  # pragma: no cover - needs a GPU
    device = _device(value)
    if device is not None:
        layout = (height, width, window, clamp)
        return device.read_backward(grad, grad_lse, logits, value, mask, out, lse, *layout)
    where = _layout(value, height, width, window, clamp)
    return plain.read_backward(grad, grad_lse, logits, value, mask, out, where)


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    first, second, *ctx.layout = inputs
    ctx.save_for_backward(first, second)


def _scores_gradient(ctx, grad):  # type: ignore[no-untyped-def]
    query, key = ctx.saved_tensors
    d_query = torch.ops.headwise.neighbourhood_sum(grad, key, *ctx.layout)
    return (
        d_query,
        torch.ops.headwise.neighbourhood_scatter(grad, query, *ctx.layout),
        None,
        None,
        None,
        None,
    )


def _sum_gradient(ctx, grad):  # type: ignore[no-untyped-def]
    weights, value = ctx.saved_tensors
    d_weights = torch.ops.headwise.neighbourhood_scores(grad, value, *ctx.layout).to(weights.dtype)
    return (
        d_weights,
        torch.ops.headwise.neighbourhood_scatter(weights, grad, *ctx.layout),
        None,
        None,
        None,
        None,
    )


def _save_read(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    logits, value, mask, *ctx.layout = inputs
    ctx.save_for_backward(logits, value, mask, *output)


def _read_gradient(ctx, grad, grad_lse):  # type: ignore[no-untyped-def]
    logits, value, mask, out, lse = ctx.saved_tensors
    d_logits, d_value = torch.ops.headwise.neighbourhood_read_backward(
        grad, grad_lse, logits, value, mask, out, lse, *ctx.layout
    )
    return d_logits, d_value, None, None, None, None, None


_scores.register_autograd(_scores_gradient, setup_context=_save)
_sum.register_autograd(_sum_gradient, setup_context=_save)
_read.register_autograd(_read_gradient, setup_context=_save_read)
