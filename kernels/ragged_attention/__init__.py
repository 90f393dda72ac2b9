"""Attention of a few queries a sample to the sample's own keys, which lie one sample behind the
other without padding.

Shapes: B samples, Q queries of a sample, T keys of all samples, H heads, d and e widths of a head,
n_b keys of sample b.

    s_qt = scale q_q . k_t,  lse_q = log sum_t exp s_qt,  p_qt = exp(s_qt - lse_q)   over the n_b keys of q's sample
    out_q = sum_t p_qt v_t
    with g = d out: d v_t = sum_q p_qt g_q,  d s_qt = p_qt (g_q . v_t - g_q . out_q),
    d q_q = scale sum_t d s_qt k_t,  d k_t = scale sum_q d s_qt q_q

Work: 2 T Q H (d + e) flops forward, 2 T Q H (3 d + 2 e) backward; T H (d + e) numbers read forward,
as many read and written backward, beside B Q H (d + e) of queries and results. Padded to the
longest sample N, B N stands for T in all of that, and the copy of B N H (d + e) numbers is kept for
the backward pass, with B N Q H more where the weights are written out. Here inputs, output and one
number a query are kept; the weights are made again. Each key belongs to one sample, so that no
gradient is summed across programs and every sum has one order."""

from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

from ..gelu_linear import match_autocast
from . import cpu as plain


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
            f"ragged_attention: query must be (B, Q, H, d), key (T, H, d), value (T, H, e), got {shapes}"
        )
    if query.shape[2:] != key.shape[1:] or query.shape[3] < 1:
        raise ValueError(
            f"ragged_attention: key {tuple(key.shape)} does not fit query {tuple(query.shape)}"
        )
    if not query.dtype == key.dtype == value.dtype or not query.is_floating_point():
        raise ValueError(
            f"ragged_attention: needs one floating type, got {query.dtype}, {key.dtype}, {value.dtype}"
        )
    if offsets.dtype != torch.int64 or offsets.ndim != 1 or offsets.shape[0] != query.shape[0] + 1:
        raise ValueError(
            f"ragged_attention: offsets must be int64 ({query.shape[0]} + 1,), one more than samples, "
            f"got {offsets.dtype} {tuple(offsets.shape)}"
        )


@torch.library.custom_op("headwise::ragged_attention", mutates_args=())
def _attend(
    query: Tensor, key: Tensor, value: Tensor, offsets: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    return plain.forward(query, key, value, offsets, scale)


@_attend.register_fake
def _(
    query: Tensor, key: Tensor, value: Tensor, offsets: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    out = query.new_empty((*query.shape[:3], value.shape[2]))
    return out, query.new_empty(query.shape[:3], dtype=plain.compute_type(query))


@torch.library.custom_op("headwise::ragged_attention_backward", mutates_args=())
def _attend_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    offsets: Tensor,
    out: Tensor,
    lse: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return plain.backward(grad, query, key, value, offsets, out, lse, scale)


@_attend_backward.register_fake
def _(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    offsets: Tensor,
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
    gradients = torch.ops.headwise.ragged_attention_backward(grad, *ctx.saved_tensors, ctx.scale)
    return *gradients, None, None


_attend.register_autograd(_gradient, setup_context=_save)


def _form(
    query: Tensor, value: Tensor
) -> ModuleType:  # pragma: no cover - asked only with a CUDA tensor
    """The Triton kernels, or the plain form where they cannot run."""
    if find_spec("triton") is None:
        return plain
    from . import triton as ragged_attention_triton

    return ragged_attention_triton if ragged_attention_triton.fits(query, value) else plain


@_attend.register_kernel("cuda")
def _(query, key, value, *others):  # type: ignore[no-untyped-def]  # pragma: no cover - needs a GPU
    return _form(query, value).forward(query, key, value, *others)


@_attend_backward.register_kernel("cuda")
def _(grad, query, key, value, *others):  # type: ignore[no-untyped-def]  # pragma: no cover - needs a GPU
    return _form(query, value).backward(grad, query, key, value, *others)
