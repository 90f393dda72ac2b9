"""PyTorch's fused attention with its log-sum-exp, forward and backward, for operators that merge
parts of the keys or read more than the mean of the values.

Shapes: B batch, H heads, N queries, M keys, d width of queries and keys, e width of values.

    out_i = sum_j p_ij v_j,  p_ij = exp(s_ij - lse_i),  s = scale q k^T
    backward: d s_ij = p_ij (g_i . v_j - delta_i),  delta_i = g_i . out_i

The operators behind `scaled_dot_product_attention` are called themselves, since only they give lse,
and since their backward pass takes any lse and out: those of a softmax over more keys make its
gradients those of that softmax. On a GPU it is the flash kernel (Dao, arXiv 2307.08691), whose
gradients of queries are added in a fixed order here (`repeatable`)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from .forms import too_old

MOST_WIDTH, MOST_WIDTH_BACKWARD = (
    256,
    192,
)  # of a GPU's kernel; above 192 some GPUs have no backward
SIDES = (32, 64, 96, 128, 192, 256)  # widths of its tiles
MOST_BLOCKS = 65_535  # samples or heads: the second and third axis of a grid
HIDDEN = -1e30  # a score that is hidden; bfloat16 and float32 hold it

_of_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_of_cpu_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
_of_gpu = torch.ops.aten._scaled_dot_product_flash_attention
_of_gpu_backward = torch.ops.aten._scaled_dot_product_flash_attention_backward


def device_refused(x: Tensor) -> str:
    """Why the device of x has no flash kernel; "" where it has one."""
    if not x.is_cuda:
        return f"the tensors are on {x.device.type}, the flash kernel is for CUDA"
    if torch.version.hip:
        return "its log-sum-exp has not been checked on ROCm"
    return too_old(x.device)


def refused(query: Tensor, width: int, most: int = MOST_WIDTH) -> str:
    """Why the flash kernel of a GPU does not take such queries with tiles as wide as `width`; ""
    where it does.
    """
    of_shape = shape_refused(query, width, most)
    # On a GPU what does not fit is known without asking the device.
    return of_shape if query.is_cuda and of_shape else device_refused(query) or of_shape


def shape_refused(query: Tensor, width: int, most: int) -> str:
    """Why the flash kernel of no GPU takes such queries; "" where one may."""
    if query.dtype not in (torch.float16, torch.bfloat16):
        return f"the flash kernel does not take {str(query.dtype).removeprefix('torch.')}"
    if width > most:
        return f"tiles {width} wide, the flash kernel takes {most}"
    if max(query.shape[:2]) > MOST_BLOCKS:
        return f"more than {MOST_BLOCKS} samples or heads"
    return ""


def side(width: int) -> int:
    """Width that the kernel computes with, which its time is proportional to.

    >>> side(64), side(65)
    (64, 96)
    """
    return next((size for size in SIDES if size >= width), width)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    causal: bool = False,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """(out (B, H, N, e), lse (B, H, N)) of (B, H, N, d), (B, H, M, d) and (B, H, M, e), M at least
    1. causal: as many queries as keys, each sees those up to its own. bias: added to the scores,
    broadcasts to (B, H, N, M), in the type of the query; on the CPU alone. A query whose bias is
    -inf everywhere has out 0 and lse 0.
    """
    q, k, v = _fitted(query, key, value)
    if query.is_cpu:
        out, lse = _of_cpu(q, k, v, 0.0, causal, attn_mask=bias, scale=scale)
    else:
        out, lse, *_ = _of_gpu(q, k, v, 0.0, causal, scale=scale)
    return out[..., : value.shape[3]], lse


def attend_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    scale: float,
    causal: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value; out and lse may be those over more keys than these. lse is
    +inf for a query whose weights are 0.
    """
    widths = query.shape[3], key.shape[3], value.shape[3]
    q, k, v, g, o = _fitted(query, key, value, grad, out)
    if query.is_cpu:
        slopes = _of_cpu_backward(g, q, k, v, o, lse, 0.0, causal, scale=scale)
    else:
        # The state of dropout's random numbers, which are not used.
        state = [torch.empty(n, dtype=torch.uint64, device=query.device) for n in ((2,), ())]
        most = query.shape[2], key.shape[2]
        rest = lse.contiguous(), None, None, *most, 0.0, causal, *state
        with repeatable():
            slopes = _of_gpu_backward(g, q, k, v, o, *rest, scale=scale)
    d_query, d_key, d_value = (slope[..., :width] for slope, width in zip(slopes, widths))
    return d_query, d_key, d_value


def _fitted(*tensors: Tensor) -> list[Tensor]:
    """The tensors with zeros up to the width of the widest, as the kernels read them: rows without
    gaps between numbers; on a GPU rows of multiples of 16 bytes that start at such.
    """
    width = max(x.shape[3] for x in tensors)
    width = width if tensors[0].is_cpu else 8 * ((width + 7) // 8)
    fitted = []
    for x in tensors:
        missing = width - x.shape[3]
        x = F.pad(x, (0, missing)) if missing else x
        steps = (*x.stride()[:3], x.storage_offset())
        ready = x.stride(3) == 1 and (x.is_cpu or not any(step % 8 for step in steps))
        fitted.append(x if ready else x.contiguous())
    return fitted


@contextmanager
def repeatable() -> Iterator[None]:
    """Within, the flash kernel adds gradients of queries in a fixed order, so that two runs are
    equal bit by bit. It has no other switch for this than that of the process.
    """
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("error")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)


def with_hidden(query: Tensor, key: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Queries and keys whose scores are hidden where a mask of keys (B or 1, 1, 1, M) is False: of
    the numbers that stand for it, the queries have 1 and hidden keys `HIDDEN`. What hidden keys
    hold, NaN too, is not read. The scale must be positive; None hides nothing.
    """
    if mask is None:
        return query, key
    shown = mask[:, :, 0, :, None].expand(*key.shape[:3], 1)
    marks = torch.zeros_like(key[..., :1]).masked_fill_(~shown, HIDDEN)
    return (
        torch.cat([query, torch.ones_like(query[..., :1])], -1),
        torch.cat([key.masked_fill(~shown, 0.0), marks], -1),
    )


def in_parts(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Three numbers of a shorter type whose sum is x (...) of float32: (..., 3)."""
    parts, rest = [], x
    for _ in range(3):
        parts.append(rest.to(dtype))
        rest = rest - parts[-1].to(x.dtype)
    return torch.stack(parts, -1)


def through_weights(
    towards: Tensor,
    values: Tensor,
    delta: Tensor,
    query: Tensor,
    key: Tensor,
    lse: Tensor,
    scale: float,
    causal: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and values where the gradient of the scores is

        d s_ij = p_ij (towards_i . values_j - delta_i)

    with any delta (B, H, N), float32. The kernel computes delta as the product of its gradient and
    its output: three more columns, ones in the gradient, values of 0, take delta's parts as their
    output, and all other columns an output of 0. towards: (B, H, N, c); values: (B, H, M, c); the
    gradient of values is p^T towards.
    """
    zeros, width = torch.zeros_like(towards), towards.shape[3]
    ones, parts = torch.ones_like(delta), in_parts(delta, towards.dtype)
    ones = ones.to(towards.dtype)[..., None].expand(*delta.shape, 3)
    columns = values.new_zeros((*values.shape[:3], 3))
    d_query, d_key, d_values = attend_backward(
        torch.cat([towards, ones], -1),
        query,
        key,
        torch.cat([values, columns], -1),
        torch.cat([zeros, parts], -1),
        lse,
        scale,
        causal,
    )
    return d_query, d_key, d_values[..., :width]
