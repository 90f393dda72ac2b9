"""Cosine between each row of the mean attention map and the mean of its rows, without the map.

Shapes: B batch, N queries, M keys, H heads, K heads of keys (K divides H), d width of a head; h
over heads.

    a_ij = mean_h p_hij;  s_j = mean_i a_ij;  a', s' = a, s where above a limit, else 0
    dot_i = sum_j a'_ij s'_j;  row_i = sum_j a'_ij^2;  mean = sum_j s'_j^2;  cosine_i = dot_i / sqrt(row_i mean)

Two passes over blocks of queries: the column mass gives lse and s, the second gives dot and row.
The gradient goes through both, so it is two passes again: one towards a' and s', and that of the
column mass towards s. Kept: lse, s and the results, B (H N + M) numbers, where the plain form keeps
at least B (H + 2) N M. The limits are constants."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..attention_stats import attention_stats, check_pair
from ..attention_stats import cpu as plain


@dataclass
class CosineMoments:
    """dot, row: (B, N), products of each row with the mean row and with itself; mean: (B,), of the
    mean row with itself; counted: bool (B, N), queries that count: not hidden, and with a key to
    attend to."""

    dot: Tensor
    row: Tensor
    mean: Tensor
    counted: Tensor


def cosine_moments(
    query: Tensor,
    key: Tensor,
    *,
    threshold: float = 2.0,
    mask: Tensor | None = None,
    queries: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> CosineMoments:
    """Moments of the cosines between rows of the attention map, mean over heads, and their mean
    row.

    query: (B, H, N, d), key: (B, K, M, d), mask, causal and scale as in `attention_stats`; queries:
    bool (B, N), which of them count, by default all. Weights up to threshold / keys count as 0 in
    the rows and in the mean row, with keys the number of keys that any query of the item may attend
    to. With gradients.

    Raises ValueError if shapes or types do not fit.
    """
    allowed = check_pair("cosine_moments", query, key, mask)
    batch, heads, count, width = query.shape
    if queries is not None and (queries.dtype != torch.bool or queries.shape != (batch, count)):
        given = f"{queries.dtype} {tuple(queries.shape)}"
        raise ValueError(f"cosine_moments: queries must be bool {(batch, count)}, got {given}")
    scale = width**-0.5 if scale is None else scale
    kind = plain.compute_type(query)
    weights = None if queries is None else queries.to(kind)
    read = attention_stats(
        query,
        key,
        mask=allowed,
        causal=causal,
        scale=scale,
        want=("lse", "column_mass"),
        weights=weights,
    )
    assert read.lse is not None
    assert read.column_mass is not None
    lse = read.lse.detach()
    counted = (lse > -torch.inf).any(1)
    counted = counted if queries is None else counted & queries
    mean = read.column_mass.sum(1) / (heads * counted.sum(1, keepdim=True).clamp_min(1))
    if allowed is None:
        keys = torch.full((batch,), float(key.shape[2]), dtype=kind, device=query.device)
    else:
        keys = allowed.flatten(1, 2).any(1).expand(batch, key.shape[2]).sum(1).to(kind)
    limit = threshold / keys.clamp_min(1.0)
    mean = torch.where(mean > limit[:, None], mean, 0.0)
    dot, row = torch.ops.headwise.attention_moments(
        query, key, allowed, lse, mean, limit, scale, causal
    )
    return CosineMoments(dot, row, mean.square().sum(-1), counted)


@torch.library.custom_op("headwise::attention_moments", mutates_args=())
def _moments(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    lse: Tensor,
    mean: Tensor,
    limit: Tensor,
    scale: float,
    causal: bool,
) -> tuple[Tensor, Tensor]:
    dot = mean.new_zeros((query.shape[0], query.shape[2]))
    row = torch.zeros_like(dot)
    with torch.autocast(query.device.type, enabled=False):
        for block in plain.blocks(query, key, causal, all_heads=True):
            here = (block.batch, block.rows)
            found, *_ = plain.scores(query, key, mask, block, scale, causal)
            p, _ = plain.probabilities(found, lse[block.batch, :, block.rows])
            kept = _kept(p, limit[block.batch])
            dot[here] = (kept @ mean[block.batch, : block.keys, None])[..., 0]
            row[here] = kept.square_().sum(-1)
    return dot, row


def _kept(p: Tensor, limit: Tensor) -> Tensor:
    """Mean over heads (b, r, m) of weights (b, H, r, m), 0 up to the limit."""
    mean = p.mean(1)
    return mean.masked_fill_(mean <= limit[:, None, None], 0.0)


@_moments.register_fake
def _(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    lse: Tensor,
    mean: Tensor,
    limit: Tensor,
    scale: float,
    causal: bool,
) -> tuple[Tensor, Tensor]:
    shape = (query.shape[0], query.shape[2])
    return mean.new_empty(shape), mean.new_empty(shape)


@torch.library.custom_op("headwise::attention_moments_backward", mutates_args=())
def _backward(
    g_dot: Tensor,
    g_row: Tensor,
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    lse: Tensor,
    mean: Tensor,
    limit: Tensor,
    scale: float,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    d_query, d_key = (
        torch.zeros_like(query, dtype=lse.dtype),
        torch.zeros_like(key, dtype=lse.dtype),
    )
    d_mean = torch.zeros_like(mean)
    with torch.autocast(query.device.type, enabled=False):
        for block in plain.blocks(query, key, causal, all_heads=True):
            here = (block.batch, block.rows)
            found, q, k = plain.scores(query, key, mask, block, scale, causal)
            p, _ = plain.probabilities(found, lse[block.batch, :, block.rows])
            kept = _kept(p, limit[block.batch])
            d_mean[block.batch, : block.keys] += (g_dot[here][:, None] @ kept)[:, 0]
            wanted = g_dot[here][..., None] * mean[block.batch, None, : block.keys]
            wanted = wanted.addcmul_(kept, g_row[here][..., None], value=2.0).masked_fill_(
                kept == 0, 0.0
            )
            towards = p * (wanted / p.shape[1])[:, None]
            towards.addcmul_(p, towards.sum(-1, keepdim=True), value=-1.0)
            ds = plain.grouped(towards, key.shape[1])
            plain.add_score_gradients(ds, q, k, block, scale, d_query, d_key)
    return d_query.to(query.dtype), d_key.to(key.dtype), d_mean


@_backward.register_fake
def _(
    g_dot: Tensor,
    g_row: Tensor,
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    lse: Tensor,
    mean: Tensor,
    limit: Tensor,
    scale: float,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape), mean.new_empty(mean.shape)


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    *tensors, ctx.scale, ctx.causal = inputs
    ctx.save_for_backward(*tensors)


def _gradient(ctx, g_dot: Tensor, g_row: Tensor):  # type: ignore[no-untyped-def]
    d_query, d_key, d_mean = torch.ops.headwise.attention_moments_backward(
        g_dot, g_row, *ctx.saved_tensors, ctx.scale, ctx.causal
    )
    return d_query, d_key, None, None, d_mean, None, None, None


_moments.register_autograd(_gradient, setup_context=_save)
