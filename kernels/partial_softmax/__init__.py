"""Attention over parts of the keys, joined by the log-sum-exps of the parts.

    out = sum_p exp(lse_p - lse) out_p,   lse = logsumexp_p lse_p

Each part is (out, lse) with out the softmax-weighted mean over its own keys. A part without keys
has lse -inf and no weight. Work: one pass over the outputs; no scores are computed again.

`attend_with_lse` (B batch, H heads, N queries, M keys of the part) stores nothing of size N M: with
p_ij = exp(s_ij - lse_i), its backward pass d s_ij = p_ij (g_i . v_j - g_i . out_i + g_lse_i)
computes the scores again."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..checks import broadcasts, check_floating
from ..forms import Form
from ..precision import compute_type
from ..register import operator
from . import cpu


def attend_with_lse(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Softmax attention with the logarithm of its denominators, both differentiable.

    query: (B, H, N, d), key: (B, H, M, d), value: (B, H, M, e); mask: bool, True = may attend, and
    bias: added to the scores, broadcast to (B, H, N, M); scale: by default 1 / sqrt(d). Returns out
    (B, H, N, e) and lse (B, H, N), which is float32 for half precision. A query without a key has
    out 0 and lse -inf.

    Raises ValueError for shapes or types that do not fit.
    """
    _check(query, key, value, mask, bias)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return torch.ops.headwise.attend_with_lse(query, key, value, mask, bias, scale)


def forms(query: Tensor, key: Tensor) -> list[Form]:
    """What can attend from such queries to such keys. PyTorch's fused attention gives a log-sum-exp
    that carries no gradient, so it is no form of this.
    """
    blocks = len(list(cpu.blocks(query, key)))
    where = "the cache" if query.is_cpu else "a part of the memory"
    return [Form(f"PyTorch calls, {blocks} blocks of queries whose scores fit {where}")]


def merge_partials(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """(out, lse) over all keys from those over parts of them: out (..., e), lse (...), -inf without
    a key.

    Carries gradients to each out and lse. Where no part has a key, out is 0, lse is -inf and
    gradients are 0.

    Raises ValueError without parts.
    """
    if not parts:
        raise ValueError("merge_partials: needs at least one part")
    lses = torch.stack([lse for _, lse in parts])
    top = lses.detach().amax(0)
    top = top.masked_fill(top == -torch.inf, 0.0)
    shares = (lses - top).exp()
    total = shares.sum(0)
    empty = total == 0
    shares = shares / total.masked_fill(empty, 1.0)
    out = sum(share[..., None].to(part.dtype) * part for share, (part, _) in zip(shares, parts))
    assert isinstance(out, Tensor)
    lse = (total.masked_fill(empty, 1.0).log() + top).masked_fill(empty, -torch.inf)
    return out, lse


def _check(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, bias: Tensor | None
) -> None:
    if query.ndim != 4 or key.ndim != 4 or value.ndim != 4 or key.shape[:3] != value.shape[:3]:
        shapes = ", ".join(str(tuple(x.shape)) for x in (query, key, value))
        raise ValueError(
            f"attend_with_lse: needs query, key, value of (batch, heads, tokens, width), "
            f"got {shapes}"
        )
    if query.shape[:2] != key.shape[:2] or query.shape[3] != key.shape[3]:
        raise ValueError(
            f"attend_with_lse: keys {tuple(key.shape)} do not fit queries {tuple(query.shape)}"
        )
    check_floating("attend_with_lse", query, key, value)
    if mask is not None and mask.dtype != torch.bool:
        raise ValueError(f"attend_with_lse: mask must be bool, True = may attend, got {mask.dtype}")
    full = (*query.shape[:3], key.shape[2])
    for name, x in (("mask", mask), ("bias", bias)):
        if x is not None and not broadcasts(x, full):
            raise ValueError(
                f"attend_with_lse: {name} {tuple(x.shape)} does not broadcast to {full}"
            )


def fake(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Memory for out (B, H, N, e) and lse (B, H, N)."""
    out = query.new_empty((*query.shape[:3], value.shape[-1]))
    return out, query.new_empty(query.shape[:3], dtype=compute_type(query))


operator(
    "attend_with_lse",
    cpu.attend,
    fake=fake,
    results=("out", "lse"),
    backward=cpu.attend_backward,
    gradients=("query", "key", "value", "bias"),
)
