"""PyTorch form of the moments of attention rows with their mean, on every device.

Shapes: B batch, N queries, M keys, H heads, d width of a head. Blocks are those of
`attention_stats`, with all heads of a query together."""

import torch
from torch import Tensor

from ..attention_stats.cpu import add_score_gradients, blocks, grouped, probabilities, scores
from ..precision import outside_autocast


def moments(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    lse: Tensor,
    mean: Tensor,
    limit: Tensor,
    scale: float,
    causal: bool,
) -> tuple[Tensor, Tensor]:
    """(dot, row), each (B, N), of mean rows whose weights up to the limit (B,) count as 0."""
    dot = mean.new_zeros((query.shape[0], query.shape[2]))
    row = torch.zeros_like(dot)
    with outside_autocast(query):
        for block in blocks(query, key, causal, all_heads=True):
            here = (block.batch, block.rows)
            logits, *_ = scores(query, key, mask, block, scale, causal)
            p, _ = probabilities(logits, lse[block.batch, :, block.rows])
            counted = _counted(p, limit[block.batch])
            dot[here] = (counted @ mean[block.batch, : block.keys, None])[..., 0]
            row[here] = counted.square_().sum(-1)
    return dot, row


def _counted(p: Tensor, limit: Tensor) -> Tensor:
    """Mean over heads (b, r, m) of weights (b, H, r, m), 0 up to the limit."""
    mean = p.mean(1)
    return mean.masked_fill_(mean <= limit[:, None, None], 0.0)


def moments_backward(
    grad: Tensor,
    grad_row: Tensor,
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    lse: Tensor,
    mean: Tensor,
    limit: Tensor,
    scale: float,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and mean (B, M), the mean row."""
    d_query, d_key = (
        query.new_zeros(query.shape, dtype=lse.dtype),
        key.new_zeros(key.shape, dtype=lse.dtype),
    )
    d_mean = mean.new_zeros(mean.shape)
    with outside_autocast(query):
        for block in blocks(query, key, causal, all_heads=True):
            here = (block.batch, block.rows)
            logits, q, k = scores(query, key, mask, block, scale, causal)
            p, _ = probabilities(logits, lse[block.batch, :, block.rows])
            counted = _counted(p, limit[block.batch])
            d_mean[block.batch, : block.keys] += (grad[here][:, None] @ counted)[:, 0]
            slope = grad[here][..., None] * mean[block.batch, None, : block.keys]
            slope = slope.addcmul_(counted, grad_row[here][..., None], value=2.0).masked_fill_(
                counted == 0, 0.0
            )
            towards = p * (slope / p.shape[1])[:, None]
            towards.addcmul_(p, towards.sum(-1, keepdim=True), value=-1.0)
            ds = grouped(towards, key.shape[1])
            add_score_gradients(ds, q, k, block, scale, d_query, d_key)
    return d_query.to(query.dtype), d_key.to(key.dtype), d_mean
