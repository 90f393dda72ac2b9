"""Attention in which each token uses some of the heads: only the queries of tokens that use a head
are computed for it.

Shapes: B batch, H heads, N tokens, M keys, K heads of keys and values (K divides H), d width of a
head, n_h tokens that use head h.

    out_h = gate_h o_h,  o_h = softmax(q_h k^T scale) v  for the n_h tokens with gate_h != 0, else 0
    with g = d out: d gate = g.o, d o = gate g; where gate = 0 every gradient is 0

Work: sum_h 4 n_h M d flops forward instead of 4 H N M d; gathering and scattering move 2 n_h d
numbers per head. Dense attention times the gate computes all H N rows. Stored for the backward
pass: inputs, output and one number per row. On the CPU, each head of each sample is one call of
PyTorch's fused operator on its gathered queries, without padding; with a causal mask or masks of
pairs, blocks of queries, so that no mask of N x M numbers is made. On the GPU one kernel gathers by
an index sorted by head; programs beyond n_h end at once. Other devices compute all rows
(`device`)."""

import torch
from torch import Tensor

from ..checks import broadcasts
from ..forms import Form, triton_refused
from ..precision import compute_type, type_refused
from ..register import operator
from . import cpu, naive


def gathered_heads(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    gate: Tensor,
    mask: Tensor | None = None,
    *,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Attention times gate, computed only where the gate is not 0.

    query: (B, H, N, d); key, value: (B, K, M, d) with K dividing H; gate: (B, H, N); mask: bool,
    broadcasts to (B, H, N, M), True = may attend, a row without any gives 0; causal: query i sees
    keys up to i + M - N; scale: by default 1 / sqrt(d). Returns (B, H, N, d). Off the CPU and
    without the Triton form all rows are computed.

    Raises ValueError if shapes or types do not fit. Source of the gate: MoH, arXiv 2410.11842,
    section 3."""
    _check(query, key, value, gate, mask)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return torch.ops.headwise.gathered_heads(query, key, value, gate, mask, causal, scale)[0]


def _check(query: Tensor, key: Tensor, value: Tensor, gate: Tensor, mask: Tensor | None) -> None:
    if (
        query.ndim != 4
        or key.ndim != 4
        or key.shape != value.shape
        or gate.shape != query.shape[:-1]
    ):
        raise ValueError(
            f"gathered_heads: query must be (B, H, N, d), key and value (B, K, M, d), "
            f"gate (B, H, N), got "
            f"{tuple(query.shape)}, {tuple(key.shape)}, {tuple(value.shape)}, {tuple(gate.shape)}"
        )
    batch, heads, _, width = query.shape
    if key.shape[0] != batch or key.shape[3] != width or key.shape[1] < 1 or heads % key.shape[1]:
        raise ValueError(
            f"gathered_heads: key {tuple(key.shape)} does not fit query {tuple(query.shape)}"
        )
    if key.dtype != query.dtype or value.dtype != query.dtype:
        raise ValueError(f"gathered_heads: types differ, {query.dtype}, {key.dtype}, {value.dtype}")
    if mask is not None:
        full = (*query.shape[:3], key.shape[2])
        if mask.dtype != torch.bool or mask.ndim != 4 or not broadcasts(mask, full):
            raise ValueError(
                f"gathered_heads: mask must be bool and broadcast to {full}, "
                f"got {tuple(mask.shape)}"
            )


def forms(query: Tensor) -> list[Form]:
    """What can compute the attention of such queries."""
    refused = triton_refused(query) or type_refused(query)
    fused = "" if query.is_cpu else f"a CPU form, the tensors are on {query.device.type}"
    return [
        Form("Triton kernel, tokens gathered by head", refused),
        Form("PyTorch's fused operator a head, tokens gathered by head", fused),
        Form("PyTorch calls, all rows times the gate"),
    ]


def fake(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    gate: Tensor,
    mask: Tensor | None,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Memory for out (B, H, N, d) and lse (B, H, N). No shape depends on how many rows are on, so
    graphs need no break.
    """
    lse = query.new_empty(query.shape[:-1], dtype=compute_type(query))
    return cpu.token_major(query), lse


def fake_gradients(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, gate: Tensor, *rest: object
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Memory for the gradients of query, key, value and gate."""
    d_key, d_value, d_gate = (x.new_empty(x.shape) for x in (key, value, gate))
    return cpu.token_major(query), d_key, d_value, d_gate


def fits(query: Tensor) -> bool:
    """There is no Triton kernel for float64."""
    return not type_refused(query)


operator(
    "gathered_heads",
    cpu.forward,
    fake=fake,
    results=("out", "lse"),
    fits=fits,
    export=naive.gathered_heads,
    backward=cpu.backward,
    backward_fake=fake_gradients,
    backward_fits=fits,
    gradients=("query", "key", "value", "gate"),
)
