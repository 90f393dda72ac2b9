"""Attention of one or a few new queries to caches whose length differs from head to head.

Shapes: B samples, K heads of keys, G query heads that share one (H = K G, consecutive), Q queries,
R rows of all caches, d and e widths of a head, n_bk keys that head k of sample b holds.

    s_qj = scale q_q . k_j,  lse_q = log sum_j exp s_qj,  p_qj = exp(s_qj - lse_q)
    out_q = sum_j p_qj v_j   over the n_bk keys of q's head that q may see

A cache is a run of rows of one tensor (R, d): where it starts, and how many rows it holds. So rows
may be packed without gaps, may leave room behind each cache for the tokens to come, or may be a
padded (B, K, M, d) seen as (B K M, d); a tensor of packed rows alone, with offsets, would have to
be copied for each new token. Heads with the same rule can lie side by side, so that a slice of the
rows, seen as (B, heads, M, d), is the cache of a layer's group of heads.

Work: 2 G Q n (d + e) flops and n (d + e) numbers read for each cache of n keys, whatever the
longest holds. The queries of a group are the rows of one product, so their keys are read once.
Nothing of size Q n is stored on a GPU. It is `ragged_attention` with a sample for each head of keys
and one head, and shares its kernel's walk over the keys; new are rows in reserve, keys hidden by
position, and shares of work by number of keys, since one head may hold a hundred times what another
does. Caches are read, not trained: it has no backward pass."""

import torch
from torch import Tensor

from ..checks import broadcasts, check_floating
from ..forms import Form, triton_refused
from ..precision import compute_type, match_autocast, width_refused
from ..register import operator
from . import cpu, naive

NEVER = torch.iinfo(torch.int64).max  # position of a key that no query may see


