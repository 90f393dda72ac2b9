"""The formula of ragged attention: all keys at once, T Q H (d + e) numbers."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..precision import compute_type
from ..segments import ended


def ragged_attention(
    query: Tensor, key: Tensor, value: Tensor, offsets: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """out (B, Q, H, e) and lse (B, Q, H), +inf for a sample without keys."""
    kind = compute_type(query)
    # The sample of each key, from 1; 0 and B + 1 stand for keys before and after all samples.
    owner = ended(offsets, key.shape[0])
    q = F.pad(query.to(kind) * scale, (0, 0, 0, 0, 0, 0, 1, 1))
    scores = (q[owner] * key.to(kind)[:, None]).sum(-1)  # (T, Q, H)

    # Softmax over the keys of each sample.
    index = owner[:, None, None].expand_as(scores)
    lowest = scores.new_full(q.shape[:3], -torch.inf)
    top = lowest.scatter_reduce(0, index, scores.detach(), "amax")
    top = top.masked_fill(top == -torch.inf, 0.0)
    weights = (scores - top[owner]).exp()
    total = torch.zeros_like(top).index_add(0, owner, weights)

    product = weights[..., None] * value.to(kind)[:, None]
    summed = product.new_zeros((*top.shape, value.shape[2])).index_add(0, owner, product)
    empty = total == 0
    divisor = total.masked_fill(empty, 1.0)
    out = (summed / divisor[..., None]).to(query.dtype)
    lse = (divisor.log() + top).masked_fill(empty, torch.inf)
    return out[1:-1].contiguous(), lse[1:-1].contiguous()
