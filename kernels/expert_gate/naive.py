"""The formula of the gate of experts, token by token."""

import torch
from torch import Tensor


def expert_gate(
    scores: Tensor,
    bias: Tensor | None,
    present_mask: Tensor | None,
    active: int,
    score: str,
    normalise: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """weights, chosen, counts, probability, log_sum, entropy and tokens, as in `Gate`."""
    tokens, experts = scores.shape
    weights = scores.new_zeros(tokens, active)
    chosen = torch.full((tokens, active), experts)
    counts = torch.zeros(active, experts, dtype=torch.int64)
    probability, log_sum, entropy = scores.new_zeros(experts), scores.new_zeros(()), 0.0
    present = [t for t in range(tokens) if present_mask is None or present_mask[t]]
    share = 1 / max(1, len(present))
    for t in present:
        s = scores[t]
        p = {"softmax": s.softmax(0), "sigmoid": s.sigmoid(), "given": s}[score]
        order = (p if bias is None else p + bias).argsort(descending=True)[:active]
        total = p[order].sum() if normalise else 1.0
        weights[t], chosen[t] = scale * p[order] / total, order
        counts[range(active), order] += 1
        q = p / p.sum()
        probability = probability + share * q
        entropy = entropy - share * (q * q.log()).sum()
        if score != "given":
            log_sum = log_sum + share * s.logsumexp(0) ** 2
    entropy, number = torch.as_tensor(entropy).to(scores), scores.new_tensor(len(present))
    return weights, chosen, counts, probability, log_sum, entropy, number
