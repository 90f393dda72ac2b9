"""Attention within a window of a grid, from scores that may come from anywhere, without unfolding
the grid.

Shapes: B batch, H heads, N = Y X cells row by row, w window (odd), W = w w members of a window row
by row, d width of queries and keys, e width of values.

    scores_ij = q_i . k_j,   out_i = sum_j p_ij v_j
    p_i = softmax over the members j of i's window [and more keys]
    d p_ij = g_i . v_j,   d scores = p (d p - g . out)
    d v_j = sum over all i whose window holds j of p_ij g_i

Work: 2 B H N W e flops for each of these products; the N W scores are inputs. Unfolding copies each
value W times (289 at 17 x 17) and stores the copies; here values are read in place. Scores, their
softmax and the sum are three operators, because their users put other steps in between (a relative
bias, a mixing of groups, a term after it). Border "mask": the window is centred and what
lies outside the image is no member. "clamp": the window is shifted inside the image, so that it
always has W members.

Stored for the backward pass: inputs, output and lse; the softmax is computed again.
"""

from typing import Literal

import torch
from torch import Tensor

from ..forms import Form, triton_refused
from ..partial_softmax import merge_partials
from ..precision import compute_type, width_refused
from ..register import differentiate, operator
from . import cpu, naive

Border = Literal["mask", "clamp"]


def _check(
    operation: str,
    first: Tensor,
    second: Tensor,
    size: tuple[int, int],
    window: int,
    border: Border,
) -> None:
    if first.ndim != 4 or second.ndim != 4 or first.shape[:3] != second.shape[:3]:
        raise ValueError(
            f"{operation}: needs two (batch, heads, cells, ·), got {tuple(first.shape)}, "
            f"{tuple(second.shape)}"
        )
    if size[0] * size[1] != first.shape[2]:
        raise ValueError(
            f"{operation}: size {size[0]} x {size[1]} does not hold {first.shape[2]} cells"
        )
    if window < 1 or window % 2 == 0:
        raise ValueError(f"{operation}: window must be odd, got {window}")
    if border not in ("mask", "clamp"):
        raise ValueError(f"{operation}: border must be 'mask' or 'clamp', got {border!r}")
    if border == "clamp" and min(size) < window:
        raise ValueError(
            f"{operation}: a window of {window} cannot be shifted inside {size[0]} x {size[1]} "
            f"cells"
        )


def neighbourhood_index(
    size: tuple[int, int],
    window: int,
    border: Border = "mask",
    *,
    device: torch.device | None = None,
) -> tuple[Tensor, Tensor]:
    """Members of each window: int64 (N, W), 0 outside the image, and bool (N, W), True = inside."""
    return naive.members(*size, window, border == "clamp", device or torch.device("cpu"))


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
    where = cpu.layout(*size, window, border == "clamp", device or torch.device("cpu"))
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


def forms(*tensors: Tensor, width: int | None = None) -> list[Form]:
    """What can compute these operators for such tensors; width: of the values, by default that of
    the last tensor.
    """
    refused = triton_refused(*tensors) or kernel_refused(tensors[-1], width)
    return [Form("Triton kernel, window by window", refused), Form("PyTorch, products of bands")]


def scores_backward(
    grad: Tensor, query: Tensor, key: Tensor, height: int, width: int, window: int, clamp: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of the query and the key of `neighbourhood_scores`, by the other operators."""
    layout = (height, width, window, clamp)
    operators = torch.ops.headwise
    d_query = operators.neighbourhood_sum(grad, key, *layout)
    return d_query, operators.neighbourhood_scatter(grad, query, *layout)


def sum_backward(
    grad: Tensor, weights: Tensor, value: Tensor, height: int, width: int, window: int, clamp: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of the weights and the value of `neighbourhood_sum`, by the other operators."""
    layout = (height, width, window, clamp)
    operators = torch.ops.headwise
    d_weights = operators.neighbourhood_scores(grad, value, *layout).to(weights.dtype)
    return d_weights, operators.neighbourhood_scatter(weights, grad, *layout)


def kernel_refused(value: Tensor, width: int | None = None) -> str:
    """Why the Triton kernels cannot take the values: float64, or wider than 128; "" where they
    can. width: that of the values, if they are not made yet.
    """
    width = value.shape[-1] if width is None else width
    return width_refused(value, width, single=128, half=128)


def fits(value: Tensor) -> bool:
    """Whether the Triton kernels can take the values."""
    return not kernel_refused(value)


differentiate(
    operator(
        "neighbourhood_scores",
        cpu.products,
        fake=lambda query, key, height, width, window, clamp: query.new_empty(
            (*query.shape[:3], window * window)
        ),
        fits=lambda query: fits(query),
    ),
    cpu.products,
    scores_backward,
    ("query", "key"),
)
differentiate(
    operator(
        "neighbourhood_sum",
        cpu.weighted,
        fake=lambda weights, value, *layout: value.new_empty(value.shape),
        fits=fits,
    ),
    cpu.weighted,
    sum_backward,
    ("weights", "value"),
)
operator(
    "neighbourhood_scatter",
    cpu.scattered,
    fake=lambda weights, value, *layout: value.new_empty(value.shape),
    fits=fits,
)
operator(
    "neighbourhood_read",
    cpu.read,
    fake=lambda logits, value, *rest: (
        value.new_empty(value.shape),
        logits.new_empty(logits.shape[:3], dtype=compute_type(logits)),
    ),
    results=("out", "lse"),
    fits=fits,
    backward=cpu.read_backward,
    backward_fits=fits,
    gradients=("logits", "value"),
)
