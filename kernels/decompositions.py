"""Decompositions of our operators into plain PyTorch, so that an exported program runs where
Headwise is absent.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import KERNELS, signed_root_attention
from .attention_stats.cpu import FLOOR, HIDDEN
from .differential_combine import difference
from .precision import compute_type
from .register import EXPORT_FORMS


def plain_decompositions() -> dict[torch._ops.OperatorBase, Callable[..., Any]]:
    """Table for `torch.export.ExportedProgram.run_decompositions`: our inference operators in plain
    PyTorch.

    The operators that were registered with a form for export. Those that draw belong to training
    and stay opaque: a graph has no plain form of them that a seed decides. So do the operators on
    windows of a grid.
    """
    for kernel in KERNELS.values():
        import_module(f"{__package__}.{kernel.module}")
    return {
        torch.ops.headwise.signed_root_attention.default: signed_root_attention.attention_plain,
        torch.ops.headwise.differential_combine.default: combine_decomposed,
        torch.ops.headwise.gathered_heads.default: gathered_decomposed,
        torch.ops.headwise.tensor_attention.default: tensor_decomposed,
        torch.ops.headwise.pair_attention.default: pair_decomposed,
        torch.ops.headwise.attention_stats.default: stats_decomposed,
    } | EXPORT_FORMS


def combine_decomposed(
    rows: Tensor, lam: Tensor, weight: Tensor | None, signal: int, eps: float, scale: float
) -> tuple[Tensor, Tensor]:
    """(out, r) of `differential_combine`, all rows at once; contiguous, as the operator's."""
    y = difference(rows, lam, signal)[0].flatten(1, 2).contiguous()
    if weight is None:
        return y.to(rows.dtype), y.new_empty((0,))
    r = (y.square().mean(-1) + eps).rsqrt()
    return (y * r[..., None] * (weight.to(y.dtype) * scale)).to(rows.dtype), r


def gathered_decomposed(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    gate: Tensor,
    mask: Tensor | None,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """(out, nothing of use) of `gathered_heads`: all heads, times the gate; a graph has no sizes
    that data decide.
    """
    if causal:
        tokens, keys = query.shape[2], key.shape[2]
        before = torch.ones(tokens, keys, dtype=torch.bool, device=query.device).tril(keys - tokens)
        mask = before if mask is None else mask & before
    out = F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scale, enable_gqa=query.shape[1] != key.shape[1]
    )
    return (out * gate[..., None]).to(out.dtype), out.new_zeros(
        out.shape[:-1], dtype=compute_type(out)
    )


def tensor_decomposed(
    query: Tensor,
    key1: Tensor,
    value1: Tensor,
    key2: Tensor,
    value2: Tensor,
    mask1: Tensor | None,
    mask2: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """(out, nothing of use) of `tensor_attention`: all pairs written out, so cubic memory."""
    scores = (
        torch.einsum("bhid,bhjd,bhld->bhijl", query, key1, key2).to(compute_type(query)) * scale
    )
    for mask, at in (
        (mask1, (slice(None), None, None, slice(None), None)),
        (mask2, (slice(None), None, None, None)),
    ):
        if mask is not None:
            scores = scores.masked_fill(~mask[at], torch.finfo(scores.dtype).min)
    weights = scores.flatten(3).softmax(-1).view(scores.shape)
    for mask, at in (
        (mask1, (slice(None), None, None, slice(None), None)),
        (mask2, (slice(None), None, None, None)),
    ):
        if mask is not None:
            weights = weights * mask[at]
    mixed = torch.einsum("bhijl,bhje,bhle->bhie", weights.to(value1.dtype), value1, value2)
    return mixed, scores.new_zeros(query.shape[:3])


def pair_decomposed(
    query: Tensor, key: Tensor, value: Tensor, partner: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """(out, nothing of use) of `pair_attention`, with keys and values of both samples joined."""
    keys, values = (torch.cat([x, x.index_select(0, partner)], 2) for x in (key, value))
    out = F.scaled_dot_product_attention(query, keys, values, scale=scale)
    # As the operator's, in which the heads of a token lie side by side.
    out = out.transpose(1, 2).contiguous().transpose(1, 2)
    return out, out.new_zeros(out.shape[:-1], dtype=compute_type(out))


def stats_decomposed(
    query: Tensor,
    key: Tensor,
    value: Tensor | None,
    mask: Tensor | None,
    keys: Tensor | None,
    weights: Tensor | None,
    scale: float,
    causal: bool,
    entropy: bool,
    columns: bool,
    top: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Read-outs of `attention_stats` from all N x M weights at once: a graph has no loop over
    blocks.
    """
    kind, group, count = compute_type(query), query.shape[1] // key.shape[1], key.shape[2]
    none = query.new_zeros((0,), dtype=kind)
    scores = (query.to(kind) * scale) @ key.to(kind).repeat_interleave(group, 1).mT
    if mask is not None:
        scores = scores.masked_fill(~mask, HIDDEN)
    if causal:
        shape = query.shape[2], count
        before = torch.ones(shape, dtype=torch.bool, device=query.device).tril(
            count - query.shape[2]
        )
        scores = scores.masked_fill(~before, HIDDEN)
    bare = scores.amax(-1) <= FLOOR
    p = scores.softmax(-1).masked_fill(scores <= FLOOR, 0.0)
    lse = scores.logsumexp(-1).masked_fill(bare, -torch.inf)
    output = query.new_zeros((0,))
    if value is not None:
        output = (p @ value.to(kind).repeat_interleave(group, 1)).to(query.dtype)
    spread = lse.masked_fill(bare, 0.0) - (p * scores).sum(-1) if entropy else none
    held = none if keys is None else (p * keys[:, :, None]).sum(-1)
    counted = p if weights is None else p * weights[:, None, :, None]
    values, places = none, torch.zeros((0,), dtype=torch.int64, device=query.device)
    if top:
        values, places = p.topk(min(top, count), -1)
        places = places.masked_fill(values <= 0, -1)
        missing = (0, top - values.shape[-1])
        values, places = F.pad(values, missing), F.pad(places, missing, value=-1)
    return output, lse, spread, counted.sum(2) if columns else none, held, values, places
