"""Attention under a plan by plain formulas, one query and key at a time, for tests."""

import math

import torch
from torch import Tensor, nn

from headwise.models.language.plans.plan import Plan
from headwise.models.language.running.replaced import replaced_attention


def window_at(alpha: float, beta: float, length: int) -> int:
    return (
        length
        if math.isinf(alpha)
        else min(max(math.floor(alpha + beta * length + 0.5), 1), length)
    )


def plain_mask(plan: Plan, layer: int, real: Tensor) -> Tensor:
    """bool (B, KV, T, T): for each row, head, query and key, from the definition of a plan."""
    batch, tokens = real.shape
    mask = torch.zeros(batch, plan.facts.kv_heads, tokens, tokens, dtype=torch.bool)
    for row in range(batch):
        places = [t for t in range(tokens) if real[row, t]]
        for head in range(plan.facts.kv_heads):
            sink, alpha = plan.sink[layer][head], plan.alpha[layer][head]
            for query, column in enumerate(places):
                window = window_at(alpha, plan.beta[layer][head], query + 1)
                if (own := plan.facts.windows[layer]) is not None:
                    window = own
                for key, key_column in enumerate(places[: query + 1]):
                    mask[row, head, column, key_column] = key < sink or query - key < window
    return mask


def plain_logits(model: nn.Module, plan: Plan, ids: Tensor, real: Tensor) -> Tensor:
    """Logits (B, T, V) of a whole text under a plan, by softmax written out."""

    def attention(layer, query, key, value, allowed, scale):
        mask = plain_mask(plan, layer, real)
        shared = query.shape[1] // key.shape[1]
        outputs = []
        for head in range(query.shape[1]):
            scores = query[:, head] @ key[:, head // shared].mT * scale
            scores = scores.masked_fill(~mask[:, head // shared], -1e30)
            outputs.append(scores.softmax(-1) @ value[:, head // shared])
        return torch.stack(outputs, 1)

    with replaced_attention(model, attention), torch.no_grad():
        return model(ids, attention_mask=real.long(), position_ids=positions(real)).logits


def positions(real: Tensor) -> Tensor:
    """Position of each token among the real ones of its row, as transformers' generate counts."""
    return (real.long().cumsum(1) - 1).clamp_min(0)
