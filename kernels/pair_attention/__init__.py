"""Pair-wise cross-attention: each sample attends to its own keys and to those of one partner in a
single softmax.

Shapes: B batch, H heads, N queries, M keys, d width of queries and keys, e width of values; p(b)
partner of sample b.

    out_b = softmax(scale q_b [k_b; k_p(b)]^T) [v_b; v_p(b)]
    with a block c in (b, p(b)):  lse_b = log(exp lse_bb + exp lse_bp),
    out_b = sum_c exp(lse_bc - lse_b) out_bc
    with g = d out and P_c = exp(scale q_b k_c^T - lse_b):  dS_c = P_c (g v_c^T - g . out_b),
    d q_b = scale sum_c dS_c k_c,  d k_c += scale dS_c^T q_b,  d v_c += P_c^T g

Work: 4 B H N M (d + e) flops forward, twice that of self-attention. Joining keys and values first
copies 2 B H M (d + e) numbers and stores them for the backward pass; here the partner is an index,
and inputs, output and one number per query are stored. The partner may be any map of samples: a
sample that is the partner of several adds up their gradients, in one order. On the CPU each block
is PyTorch's fused attention and the two are merged by log-sum-exp; backward, the fused operator
takes merged output and lse, which makes each block's gradients those of the joint softmax. On the
GPU one kernel walks both blocks of keys, or, with many tokens, the two fused calls are ahead."""

import torch
from torch import Tensor

from ..checks import check_floating
from ..forms import Form, triton_refused
from ..precision import match_autocast, width_refused
from ..register import operator
from . import cpu, naive

# Queries and keys from which two fused calls are ahead of the Triton kernel on a GPU: their tensor
# cores' rate is taken for 40 % against 20 %, in the backward pass for 25 % against 9 %, and copies,
# merging and sums of gradients for 3.3 TB/s.
LEAST_TOKENS, LEAST_TOKENS_BACKWARD = 512, 128


def pair_attention(
    query: Tensor, key: Tensor, value: Tensor, partner: Tensor, *, scale: float | None = None
) -> Tensor:
    """Softmax attention of each sample to its own keys and those of its partner together.

    query: (B, H, N, d); key: (B, H, M, d); value: (B, H, M, e); partner: int64 (B,), places 0 to B
    - 1, any map; a sample that is its own partner gives plain self-attention; scale: by default 1 /
    sqrt(d). Returns (B, H, N, e), the heads of a token next to each other in memory. Without keys
    the output is 0. Follows autocast like `F.linear`.

    Raises ValueError if shapes, types or devices do not fit and, on the CPU, if a partner is out of
    range. Source: DCAL, Zhu et al., CVPR 2022, arXiv 2205.02151, equation 5."""
    _check(query, key, value, partner)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return torch.ops.headwise.pair_attention(*match_autocast(query, key, value), partner, scale)[0]


def _check(query: Tensor, key: Tensor, value: Tensor, partner: Tensor) -> None:
    if not query.ndim == key.ndim == value.ndim == 4 or key.shape[:3] != value.shape[:3]:
        shapes = ", ".join(str(tuple(x.shape)) for x in (query, key, value))
        raise ValueError(
            f"pair_attention: query must be (B, H, N, d), key (B, H, M, d), value (B, H, M, e): "
            f"{shapes}"
        )
    if query.shape[:2] != key.shape[:2] or query.shape[3] != key.shape[3] or query.shape[3] < 1:
        raise ValueError(
            f"pair_attention: key {tuple(key.shape)} does not fit query {tuple(query.shape)}"
        )
    check_floating("pair_attention", query, key, value)
    if partner.dtype != torch.int64 or partner.shape != query.shape[:1]:
        raise ValueError(
            f"pair_attention: partner must be int64 ({query.shape[0]},), one place a sample, "
            f"got {partner.dtype} {tuple(partner.shape)}"
        )
    if not query.device == key.device == value.device == partner.device:
        devices = ", ".join(str(x.device) for x in (query, key, value, partner))
        raise ValueError(
            f"pair_attention: query, key, value and partner must be on one device, got {devices}"
        )


def forms(query: Tensor, value: Tensor, backward: bool = False) -> list[Form]:
    """What can compute the attention of such queries to such values, or its gradients."""
    kernel = Form(
        "Triton kernel, both blocks of keys in one walk",
        triton_refused(query, value) or kernel_refused(query, value),
    )
    refused = cpu.fused_refused(query, value, backward)
    fused = Form("PyTorch's fused operator twice, merged by log-sum-exp", refused)
    first = [fused, kernel] if ahead(query, value, backward) else [kernel, fused]
    return [*first, Form("PyTorch calls, by blocks of queries")]


def ahead(query: Tensor, value: Tensor, backward: bool = False) -> bool:
    """Whether two fused calls come before the Triton kernel: with few tokens, copying the partner's
    keys and merging costs more than the faster products save (by roofline, not measured).
    """
    least = LEAST_TOKENS_BACKWARD if backward else LEAST_TOKENS
    return not query.is_cpu and min(query.shape[2], value.shape[2]) >= least


def kernel_refused(query: Tensor, value: Tensor) -> str:
    """Why Triton's tiles do not fit the registers: heads wider than 256, in float32 than 128, or
    float64, which has no kernel; "" where they do.
    """
    return width_refused(query, max(query.shape[-1], value.shape[-1]), single=128)


def fits(query: Tensor, value: Tensor) -> bool:
    """Whether the Triton kernel takes it: it can, and two fused calls are not ahead."""
    fused = ahead(query, value) and cpu.takes_fused(query, value)
    return not fused and not kernel_refused(query, value)


def backward_fits(query: Tensor, value: Tensor) -> bool:
    """Whether the Triton kernels of the backward pass take it."""
    fused = ahead(query, value, True) and cpu.takes_fused(query, value, backward=True)
    return not fused and not kernel_refused(query, value)


operator(
    "pair_attention",
    cpu.forward,
    fake=lambda query, key, value, partner, scale: cpu.room(query, value.shape[3]),
    results=("out", "lse"),
    fits=fits,
    export=naive.pair_attention,
    backward=cpu.backward,
    backward_fits=backward_fits,
    gradients=("query", "key", "value"),
)
