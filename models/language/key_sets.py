"""Which keys a query reads when it may read only a few: the first, the last, and those that score
highest.

Shapes: B rows, H heads, KV key-value heads, T queries, S keys, d width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor


def key_sets(
    query: Tensor, key: Tensor, allowed: Tensor, *, size: int, sink: int, recent: int
) -> Tensor:
    """The sets of keys of all queries: bool (B, KV, T, S).

    query: (B, H, T, d); key: (B, KV, S, d); allowed: bool (B, 1, T, S), what a query may read at
    all: no later key and no padding. size: the keys that a set holds; sink and recent: of these,
    the first and the last allowed keys of the query, which are always in it.

    A set holds exactly min(size, number of allowed keys). The score of a key is its product with
    the mean of the queries that share it: without the scale, which changes no order (LycheeDecode,
    arXiv 2602.04541). Sets carry no gradient. Raises ValueError if sink and recent are more than
    size.
    """
    if min(size, sink, recent) < 0 or sink + recent > size or not size:
        raise ValueError(
            f"sets of {size} keys cannot hold {sink} first and {recent} recent ones: give sizes "
            "that add up"
        )
    with torch.no_grad():
        allowed = allowed.expand(query.shape[0], 1, query.shape[2], key.shape[2])
        shared = query.unflatten(1, (key.shape[1], -1)).mean(2)
        scores = (shared @ key.transpose(2, 3)).float()
        rank = allowed.cumsum(-1)  # from 1 at the first allowed key
        count = rank[..., -1:]
        forced = (rank <= sink) | (rank > count - recent)
        scores = scores.masked_fill(forced, torch.inf).masked_fill(~allowed, -torch.inf)
        highest = scores.topk(min(size, key.shape[2]), dim=-1).indices
        sets = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, highest, True)
        return sets & allowed
