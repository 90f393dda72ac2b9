"""The formulas of softmax pooling and of the draw.

Shapes: B bags, N rows of a padded bag, M rows of all bags packed, D width, H heads.
"""

import torch
from torch import Tensor

from ..precision import compute_type
from ..segments import segment_of


def softmax_pool(
    scores: Tensor,
    values: Tensor | None,
    mask: Tensor | None,
    offsets: Tensor | None,
    per_head: bool,
) -> tuple[Tensor, Tensor]:
    """pooled (B, D) and lse (B, D), or per head (B, H, D) and (B, H). Exported programs hold it, so
    there is no loop over bags, no branch on sizes and nothing in place.
    """
    value = (scores if values is None else values).to(compute_type(scores))
    value = value if mask is None else value.masked_fill(~mask[..., None], 0.0)
    s = masked(scores, mask)
    if offsets is None:
        top = finite(s.amax(1))
        weights = (s - top[:, None]).exp()
        total = weights.sum(1)
        summed = weights.transpose(1, 2) @ value if per_head else (weights * value).sum(1)
    else:
        bag = segment_of(offsets, scores.shape[0])
        lowest = s.new_full((offsets.shape[0] - 1, s.shape[1]), -torch.inf)
        top = finite(lowest.scatter_reduce(0, bag[:, None].expand_as(s), s, "amax"))
        weights = (s - top[bag]).exp()
        total = s.new_zeros(top.shape).index_add(0, bag, weights)
        product = weights[:, :, None] * value[:, None] if per_head else weights * value
        summed = product.new_zeros((len(top), *product.shape[1:])).index_add(0, bag, product)
    return mean_and_lse(summed, total, top, scores.dtype)


def softmax_draw(scores: Tensor, mask: Tensor | None, uniform: Tensor) -> Tensor:
    """index (B, D): the first row whose cumulative probability exceeds uniform (B, D); padded."""
    return (masked(scores, mask).softmax(1).cumsum(1) <= uniform[:, None]).sum(1)


def masked(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Scores (B, N, D) in the type of the sums, -inf where the mask (B, N) is False."""
    scores = scores.to(compute_type(scores))
    return scores if mask is None else scores.masked_fill(~mask[..., None], -torch.inf)


def finite(top: Tensor) -> Tensor:
    """The greatest score of each bag, 0 where no row counts."""
    return top.masked_fill(top == -torch.inf, 0.0)


def mean_and_lse(
    summed: Tensor, total: Tensor, top: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """pooled and lse from sums of exp(scores - top): 0 and +inf for a bag in which no row counts.

    summed: weighted values, (B, D) or (B, H, D); total: weights, (B, D) or (B, H).
    """
    empty = total == 0
    divisor = total.masked_fill(empty, 1.0)
    pooled = summed / (divisor[..., None] if summed.ndim > divisor.ndim else divisor)
    return pooled.to(dtype), (divisor.log() + top).masked_fill(empty, torch.inf)
