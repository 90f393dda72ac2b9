"""Cosine between each row of the mean attention map and the mean of its rows, without the map.

Shapes: B batch, N queries, M keys, H heads, K heads of keys (K divides H), d width of a head; h
over heads.

    a_ij = mean_h p_hij;  s_j = mean_i a_ij;  a', s' = a, s where above a limit, else 0
    dot_i = sum_j a'_ij s'_j;  row_i = sum_j a'_ij^2;  mean = sum_j s'_j^2
    cosine_i = dot_i / sqrt(row_i mean)

Two passes over blocks of queries: the column mass gives lse and s, the second gives dot and row.
The gradient goes through both, so it is two passes again: one towards a' and s', and that of the
column mass towards s. Stored for the backward pass: lse, s and the results, B (H N + M) numbers;
the naive form stores at least B (H + 2) N M. The limits are constants."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..attention_stats import attention_stats
from ..attention_stats.cpu import blocks
from ..checks import check_pair
from ..forms import Form
from ..precision import compute_type
from ..register import operator
from . import cpu


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
        shape = f"{queries.dtype} {tuple(queries.shape)}"
        raise ValueError(f"cosine_moments: queries must be bool {(batch, count)}, got {shape}")
    scale = width**-0.5 if scale is None else scale
    kind = compute_type(query)
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


def forms(query: Tensor, key: Tensor) -> list[Form]:
    """What can compute the moments of such queries and keys; their log-sum-exps and the mean row
    come from `attention_stats`, which has forms of its own.
    """
    count = len(list(blocks(query, key, False, all_heads=True)))
    return [Form(f"PyTorch calls, {count} blocks of queries with all heads")]


operator(
    "attention_moments",
    cpu.moments,
    fake=lambda query, key, mask, lse, mean, *rest: (
        mean.new_empty((query.shape[0], query.shape[2])),
        mean.new_empty((query.shape[0], query.shape[2])),
    ),
    results=("dot", "row"),
    backward=cpu.moments_backward,
    gradients=("query", "key", "mean"),
)
