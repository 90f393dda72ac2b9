"""The formula of attention's read-outs, with all N x M weights."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..precision import compute_type
from .cpu import FLOOR, HIDDEN


def attention_weights(
    query: Tensor, key: Tensor, mask: Tensor | None, scale: float, causal: bool = False
) -> tuple[Tensor, Tensor]:
    """(weights, scores), each (B, H, N, M); a query without a key has weights of 0."""
    kind, (rows, count) = compute_type(query), (query.shape[2], key.shape[2])
    key = key.to(kind).repeat_interleave(query.shape[1] // key.shape[1], 1)
    scores = (query.to(kind) * scale) @ key.mT
    if mask is not None:
        scores = scores.masked_fill(~mask, HIDDEN)
    if causal:
        before = torch.ones(rows, count, dtype=torch.bool, device=query.device).tril(count - rows)
        scores = scores.masked_fill(~before, HIDDEN)
    return scores.softmax(-1).masked_fill(scores <= FLOOR, 0.0), scores


def attention_stats(
    query: Tensor,
    key: Tensor,
    value: Tensor | None,
    mask: Tensor | None,
    keys: Tensor | None,
    weights: Tensor | None,
    scale: float,
    causal: bool,
    entropy: bool,
    columns: bool,
    top: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(output, lse, entropy, column mass, key mass, top weights, top indices), as `cpu.stats`."""
    p, scores = attention_weights(query, key, mask, scale, causal)
    absent, output = p.new_zeros((0,)), query.new_zeros((0,))
    without_key = scores.amax(-1) <= FLOOR
    lse = scores.logsumexp(-1).masked_fill(without_key, -torch.inf)
    if value is not None:
        group = query.shape[1] // key.shape[1]
        output = (p @ value.to(p.dtype).repeat_interleave(group, 1)).to(query.dtype)
    spread = lse.masked_fill(without_key, 0.0) - (p * scores).sum(-1) if entropy else absent
    mass = (p if weights is None else p * weights[:, None, :, None]).sum(2) if columns else absent
    key_mass = absent if keys is None else (p * keys[:, :, None]).sum(-1)
    values, places = absent, torch.zeros((0,), dtype=torch.int64, device=query.device)
    if top:
        values, places = p.topk(min(top, key.shape[2]), -1)
        places = places.masked_fill(values <= 0, -1)
        missing = (0, top - values.shape[-1])
        values, places = F.pad(values, missing), F.pad(places, missing, value=-1)
    return output, lse, spread, mass, key_mass, values, places
