"""Exchange of partial softmaxes: attention over parts of the keys, joined by their log-sum-exps.

    out = sum_p exp(lse_p - lse) out_p,   lse = logsumexp_p lse_p

Each part is (out, lse) with out the softmax-weighted mean over its own keys. A part without keys
has lse -inf and counts nothing. Work: one pass over the outputs; no scores are needed again.

A part by `attend_with_lse` (B batch, H heads, N queries, M keys of the part) keeps nothing of size
N M: with p_ij = exp(s_ij - lse_i), its backward pass d s_ij = p_ij (g_i . v_j - g_i . out_i +
g_lse_i) makes the scores again."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..softmax_pool.cpu import SLICE_NUMBERS, compute_type


def attend_with_lse(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Softmax attention with the logarithm of its denominators, both differentiable.

    query: (B, H, N, d), key: (B, H, M, d), value: (B, H, M, e); mask: bool, True = may attend, and
    bias: added to the scores, broadcast to (B, H, N, M); scale: by default 1 / sqrt(d). Returns out
    (B, H, N, e) and lse (B, H, N), which is float32 for half precision. A query without a key has
    out 0 and lse -inf.

    Raises ValueError for shapes or types that do not fit.
    """
    _check(query, key, value, mask, bias)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return torch.ops.headwise.attend_with_lse(query, key, value, mask, bias, scale)


def merge_partials(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """(out, lse) over all keys from those over parts of them: out (..., e), lse (...), -inf without
    a key.

    Carries gradients to each out and lse. Where no part has a key, out is 0, lse is -inf and
    gradients are 0.

    Raises ValueError without parts.
    """
    if not parts:
        raise ValueError("merge_partials: needs at least one part")
    lses = torch.stack([lse for _, lse in parts])
    top = lses.detach().amax(0)
    top = top.masked_fill(top == -torch.inf, 0.0)
    shares = (lses - top).exp()
    total = shares.sum(0)
    empty = total == 0
    shares = shares / total.masked_fill(empty, 1.0)
    out = sum(share[..., None].to(part.dtype) * part for share, (part, _) in zip(shares, parts))
    assert isinstance(out, Tensor)
    lse = (total.masked_fill(empty, 1.0).log() + top).masked_fill(empty, -torch.inf)
    return out, lse


def _check(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, bias: Tensor | None
) -> None:
    if query.ndim != 4 or key.ndim != 4 or value.ndim != 4 or key.shape[:3] != value.shape[:3]:
        shapes = ", ".join(str(tuple(x.shape)) for x in (query, key, value))
        raise ValueError(
            f"attend_with_lse: needs query, key, value of (batch, heads, tokens, width), got {shapes}"
        )
    if query.shape[:2] != key.shape[:2] or query.shape[3] != key.shape[3]:
        raise ValueError(
            f"attend_with_lse: keys {tuple(key.shape)} do not fit queries {tuple(query.shape)}"
        )
    if not query.dtype == key.dtype == value.dtype or not query.is_floating_point():
        raise ValueError(
            f"attend_with_lse: needs one floating type, got {query.dtype}, {key.dtype}, {value.dtype}"
        )
    if mask is not None and mask.dtype != torch.bool:
        raise ValueError(f"attend_with_lse: mask must be bool, True = may attend, got {mask.dtype}")
    full = (*query.shape[:3], key.shape[2])
    for name, given in (("mask", mask), ("bias", bias)):
        if given is not None and (
            given.ndim > 4
            or any(a not in (1, b) for a, b in zip(given.shape[::-1], full[::-1], strict=False))
        ):
            raise ValueError(
                f"attend_with_lse: {name} {tuple(given.shape)} does not broadcast to {full}"
            )


def _blocks(query: Tensor, key: Tensor) -> Iterator[slice]:
    """Queries whose scores fit the cache."""
    step = max(1, SLICE_NUMBERS // max(query.shape[0] * query.shape[1] * key.shape[2], 1))
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


@torch.library.custom_op("headwise::attend_with_lse", mutates_args=())
def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    kind = compute_type(query)
    out = query.new_zeros((*query.shape[:3], value.shape[-1]))
    lse = query.new_full(query.shape[:3], -torch.inf, dtype=kind)
    if key.shape[2] == 0 or out.numel() == 0:
        return out, lse
    key, value = key.to(kind), value.to(kind)
    for rows in _blocks(query, key):
        scores = _scores(query, key, mask, bias, scale, rows)
        top = scores.amax(-1, keepdim=True)
        top.masked_fill_(top == -torch.inf, 0.0)
        weights = scores.sub_(top).exp_()
        total = weights.sum(-1, keepdim=True)
        lse[:, :, rows] = (total.log() + top)[..., 0]
        out[:, :, rows] = (weights @ value) / total.masked_fill_(total == 0, 1.0)
    return out, lse


@_attend.register_fake
def _(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    out = query.new_empty((*query.shape[:3], value.shape[-1]))
    return out, query.new_empty(query.shape[:3], dtype=compute_type(query))


@torch.library.custom_op("headwise::attend_with_lse_backward", mutates_args=())
def _attend_backward(
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
    for rows in _blocks(query, key):
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


@_attend_backward.register_fake
def _(
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
    d_bias = query.new_empty((0,)) if bias is None else bias.new_empty(bias.shape)
    return (
        query.new_empty(query.shape),
        key.new_empty(key.shape),
        value.new_empty(value.shape),
        d_bias,
    )


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors, *output)


def _gradient(ctx, grad: Tensor, grad_lse: Tensor):  # type: ignore[no-untyped-def]
    query, key, value, mask, bias, out, lse = ctx.saved_tensors
    d_query, d_key, d_value, d_bias = torch.ops.headwise.attend_with_lse_backward(
        grad, grad_lse, query, key, value, mask, bias, out, lse, ctx.scale
    )
    return d_query, d_key, d_value, None, None if bias is None else d_bias, None


_attend.register_autograd(_gradient, setup_context=_save)
