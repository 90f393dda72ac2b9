"""Attention of chosen tokens only, head by head: a head that is switched off for a token costs nothing there.

Shapes: B batch, H heads, N queries, K heads of keys and values (K divides H), M keys, d width of keys, e of values.

    out_bhn = softmax_m(scale q_bhn . k_bm) v_bm where chosen_bhn, else 0

Work: 2 c M (d + e) flops for the c chosen pairs of token and head instead of 2 B H N M (d + e). For each head the
chosen queries are gathered, attend to all keys in one call of a fused operator, and are put back. Each call has a price
of its own, so few tokens, or nearly all heads on, are quicker through the dense form (`worthwhile`).
Kept for the backward pass: inputs, output and lse.
"""

from importlib.util import find_spec

import torch
from torch import Tensor

from .forms import Form, triton_refused

SAVED = 100_000  # scores that a head has to save
FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
FLASH_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def gathered_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    chosen: Tensor,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Attention where chosen, 0 elsewhere.

    query: (B, H, N, d); key: (B, K, M, d); value: (B, K, M, d); chosen: bool (B, H, N); mask: bool, True = may attend,
    four dimensions that broadcast to (B, H, N, M); causal: the last query stands at the last key. Returns
    (B, H, N, d); a chosen query without keys gives 0. No gradient passes through what is not chosen.

    Raises ValueError if shapes do not fit.
    """
    if chosen.dtype != torch.bool or chosen.shape != query.shape[:3]:
        shapes = f"{tuple(query.shape[:3])}, got {tuple(chosen.shape)} {chosen.dtype}"
        raise ValueError(f"gathered_attention: chosen must be bool {shapes}")
    if query.shape[1] % key.shape[1] or key.shape[:3] != value.shape[:3] or key.shape[0] != query.shape[0]:
        raise ValueError(f"gathered_attention: keys {tuple(key.shape)} do not fit queries {tuple(query.shape)}")
    factor = query.shape[3] ** -0.5 if scale is None else scale
    return torch.ops.headwise.gathered_attention(query, key, value, chosen, mask, causal, factor)[0]


def worthwhile(tokens: int, keys: int, share: float) -> str:
    """Why gathering does not pay for this share of heads on; "" where it does (measured by benchmarks/moh.py)."""
    if tokens * keys * (1 - share) < SAVED:
        return f"at {tokens} tokens, {keys} keys and {share:.0%} of the heads on it saves too little for a call a head"
    return ""


def forms(query: Tensor, share: float, keys: int) -> list[Form]:
    """What can compute attention with that share of heads on."""
    refused = worthwhile(query.shape[2], keys, share)
    return [
        Form("Triton kernel, tokens gathered by head", triton_refused(query) or refused),
        Form("PyTorch's fused operator, tokens gathered by head", refused),
        Form("PyTorch's fused operator, all heads, gates afterwards"),
    ]


def _rows(
    part: tuple[int, int], chosen: Tensor, mask: Tensor | None, causal: bool, keys: int
) -> tuple[Tensor, Tensor | None]:
    """Chosen places of one head, and their mask (n, M)."""
    place = chosen[part].nonzero().squeeze(1)
    allowed = None
    if mask is not None:
        whole = mask.expand(*chosen.shape, -1)[part]
        allowed = whole[place]
    if causal:
        steps = torch.arange(keys, device=chosen.device)
        seen = steps <= place[:, None] + keys - chosen.shape[2]
        allowed = seen if allowed is None else allowed & seen
    return place, allowed


def _bias(allowed: Tensor | None, like: Tensor) -> Tensor | None:
    if allowed is None:
        return None
    return like.new_zeros(allowed.shape).masked_fill_(~allowed, -torch.inf)[None, None]


@torch.library.custom_op("headwise::gathered_attention", mutates_args=())
def _gathered(
    query: Tensor, key: Tensor, value: Tensor, chosen: Tensor, mask: Tensor | None, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    group = query.shape[1] // key.shape[1]
    out = torch.zeros_like(query, memory_format=torch.contiguous_format)
    lse = torch.zeros(query.shape[:3], dtype=torch.promote_types(query.dtype, torch.float32), device=query.device)
    for b in range(query.shape[0]):
        for h in range(query.shape[1]):
            place, allowed = _rows((b, h), chosen, mask, causal, key.shape[2])
            if not len(place) or not key.shape[2]:
                continue
            parts = query[b, h, place], key[b, h // group], value[b, h // group]
            mixed, total = FLASH(
                *(part[None, None] for part in parts), 0.0, False, attn_mask=_bias(allowed, query), scale=scale
            )
            out[b, h, place] = mixed[0, 0]
            lse[b, h, place] = total[0, 0].to(lse.dtype)
    return out, lse


@_gathered.register_fake
def _(query, key, value, chosen, mask, causal, scale):  # type: ignore[no-untyped-def]
    kind = torch.promote_types(query.dtype, torch.float32)
    return query.new_empty(query.shape), query.new_empty(query.shape[:3], dtype=kind)


@torch.library.custom_op("headwise::gathered_attention_backward", mutates_args=())
def _backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, chosen: Tensor, mask: Tensor | None, out: Tensor,
    lse: Tensor, causal: bool, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    group = query.shape[1] // key.shape[1]
    made = [torch.zeros_like(part, memory_format=torch.contiguous_format) for part in (query, key, value)]
    for b in range(query.shape[0]):
        for h in range(query.shape[1]):
            place, allowed = _rows((b, h), chosen, mask, causal, key.shape[2])
            if not len(place) or not key.shape[2]:
                continue
            given = (
                grad[b, h, place], query[b, h, place], key[b, h // group], value[b, h // group],
                out[b, h, place], lse[b, h, place],
            )  # fmt: skip
            d_query, d_key, d_value = FLASH_BACKWARD(
                *(part[None, None].contiguous() for part in given), 0.0, False,
                attn_mask=_bias(allowed, query), scale=scale,
            )  # fmt: skip
            made[0][b, h, place] = d_query[0, 0]
            made[1][b, h // group] += d_key[0, 0]
            made[2][b, h // group] += d_value[0, 0]
    return made[0], made[1], made[2]


@_backward.register_fake
def _(grad, query, key, value, chosen, mask, out, lse, causal, scale):  # type: ignore[no-untyped-def]
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)


@_gathered.register_kernel("cuda")
def _(query, key, value, chosen, mask, causal, scale):  # type: ignore[no-untyped-def]  # pragma: no cover - needs a GPU
    if query.dtype == torch.float64 or query.shape[3] > 128 or find_spec("triton") is None:
        return _dense(query, key, value, chosen, mask, causal, scale)
    from . import gathered_heads_triton

    return gathered_heads_triton.attend(query, key, value, chosen, mask, causal, scale)


@_backward.register_kernel("cuda")
def _(grad, query, key, value, chosen, mask, out, lse, causal, scale):  # type: ignore[no-untyped-def]  # pragma: no cover - needs a GPU
    # The backward pass has no kernel of its own yet: all heads, with what was not chosen left out.
    with torch.enable_grad():
        parts = [part.detach().requires_grad_() for part in (query, key, value)]
        whole = _dense(parts[0], parts[1], parts[2], chosen, mask, causal, scale)[0]
    return torch.autograd.grad(whole, parts, grad)


def _dense(query, key, value, chosen, mask, causal, scale):  # type: ignore[no-untyped-def]
    """All heads in plain PyTorch, then 0 where not chosen; and lse."""
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    scores = (query @ key.transpose(2, 3)).float() * scale
    tokens, keys = scores.shape[2:]
    if causal:
        seen = torch.ones(tokens, keys, dtype=torch.bool, device=query.device).tril(keys - tokens)
        mask = seen if mask is None else mask & seen
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1) if mask is None else scores.softmax(-1) * mask
    out = (weights.to(value.dtype) @ value) * chosen[..., None]
    return out, scores.logsumexp(-1)


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    *tensors, ctx.causal, ctx.scale = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _gradient(ctx, grad, _):  # type: ignore[no-untyped-def]
    if grad is None:
        return (None,) * 7
    made = torch.ops.headwise.gathered_attention_backward(grad, *ctx.saved_tensors, ctx.causal, ctx.scale)
    return *made, None, None, None, None


_gathered.register_autograd(_gradient, setup_context=_save)
