"""Read-outs of softmax attention from queries and keys, without the matrix of weights.

Shapes: B batch, N queries, M keys, H heads, K heads of keys (K divides H), d width of a head, e
width of a value.

    p_ij = exp(s_ij - lse_i), s = scale q k^T over the keys that may be attended to
    output_i = sum_j p_ij v_j            entropy_i = -sum_j p_ij log p_ij = lse_i - sum_j p_ij s_ij
    key_mass_i = sum_{j in keys} p_ij    column_mass_j = sum_i weight_i p_ij

Work: the product q k^T, 2 B H N M d flops, and one exponential per weight, once forward and once
backward; the naive form writes and reads N M numbers for the softmax and once more for each
read-out, and stores N M for the backward pass. Here only the inputs, the results and `lse` are
stored. On the CPU, blocks of full rows stay in the cache and give all read-outs in one pass. On the
GPU one kernel gives output, lse, entropy and key mass by running sums; column mass and the largest
weights are second passes that start from lse. In bfloat16 PyTorch's fused attention takes its place
where that is ahead, and computes the gradients (`fused`). Other backward passes, float64, heads
wider than 128 (256 in half precision) and more than the 16 largest weights take the plain form in
large blocks there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from ..checks import check_pair
from ..forms import Form, triton_refused
from ..precision import compute_type, outside_autocast, width_refused
from ..register import operator
from . import cpu, fused, naive
from .cpu import LARGEST_TOP

ReadOut = Literal["lse", "entropy", "column_mass", "key_mass", "top", "class_row", "mean_rows"]


@dataclass
class AttentionStats:
    """Read-outs of attention; None where not wanted. Queries that may attend to nothing count as
    rows of 0.

    output: (B, H, N, e), weighted mean of the values; lse: (B, H, N), logarithm of the sum of
    exponentials, -inf without a key; entropy: (B, H, N) in nats; column_mass: (B, H, M), weights
    summed over the queries; key_mass: (B, H, N), weight on the given keys. These carry gradients to
    query, key and value, column_mass also to `weights`. Without gradients: top_values, top_indices
    (B, H, N, k), the largest weights in falling order, 0 and -1 where there are fewer keys;
    class_row: (B, H, M), the weights of one query; mean_rows: (B, R, M), those of R queries, mean
    over heads."""

    output: Tensor | None = None
    lse: Tensor | None = None
    entropy: Tensor | None = None
    column_mass: Tensor | None = None
    key_mass: Tensor | None = None
    top_values: Tensor | None = None
    top_indices: Tensor | None = None
    class_row: Tensor | None = None
    mean_rows: Tensor | None = None


def attention_stats(
    query: Tensor,
    key: Tensor,
    value: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    want: Sequence[ReadOut] = ("lse",),
    keys: Tensor | None = None,
    k: int = 8,
    row: int = 0,
    rows: Tensor | None = None,
    weights: Tensor | None = None,
) -> AttentionStats:
    """Read-outs of softmax(scale query key^T), in blocks: (B, H, N, M) is never held.

    query: (B, H, N, d); key: (B, K, M, d); value: (B, K, M, e), gives `output` in the same pass.
    mask: bool, True = may attend, (B, M), (B, N, M) or four dimensions that broadcast to (B, H, N,
    M). causal: the last query stands at the last key. scale: by default d^-1/2. want: names of the
    read-outs of `AttentionStats` ("top" for both of it). keys: bool (B, M), the set of "key_mass";
    k: how many for "top"; row: the query of "class_row"; rows: int64 (R,), the queries of
    "mean_rows"; weights: (B, N), how much each query counts in "column_mass", by default 1 each.

    Raises ValueError if shapes, types or names do not fit.
    """
    mask = _check(query, key, value, mask, want, keys, k, rows, weights, row)
    factor: float = query.shape[-1] ** -0.5 if scale is None else scale
    stats = AttentionStats()
    if value is not None or set(want) - {"class_row", "mean_rows"}:
        kind = compute_type(query)
        numbers = keys[:, None].to(kind) if keys is not None and "key_mass" in want else None
        counted = weights.to(kind) if weights is not None and "column_mass" in want else None
        top = k if "top" in want else 0
        read = torch.ops.headwise.attention_stats(
            query,
            key,
            value,
            mask,
            numbers,
            counted,
            factor,
            causal,
            "entropy" in want,
            "column_mass" in want,
            top,
        )
        names = ("output", "lse", "entropy", "column_mass", "key_mass", "top_values", "top_indices")
        for name, tensor in zip(names, read):
            if (
                name in want
                or (name == "output" and value is not None)
                or (name[:4] == "top_" and top)
            ):
                setattr(stats, name, tensor)
    if "class_row" in want:
        chosen = torch.tensor([row % query.shape[2]], device=query.device)
        stats.class_row = _rows(query, key, mask, chosen, factor, causal)[:, :, 0]
    if "mean_rows" in want:
        assert rows is not None
        stats.mean_rows = _mean_rows(query, key, mask, rows, factor, causal)
    return stats


def rollout_row(
    layers: Sequence[tuple[Tensor, Tensor]],
    *,
    start: int = 0,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    mix: float = 0.5,
) -> Tensor:
    """Row `start` of attention rollout (Abnar and Zuidema, arXiv 2005.00928), as in DCAL (arXiv
    2205.02151): (B, N).

    layers: (query (B, H, N, d), key (B, K, N, d)) of each layer, first to last; mask: as in
    `attention_stats`, for all layers. r <- r (mix A + (1 - mix) I) from the last layer to the
    first, A the mean over heads: one product of a vector with a matrix a layer, never one of two
    matrices, which would be N times the work. Each row sums to 1 where no query is without keys.
    Without gradients.

    Raises ValueError if there are no layers or queries and keys differ in number.
    """
    if not layers:
        raise ValueError("rollout_row: needs at least one layer")
    row = layers[0][0].new_zeros(())
    with torch.no_grad():
        for count, (query, key) in enumerate(reversed(layers)):
            if query.shape[2] != key.shape[2]:
                raise ValueError(
                    f"rollout_row: {query.shape[2]} queries but {key.shape[2]} keys; both must be N"
                )
            shared = {"mask": mask, "causal": causal, "scale": scale}
            if count == 0:
                # One query counts: its row alone is needed of the last layer.
                first = attention_stats(
                    query, key, want=("class_row",), row=start, **shared
                ).class_row
                assert first is not None
                row = torch.zeros_like(first[:, 0])
                row[:, start] = 1.0
                moved = first.mean(1)
            else:
                mass = attention_stats(
                    query, key, want=("column_mass",), weights=row, **shared
                ).column_mass
                assert mass is not None
                moved = mass.mean(1)
            row = mix * moved + (1.0 - mix) * row
    return row


@torch.no_grad()
def _rows(
    query: Tensor, key: Tensor, mask: Tensor | None, rows: Tensor, scale: float, causal: bool
) -> Tensor:
    """Weights (B, H, R, M) of the queries at rows (R,)."""
    kind = compute_type(query)
    with outside_autocast(query):
        chosen = cpu.grouped(query[:, :, rows].to(kind) * scale, key.shape[1])
        scores = (chosen @ key.to(kind).mT).view(*query.shape[:2], len(rows), key.shape[2])
        if mask is not None:
            scores = scores.masked_fill_(
                ~(mask if mask.shape[2] == 1 else mask[:, :, rows]), cpu.HIDDEN
            )
        if causal:
            last = rows + key.shape[2] - query.shape[2]
            scores = scores.masked_fill_(
                torch.arange(key.shape[2], device=rows.device) > last[:, None], cpu.HIDDEN
            )
        return scores.softmax(-1).masked_fill_(scores <= cpu.FLOOR, 0.0)


def _mean_rows(
    query: Tensor, key: Tensor, mask: Tensor | None, rows: Tensor, scale: float, causal: bool
) -> Tensor:
    """Mean over heads (B, R, M) of the weights at rows; a head at a time, as all are H times the
    result.
    """
    heads, kv = query.shape[1], key.shape[1]
    total = query.new_zeros(())
    for head in range(heads):
        group = head * kv // heads
        allowed = mask if mask is None or mask.shape[1] == 1 else mask[:, head : head + 1]
        weights = _rows(
            query[:, head : head + 1], key[:, group : group + 1], allowed, rows, scale, causal
        )
        total = total + weights[:, 0]
    return total / heads


def _check(
    query: Tensor,
    key: Tensor,
    value: Tensor | None,
    mask: Tensor | None,
    want: Sequence[str],
    keys: Tensor | None,
    k: int,
    rows: Tensor | None,
    weights: Tensor | None,
    row: int,
) -> Tensor | None:
    """The mask in four dimensions; ValueError where something does not fit."""
    name = "attention_stats"
    unknown = [read_out for read_out in want if read_out not in get_args(ReadOut)]
    if unknown:
        raise ValueError(
            f"{name}: no read-out {unknown[0]!r}; there are {', '.join(get_args(ReadOut))}"
        )
    allowed = check_pair(name, query, key, mask)
    batch, _, queries, _ = query.shape
    if value is not None and (
        value.shape[:3] != key.shape[:3] or value.ndim != 4 or value.dtype != query.dtype
    ):
        raise ValueError(
            f"{name}: value {tuple(value.shape)} {value.dtype} does not fit key {tuple(key.shape)}"
        )
    if "key_mass" in want and (
        keys is None or keys.dtype != torch.bool or keys.shape != (batch, key.shape[2])
    ):
        shape = None if keys is None else f"{keys.dtype} {tuple(keys.shape)}"
        raise ValueError(f"{name}: key_mass needs keys, bool {(batch, key.shape[2])}, got {shape}")
    if weights is not None and weights.shape != (batch, queries):
        raise ValueError(f"{name}: weights must be {(batch, queries)}, got {tuple(weights.shape)}")
    if "top" in want and k < 1:
        raise ValueError(f"{name}: top needs k of at least 1, got {k}")
    if "class_row" in want and not -queries <= row < queries:
        raise ValueError(f"{name}: row {row} is not among {queries} queries")
    if "mean_rows" in want and (rows is None or rows.dtype != torch.int64 or rows.ndim != 1):
        raise ValueError(
            f"{name}: mean_rows needs rows, int64 (R,), got {rows if rows is None else rows.dtype}"
        )
    return allowed


def forms(
    query: Tensor,
    value: Tensor | None = None,
    top: int = 0,
    *,
    want: Sequence[ReadOut] = (),
    mask: Tensor | None = None,
    causal: bool = False,
    backward: bool = False,
) -> list[Form]:
    """What can compute the read-outs of such queries, or their gradients; top: how many of the
    largest weights; want, mask and causal as in `attention_stats`, the mask of four dimensions.
    """
    tensors = (query,) if value is None else (query, value)
    marks = query[:, 0, :1, 0] if "key_mass" in want else None  # any tensor that stands for a set
    about = {"keys": marks, "mask": mask, "causal": causal}
    asked = {"entropy": "entropy" in want, "columns": "column_mass" in want}
    blocks = Form("PyTorch calls, by blocks of full rows")
    if backward:
        refused = fused.backward_refused(query, tensors[-1], value, **asked, **about)
        return [Form("PyTorch's fused attention, one call for all gradients", refused), blocks]
    refused = triton_refused(*tensors) or kernel_refused(query, value, top)
    return [
        Form("PyTorch's fused attention", fused.refused(query, value, top=top, **asked, **about)),
        Form("Triton kernels, running sums", refused),
        blocks,
    ]


def kernel_refused(query: Tensor, value: Tensor | None, top: int) -> str:
    """Why the Triton kernels cannot take it: float64, heads wider than 128 (256 in half precision),
    too many of the largest weights; "" where they can.
    """
    if top > LARGEST_TOP:
        return f"more than the {LARGEST_TOP} largest weights"
    width = max(query.shape[-1], 0 if value is None else value.shape[-1])
    return width_refused(query, width, single=128)


def fits(
    query: Tensor,
    value: Tensor | None,
    top: int = 0,
    entropy: bool = False,
    columns: bool = False,
    keys: Tensor | None = None,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float = 1.0,
) -> bool:
    """Whether the Triton kernels take it: they can, and PyTorch's fused attention is not ahead."""
    about = {"keys": keys, "mask": mask, "causal": causal, "scale": scale}
    asked = {"top": top, "entropy": entropy, "columns": columns}
    return not kernel_refused(query, value, top) and bool(
        fused.refused(query, value, **asked, **about)
    )


