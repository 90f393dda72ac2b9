"""The formula of attention with its log-sum-exp, with all N x M scores."""

import torch
from torch import Tensor

from ..precision import compute_type


def attend_with_lse(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """(out (B, H, N, e), lse (B, H, N)); 0 and -inf for a query without a key."""
    kind = compute_type(query)
    scores = query.to(kind) @ key.to(kind).mT * scale
    scores = scores if bias is None else scores + bias
    scores = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
    weights = torch.softmax(scores, -1).nan_to_num(0.0)
    return (weights @ value.to(kind)).to(query.dtype), scores.logsumexp(-1)
