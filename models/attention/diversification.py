"""Attention diversification: a loss against queries that all attend to the same tokens.

Shapes: B batch, N queries, M keys, H heads, K heads of keys, d width of a head.
"""

import torch
from torch import Tensor

from ...kernels.attention_moments import cosine_moments


def diversification_loss(
    query: Tensor,
    key: Tensor,
    threshold: float = 2.0,
    *,
    mask: Tensor | None = None,
    queries: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Mean cosine between the attention of each query and the mean attention, both without small
    weights: a number in [0, 1].

    The attention diversification loss of Guo et al. (ICCV 2023). With the weights a (mean over
    heads) and their mean s over queries, both set to 0 where not above threshold / M, the loss is
    mean_i <a_i, s> / (|a_i| |s|): 1 if all queries attend to the same few tokens, 0 if they attend
    to different tokens or all evenly. The map is never held: see `kernels.attention_moments`.
    O(H N M d) time in two passes, and two more for the gradient.

    query: (B, H, N, d); key: (B, K, M, d); mask, causal, scale as in `attention_stats`; queries:
    bool (B, N), which of them count (padding does not). Returns a tensor () with gradients to query
    and key. Reading: M in the limit is the number of keys that may be attended to, so that padding
    changes nothing. A query without any weight above the limit has cosine 0; if all are like that,
    the gradient is 0, because the loss is flat there. The official code drops the batch dimension
    at batch 1 and returns 0; here batch 1 is as any other.

    Raises ValueError if shapes or types do not fit.
    """
    moments = cosine_moments(
        query, key, threshold=threshold, mask=mask, queries=queries, causal=causal, scale=scale
    )
    square = moments.row * moments.mean[:, None]
    some = moments.counted & (square > 0)
    cosine = torch.where(some, moments.dot, 0.0) / torch.where(some, square, 1.0).sqrt()
    return cosine.sum() / moments.counted.sum().clamp_min(1)
