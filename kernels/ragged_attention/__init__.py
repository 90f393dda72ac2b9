"""Attention of a few queries per sample to the sample's own keys, packed sample after sample
without padding.

Shapes: B samples, Q queries per sample, T keys of all samples, H heads, d and e widths of a head,
n_b keys of sample b.

    s_qt = scale q_q . k_t,  lse_q = log sum_t exp s_qt,  p_qt = exp(s_qt - lse_q)
    out_q = sum_t p_qt v_t   over the n_b keys of q's sample
    with g = d out: d v_t = sum_q p_qt g_q,  d s_qt = p_qt (g_q . v_t - g_q . out_q),
    d q_q = scale sum_t d s_qt k_t,  d k_t = scale sum_q d s_qt q_q

Work: 2 T Q H (d + e) flops forward, 2 T Q H (3 d + 2 e) backward; T H (d + e) numbers read forward,
as many read and written backward, plus B Q H (d + e) of queries and results. Padded to the longest
sample N, T becomes B N in all of that, and a copy of B N H (d + e) numbers is stored for the
backward pass, with B N Q H more if the weights are written out. Here inputs, output and one number
per query are stored; the weights are computed again. Each key belongs to one sample, so no gradient
is summed across programs and every sum has one order."""

import torch
from torch import Tensor

from ..checks import check_floating
from ..forms import Form, triton_refused
from ..precision import compute_type, match_autocast, width_refused
from ..register import operator
from . import cpu, naive


def ragged_attention(
    query: Tensor, key: Tensor, value: Tensor, offsets: Tensor, *, scale: float | None = None
) -> Tensor:
    """Softmax attention of each sample's queries to its own keys.

    query: (B, Q, H, d); key: (T, H, d); value: (T, H, e); offsets: int64 (B + 1,), ascending: keys
    offsets[b] to offsets[b + 1] are sample b's; scale: by default 1 / sqrt(d). Returns (B, Q, H,
    e). A sample without keys gives 0 and gradients of 0; keys of no sample have gradients of 0.
    Follows autocast like `F.linear`.

    Raises ValueError if shapes or types do not fit and, on the CPU, if offsets descend or leave the
    keys."""
    _check(query, key, value, offsets)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return torch.ops.headwise.ragged_attention(*match_autocast(query, key, value), offsets, scale)[
        0
    ]


def _check(query: Tensor, key: Tensor, value: Tensor, offsets: Tensor) -> None:
    if query.ndim != 4 or key.ndim != 3 or value.ndim != 3 or key.shape[:2] != value.shape[:2]:
        shapes = ", ".join(str(tuple(x.shape)) for x in (query, key, value))
        raise ValueError(
            f"ragged_attention: query must be (B, Q, H, d), key (T, H, d), value (T, H, e), "
            f"got {shapes}"
        )
    if query.shape[2:] != key.shape[1:] or query.shape[3] < 1:
        raise ValueError(
            f"ragged_attention: key {tuple(key.shape)} does not fit query {tuple(query.shape)}"
        )
    check_floating("ragged_attention", query, key, value)
    if offsets.dtype != torch.int64 or offsets.ndim != 1 or offsets.shape[0] != query.shape[0] + 1:
        raise ValueError(
            f"ragged_attention: offsets must be int64 ({query.shape[0]} + 1,), one more than "
            f"samples, got {offsets.dtype} {tuple(offsets.shape)}"
        )


def empty(
    query: Tensor, key: Tensor, value: Tensor, offsets: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Memory for out (B, Q, H, e) and lse (B, Q, H)."""
    out = query.new_empty((*query.shape[:3], value.shape[2]))
    return out, query.new_empty(query.shape[:3], dtype=compute_type(query))


def forms(query: Tensor, value: Tensor) -> list[Form]:
    """What can compute the attention of such queries to such values."""
    return [
        Form(
            "Triton kernel, a program for each head of a sample, several for many keys",
            triton_refused(query, value) or kernel_refused(query, value),
        ),
        Form("PyTorch calls, by groups of samples of nearly one length"),
    ]


def kernel_refused(query: Tensor, value: Tensor) -> str:
    """Why Triton's tiles do not fit the registers: heads wider than 256, in float32 than 64, or
    float64, which has no kernel; "" where they do.
    """
    return width_refused(query, max(query.shape[-1], value.shape[-1]), single=64)


def fits(query: Tensor, value: Tensor) -> bool:
    """Whether the Triton kernels can take it."""
    return not kernel_refused(query, value)


operator(
    "ragged_attention",
    cpu.forward,
    fake=empty,
    results=("out", "lse"),
    fits=fits,
    export=naive.ragged_attention,
    backward=cpu.backward,
    backward_fits=fits,
    gradients=("query", "key", "value"),
)
