"""Exchange of partial softmaxes: attention over parts of the keys, joined by their log-sum-exps.

    out = sum_p exp(lse_p - lse) out_p,   lse = logsumexp_p lse_p

Each part is (out, lse) with out the softmax-weighted mean over its own keys. A part without keys has lse -inf and
counts nothing. Work: one pass over the outputs; no scores are needed again.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def merge_partials(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """(out, lse) over all keys from those over parts of them: out (..., e), lse (...), -inf without a key.

    Carries gradients to each out and lse. Where no part has a key, out is 0, lse is -inf and gradients are 0.

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


def softmax_part(scores: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """(out, lse) of one part from its scores (..., N, M), -inf where there is no key, and values (..., M, e)."""
    if scores.shape[-1] == 0:
        return value.sum(-2, keepdim=True).expand(*scores.shape[:-1], -1), scores.sum(-1) - torch.inf
    top = scores.detach().amax(-1, keepdim=True)
    top = top.masked_fill(top == -torch.inf, 0.0)
    weights = (scores - top).exp()
    total = weights.sum(-1)
    empty = total == 0
    filled = total.masked_fill(empty, 1.0)
    out = (weights / filled[..., None]).to(value.dtype) @ value
    return out, (filled.log() + top.squeeze(-1)).masked_fill(empty, -torch.inf)
