"""The formula of attention to caches of any length: every query with every row, S N R numbers."""

import torch
from torch import Tensor

from ..precision import compute_type


def decode_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts: Tensor,
    lengths: Tensor,
    key_position: Tensor | None,
    query_position: Tensor | None,
    span: Tensor | None,
    sink: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """out (S, N, e) and lse (S, N), -inf for a query without keys, of query (S, N, d)."""
    kind = compute_type(query)
    row = torch.arange(key.shape[0], device=key.device)
    begin, end = starts[:, None], (starts + lengths)[:, None]
    visible = ((row >= begin) & (row < end))[:, None]  # (S, 1, R)
    if key_position is not None and query_position is not None:
        asked = query_position[..., None]
        visible = visible & (key_position <= asked)
        if span is not None and sink is not None:
            near = asked - key_position < span[:, None, None]
            visible = visible & (near | (key_position < sink[:, None, None]))
    scores = (query.to(kind) * scale) @ key.to(kind).T
    scores = scores.masked_fill(~visible, -torch.inf)
    lse = scores.logsumexp(-1)
    weights = (scores - lse.masked_fill(lse == -torch.inf, 0.0)[..., None]).exp()
    return (weights @ value.to(kind)).to(query.dtype), lse
