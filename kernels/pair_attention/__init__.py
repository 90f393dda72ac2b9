"""Pair-wise cross-attention: each sample attends to its own keys and to those of one partner in a
single softmax.

Shapes: B batch, H heads, N queries, M keys, d width of queries and keys, e width of values; p(b)
partner of sample b.

    out_b = softmax(scale q_b [k_b; k_p(b)]^T) [v_b; v_p(b)]
    with a block c in (b, p(b)):  lse_b = log(exp lse_bb + exp lse_bp),  out_b = sum_c exp(lse_bc - lse_b) out_bc
    with g = d out and P_c = exp(scale q_b k_c^T - lse_b):  dS_c = P_c (g v_c^T - g . out_b),
    d q_b = scale sum_c dS_c k_c,  d k_c += scale dS_c^T q_b,  d v_c += P_c^T g

Work: 4 B H N M (d + e) flops forward, twice that of self-attention. Joining keys and values first
copies 2 B H M (d + e) numbers and keeps them for the backward pass; here the partner is an index,
and inputs, output and one number a query are kept. The partner may be any map of samples: a sample
that is the partner of several adds up their gradients, in one order. On the CPU each block is
PyTorch's fused attention and the two are merged by log-sum-exp; backward, the fused operator takes
merged output and lse, which makes each block's gradients those of the joint softmax. On the GPU one
kernel walks both blocks of keys."""

from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

from ..gelu_linear import match_autocast
from . import cpu as plain


def pair_attention(
    query: Tensor, key: Tensor, value: Tensor, partner: Tensor, *, scale: float | None = None
) -> Tensor:
    """Softmax attention of each sample to its own keys and those of its partner together.

    query: (B, H, N, d); key: (B, H, M, d); value: (B, H, M, e); partner: int64 (B,), places 0 to B
    - 1, any map; a sample that is its own partner gives plain self-attention; scale: by default 1 /
    sqrt(d). Returns (B, H, N, e), the heads of a token side by side in memory. Without keys the
    output is 0. Follows autocast like `F.linear`.

    Raises ValueError if shapes, types or devices do not fit and, on the CPU, if a partner is out of
    range. Source: DCAL, Zhu et al., CVPR 2022, arXiv 2205.02151, equation 5."""
    _check(query, key, value, partner)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return torch.ops.headwise.pair_attention(*match_autocast(query, key, value), partner, scale)[0]


def _check(query: Tensor, key: Tensor, value: Tensor, partner: Tensor) -> None:
    if not query.ndim == key.ndim == value.ndim == 4 or key.shape[:3] != value.shape[:3]:
        shapes = ", ".join(str(tuple(x.shape)) for x in (query, key, value))
        raise ValueError(
            f"pair_attention: query must be (B, H, N, d), key (B, H, M, d), value (B, H, M, e): {shapes}"
        )
    if query.shape[:2] != key.shape[:2] or query.shape[3] != key.shape[3] or query.shape[3] < 1:
        raise ValueError(
            f"pair_attention: key {tuple(key.shape)} does not fit query {tuple(query.shape)}"
        )
    if not query.dtype == key.dtype == value.dtype or not query.is_floating_point():
        raise ValueError(
            f"pair_attention: needs one floating type, got {query.dtype}, {key.dtype}, {value.dtype}"
        )
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


@torch.library.custom_op("headwise::pair_attention", mutates_args=())
def _attend(
    query: Tensor, key: Tensor, value: Tensor, partner: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    return plain.forward(query, key, value, partner, scale)


@_attend.register_fake
def _(
    query: Tensor, key: Tensor, value: Tensor, partner: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    return plain.room(query, value.shape[3])


@torch.library.custom_op("headwise::pair_attention_backward", mutates_args=())
def _attend_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    partner: Tensor,
    out: Tensor,
    lse: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return plain.backward(grad, query, key, value, partner, out, lse, scale)


@_attend_backward.register_fake
def _(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    partner: Tensor,
    out: Tensor,
    lse: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _gradient(ctx, grad: Tensor | None, _: Tensor | None):  # type: ignore[no-untyped-def]
    if grad is None:
        return None, None, None, None, None
    gradients = torch.ops.headwise.pair_attention_backward(grad, *ctx.saved_tensors, ctx.scale)
    return *gradients, None, None


_attend.register_autograd(_gradient, setup_context=_save)


def _form(
    query: Tensor, value: Tensor
) -> ModuleType:  # pragma: no cover - asked only with a CUDA tensor
    """The Triton kernels, or the plain form where they cannot run."""
    if find_spec("triton") is None:
        return plain
    from . import triton as pair_attention_triton

    return pair_attention_triton if pair_attention_triton.fits(query, value) else plain


@_attend.register_kernel("cuda")
def _(query, key, value, *others):  # type: ignore[no-untyped-def]  # pragma: no cover - needs a GPU
    return _form(query, value).forward(query, key, value, *others)


@_attend_backward.register_kernel("cuda")
def _(grad, query, key, value, *others):  # type: ignore[no-untyped-def]  # pragma: no cover - needs a GPU
    return _form(query, value).backward(grad, query, key, value, *others)