def decode_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts: Tensor,
    lengths: Tensor,
    *,
    key_positions: Tensor | None = None,
    query_positions: Tensor | None = None,
    keep: Tensor | None = None,
    spans: Tensor | None = None,
    sinks: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Softmax attention of each head's queries to the keys that its cache holds, and the logarithm
    of its denominators.

    query: (B, H, Q, d), H = K G; key: (R, d); value: (R, e); starts, lengths: int64 (B, K), rows
    starts to starts + lengths are the cache of a head of keys, in any order, and two may share
    rows. key_positions, int64 (R,), and query_positions, int64 (B, Q): a query sees keys at its own
    position or before; without them, all. spans and sinks, int64 that broadcast to (B, K): of those
    it sees the last `spans` positions, its own among them, and the first `sinks`; positions count
    from the first real token. keep: bool (R,), False hides a key. scale: by default 1 / sqrt(d).

    Returns out (B, H, Q, e) and lse (B, H, Q), float32 for half precision. A query without a key
    has out 0 and lse -inf, as `merge_partials` takes it. Follows autocast like `F.linear`. Rows
    outside of the caches may hold anything; hidden keys and values must be finite.

    Raises ValueError if shapes or types do not fit and, on the CPU, if a cache leaves the rows;
    NotImplementedError where a gradient is asked for."""
    _check(query, key, value, starts, lengths)
    _check_limits(query, key, starts, key_positions, query_positions, keep, spans, sinks)
    (samples, heads, queries, width), groups = query.shape, starts.shape[1]
    rows, segments = heads // max(groups, 1) * queries, samples * groups
    scale = width**-0.5 if scale is None else scale
    query, key, value = match_autocast(query, key, value)

    if keep is not None:
        known = keep.new_zeros(keep.shape, dtype=torch.int64)
        known = (known if key_positions is None else key_positions).masked_fill(~keep, NEVER)
        key_positions = known
    asked = None
    if key_positions is not None:
        asked = query_positions
        if asked is None:
            asked = starts.new_zeros((samples, queries))
        asked = asked[:, None].expand(samples, heads, queries).reshape(segments, rows)
    spans, sinks = (x if x is None else x.expand(starts.shape).flatten() for x in (spans, sinks))
    out, lse = torch.ops.headwise.decode_attention(
        query.reshape(segments, rows, width),
        key,
        value,
        starts.flatten(),
        lengths.flatten(),
        key_positions,
        asked,
        spans,
        sinks,
        scale,
    )
    shape = samples, heads, queries
    return out.view(*shape, value.shape[1]), lse.view(shape)


def _check(query: Tensor, key: Tensor, value: Tensor, starts: Tensor, lengths: Tensor) -> None:
    if query.ndim != 4 or key.ndim != 2 or value.ndim != 2 or key.shape[0] != value.shape[0]:
        shapes = ", ".join(str(tuple(x.shape)) for x in (query, key, value))
        raise ValueError(
            f"decode_attention: query must be (B, H, Q, d), key (R, d), value (R, e), got {shapes}"
        )
    if query.shape[3] != key.shape[1] or query.shape[3] < 1:
        raise ValueError(
            f"decode_attention: key {tuple(key.shape)} does not fit query {tuple(query.shape)}"
        )
    check_floating("decode_attention", query, key, value)
    for name, x in (("starts", starts), ("lengths", lengths)):
        fit = x.ndim == 2 and x.shape == starts.shape and x.shape[0] == query.shape[0]
        if x.dtype != torch.int64 or not fit or x.shape[1] < 1 or query.shape[1] % x.shape[1]:
            raise ValueError(
                f"decode_attention: {name} must be int64 (B, K), K dividing the {query.shape[1]} "
                f"heads, B {query.shape[0]}, got {x.dtype} {tuple(x.shape)}"
            )


def _check_limits(
    query: Tensor,
    key: Tensor,
    starts: Tensor,
    key_positions: Tensor | None,
    query_positions: Tensor | None,
    keep: Tensor | None,
    spans: Tensor | None,
    sinks: Tensor | None,
) -> None:
    if (key_positions is None) != (query_positions is None):
        raise ValueError("decode_attention: needs positions of keys and of queries, or neither")
    if (spans is None) != (sinks is None) or (spans is not None and key_positions is None):
        raise ValueError("decode_attention: spans need sinks and positions, sinks need spans")
    expected = (
        ("key_positions", key_positions, torch.int64, key.shape[:1]),
        ("query_positions", query_positions, torch.int64, (query.shape[0], query.shape[2])),
        ("keep", keep, torch.bool, key.shape[:1]),
    )
    for name, x, dtype, shape in expected:
        if x is not None and (x.dtype != dtype or x.shape != shape):
            raise ValueError(
                f"decode_attention: {name} must be {dtype} {tuple(shape)}, "
                f"got {x.dtype} {tuple(x.shape)}"
            )
    for name, x in (("spans", spans), ("sinks", sinks)):
        if x is not None and (x.dtype != torch.int64 or not broadcasts(x, tuple(starts.shape))):
            raise ValueError(
                f"decode_attention: {name} must be int64 and broadcast to "
                f"{tuple(starts.shape)}, got {x.dtype} {tuple(x.shape)}"
            )


def empty(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts: Tensor,
    lengths: Tensor,
    key_position: Tensor | None,
    query_position: Tensor | None,
    span: Tensor | None,
    sink: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Memory for out (S, N, e) and lse (S, N)."""
    out = query.new_empty((*query.shape[:2], value.shape[1]))
    return out, query.new_empty(query.shape[:2], dtype=compute_type(query))


def forms(query: Tensor, value: Tensor) -> list[Form]:
    """What can compute the attention of such queries to such values."""
    fused = "" if query.is_cpu else f"the tensors are on {query.device.type}"
    return [
        Form(
            "Triton kernel, programs with equal numbers of keys",
            triton_refused(query, value) or kernel_refused(query, value),
        ),
        Form("fused attention, a call for caches of one length at even distances", fused),
        Form("PyTorch's products, likewise"),
    ]


def kernel_refused(query: Tensor, value: Tensor) -> str:
    """Why Triton's tiles do not fit the registers: heads wider than 256, in float32 than 128, or
    float64, which has no kernel; "" where they do.
    """
    return width_refused(query, max(query.shape[-1], value.shape[-1]), single=128)


def pays(query: Tensor, key: Tensor) -> bool:
    """Whether `decode_attention` is ahead of `scaled_dot_product_attention` of caches of one length
    (..., n, d) to queries of one group each (..., N, d), values as wide as keys: on the CPU for
    large caches (docs/measured/kernels.md), on a GPU where the kernel runs, as it splits keys under
    a mask, too (not measured).
    """
    if query.is_cpu:
        return cpu.large(query, 2 * key.numel())
    return not (triton_refused(query, key) or kernel_refused(query, key))


def fits(query: Tensor, value: Tensor) -> bool:
    """Whether the Triton kernels can take it."""
    return not kernel_refused(query, value)


operator(
    "decode_attention",
    cpu.forward,
    fake=empty,
    results=("out", "lse"),
    fits=fits,
    export=naive.decode_attention,
)
