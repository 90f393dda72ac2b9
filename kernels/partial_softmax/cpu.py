"""PyTorch form of attention to a part of the keys with its log-sum-exp, on every device.

Shapes: B batch, H heads, N queries, M keys of the part, d and e widths of a head. Queries are taken
in blocks whose scores stay in the cache."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ..precision import SLICE_NUMBERS, compute_type

DEVICE_NUMBERS = 1 << 26  # scores of a block off the CPU, where many blocks are many launches


def blocks(query: Tensor, key: Tensor) -> Iterator[slice]:
    """Queries whose scores fit the cache of a CPU, or a small part of a GPU's memory."""
    room = SLICE_NUMBERS if query.is_cpu else DEVICE_NUMBERS
    step = max(1, room // max(query.shape[0] * query.shape[1] * key.shape[2], 1))
    return (slice(start, start + step) for start in range(0, query.shape[2], step))


def _rows(x: Tensor, rows: slice) -> Tensor:
    """Those queries of a mask or bias, which may be broadcast along them or lack dimensions in
    front.
    """
    return x[..., rows, :] if x.ndim > 1 and x.shape[-2] > 1 else x


def _scores(
    query: Tensor, key: Tensor, mask: Tensor | None, bias: Tensor | None, scale: float, rows: slice
) -> Tensor:
    scores = (query[:, :, rows].to(key.dtype) * scale) @ key.transpose(2, 3)
    if bias is not None:
        scores += _rows(bias, rows)
    return scores if mask is None else scores.masked_fill_(~_rows(mask, rows), -torch.inf)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """(out (B, H, N, e), lse (B, H, N)); 0 and -inf for a query without a key."""
    kind = compute_type(query)
    out = query.new_zeros((*query.shape[:3], value.shape[-1]))
    lse = query.new_full(query.shape[:3], -torch.inf, dtype=kind)
    if key.shape[2] == 0 or out.numel() == 0:
        return out, lse
    key, value = key.to(kind), value.to(kind)
    for rows in blocks(query, key):
        scores = _scores(query, key, mask, bias, scale, rows)
        top = scores.amax(-1, keepdim=True)
        top.masked_fill_(top == -torch.inf, 0.0)
        weights = scores.sub_(top).exp_()
        total = weights.sum(-1, keepdim=True)
        lse[:, :, rows] = (total.log() + top)[..., 0]
        out[:, :, rows] = (weights @ value) / total.masked_fill_(total == 0, 1.0)
    return out, lse


def attend_backward(
    grad: Tensor,
    grad_lse: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    out: Tensor,
    lse: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key, value and bias, (0,) without a bias; the scores are computed
    again."""
    kind = compute_type(query)
    d_query = torch.zeros_like(query, memory_format=torch.contiguous_format)
    d_key = key.new_zeros(key.shape, dtype=kind)
    d_value = value.new_zeros(value.shape, dtype=kind)
    d_bias = query.new_zeros((0,)) if bias is None else bias.new_zeros(bias.shape)
    if key.shape[2] == 0 or query.numel() == 0:
        return d_query, d_key.to(key.dtype), d_value.to(value.dtype), d_bias
    wide_key, wide_value, wide_grad = key.to(kind), value.to(kind), grad.to(kind)
    shift = grad_lse - (wide_grad * out).sum(-1)
    lse = lse.masked_fill(
        lse == -torch.inf, torch.inf
    )  # every weight of an empty row becomes exp(-inf) = 0
    for rows in blocks(query, key):
        weights = (
            _scores(query, wide_key, mask, bias, scale, rows).sub_(lse[:, :, rows, None]).exp_()
        )
        g = wide_grad[:, :, rows]
        d_value += weights.transpose(2, 3) @ g
        d_score = (g @ wide_value.transpose(2, 3)).add_(shift[:, :, rows, None]).mul_(weights)
        if bias is not None:
            part = _rows(d_bias, rows)
            part += d_score.sum_to_size(part.shape)
        d_query[:, :, rows] = d_score @ wide_key * scale
        d_key += d_score.transpose(2, 3) @ (query[:, :, rows].to(kind) * scale)
    return d_query, d_key.to(key.dtype), d_value.to(value.dtype), d_bias