def stats(
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
    """As `cpu.stats`, by PyTorch's fused attention where that is ahead, else by blocks."""
    asked = {"top": top, "entropy": entropy, "columns": columns}
    about = {"keys": keys, "mask": mask, "causal": causal, "scale": scale}
    some = query.numel() > 0 and key.numel() > 0
    if some and value is not None and not fused.refused(query, value, **asked, **about):
        return fused.stats(query, key, value, mask, keys, scale, causal)
    options = scale, causal, entropy, columns, top
    return cpu.stats(query, key, value, mask, keys, weights, *options)


def stats_backward(
    grad: Tensor | None,
    grad_lse: Tensor | None,
    grad_spread: Tensor | None,
    grad_mass: Tensor | None,
    grad_key_mass: Tensor | None,
    query: Tensor,
    key: Tensor,
    value: Tensor | None,
    mask: Tensor | None,
    keys: Tensor | None,
    weights: Tensor | None,
    output: Tensor,
    lse: Tensor,
    spread: Tensor,
    key_mass: Tensor,
    scale: float,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `cpu.stats_backward`, in the way that `stats` chooses."""
    # A read-out that nobody asked for is empty; so is its gradient in a compiled program.
    slopes = grad, grad_lse, grad_spread, grad_mass, grad_key_mass
    of_out, of_lse, of_spread, of_mass, of_keys = (
        None if slope is None or not slope.numel() else slope for slope in slopes
    )
    marks = None if of_keys is None else keys
    asked = {"entropy": of_spread is not None, "columns": of_mass is not None}
    about = {"keys": marks, "mask": mask, "causal": causal, "scale": scale}
    some = query.numel() > 0 and key.numel() > 0
    if some and not fused.backward_refused(query, key, value, **asked, **about):
        inputs, results = (query, key, value, mask, marks), (output, lse, spread, key_mass)
        d_inputs = fused.backward(
            of_out, of_lse, of_spread, of_keys, *inputs, *results, scale, causal
        )
        absent = query.new_zeros((0,))
        return *d_inputs, absent if weights is None else weights.new_zeros(weights.shape)
    rest = query, key, value, mask, keys, weights, lse, scale, causal
    return cpu.stats_backward(of_out, of_lse, of_spread, of_mass, of_keys, *rest)


operator(
    "attention_stats",
    stats,
    fake=lambda query, key, value, mask, keys, weights, scale, causal, *options: cpu.empty(
        query, key, value, keys, *options
    ),
    results=("output", "lse", "spread", "mass", "key_mass", "top_values", "top_indices"),
    fits=fits,
    export=naive.attention_stats,
    backward=stats_backward,
    gradients=("query", "key", "value", "weights"),
)
