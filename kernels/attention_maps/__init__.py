"""Softmax attention that also returns the weights of chosen heads, or their mean.

Shapes: B batch, N queries, M keys, H heads, d width of a head, e width of a value, S chosen heads.

    output_h = p_h v_h,  p_h = softmax(scale q_h k_h^T)
    maps_s = p_{heads[s]}, or mean_s p_{heads[s]}

Work: 2 B H N M (d + e) flops. Attention that returns all its weights stores H N M numbers per layer
and cannot use the fused operator. Here the fused operator runs for the heads whose maps are not
requested; the others are computed in blocks of full rows that stay in the cache, and S N M numbers
are stored, or N M for the mean. On the GPU one kernel computes output and log-sum-exp, and a second
one writes each map once."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..attention_stats import kernel_refused
from ..checks import check_pair
from ..forms import Form, triton_refused
from ..register import operator
from . import cpu


class Mapped(NamedTuple):
    """output: (B, H, N, e), with gradients; maps: (B, S, N, M), or (B, 1, N, M) of a mean, float32
    (float64 of float64), without gradients. A query that may attend to nothing has 0 in both."""

    output: Tensor
    maps: Tensor


def attention_maps(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: Tensor | None = None,
    *,
    mean: bool = False,
    mask: Tensor | None = None,
    scale: float | None = None,
) -> Mapped:
    """Attention and the weights of some heads.

    query: (B, H, N, d); key: (B, H, M, d); value: (B, H, M, e); heads: int64 (S,), each at most
    once, by default all; mean: return the mean of their maps; mask: bool, True = may attend,
    (B, M), (B, N, M) or four dimensions that broadcast to (B, H, N, M); scale: by default d^-1/2.

    Raises ValueError if shapes do not fit and, where `heads` lies on the CPU, if they are not heads
    or one comes twice. On a GPU that is not checked, since the host would wait; the kernel reads no
    memory beyond the heads.
    """
    allowed = check_pair("attention_maps", query, key, mask)
    if query.shape[1] != key.shape[1] or value.shape[:3] != key.shape[:3] or value.ndim != 4:
        raise ValueError(
            f"attention_maps: as many heads of keys and values as of queries are needed, got "
            f"{tuple(query.shape)}, {tuple(key.shape)}, {tuple(value.shape)}"
        )
    chosen = _chosen(heads, query)
    factor: float = query.shape[-1] ** -0.5 if scale is None else scale
    if _needs_gradient(query, key, value):
        output = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed, scale=factor)
        detached = query.detach(), key.detach(), value.detach()
        return Mapped(
            output, torch.ops.headwise.attention_maps(*detached, chosen, mean, allowed, factor)[1]
        )
    return Mapped(
        *torch.ops.headwise.attention_maps(query, key, value, chosen, mean, allowed, factor)
    )


def forms(query: Tensor, key: Tensor, value: Tensor) -> list[Form]:
    """What can compute output and maps of such queries, keys and values."""
    refused = triton_refused(query, key, value) or kernel_refused(query, value, 0)
    if _needs_gradient(query, key, value):
        output = "PyTorch's fused operator for the output"
        return [
            Form(f"{output}, Triton kernels for the maps", refused),
            Form(f"{output}, blocks of full rows for the maps"),
        ]
    return [
        Form("Triton kernels, one for the output and one that writes the maps", refused),
        Form("PyTorch's fused operator, and blocks of full rows for the chosen heads"),
    ]


def _needs_gradient(*parts: Tensor) -> bool:
    return torch.is_grad_enabled() and any(part.requires_grad for part in parts)


def _chosen(heads: Tensor | None, query: Tensor) -> Tensor:
    """The heads whose maps are asked for; ValueError where they are none of the query's."""
    count = query.shape[1]
    if heads is None:
        return torch.arange(count, device=query.device)
    if heads.dtype != torch.int64 or heads.ndim != 1 or not len(heads):
        raise ValueError(
            f"attention_maps: heads must be int64 (S,), at least one, got {heads.dtype} "
            f"{tuple(heads.shape)}"
        )
    if heads.is_cpu and not torch.compiler.is_compiling():
        places = heads.tolist()
        if len(set(places)) < len(places) or not all(0 <= place < count for place in places):
            raise ValueError(
                f"attention_maps: heads must be some of {count}, none twice, got {places}"
            )
    return heads


operator(
    "attention_maps",
    cpu.attend,
    fake=lambda query, key, value, heads, mean, *rest: cpu.empty(
        query, key, value, len(heads), mean
    ),
    results=("output", "maps"),
    fits=lambda query, value: not kernel_refused(query, value, 0),
)
