"""PyTorch form of the gate of experts.

Shapes: T tokens, E experts, K active experts of a token.
"""

import torch
from torch import Tensor


def forward(
    scores: Tensor,
    bias: Tensor | None,
    present_mask: Tensor | None,
    active: int,
    score: str,
    normalise: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The seven parts of `Gate` and the log-sum-exp of each row (T,). Exported programs hold it, so
    nothing is in place.
    """
    tokens, experts = scores.shape
    lse = scores.logsumexp(1) if score != "given" else scores.new_zeros(tokens)
    p = probabilities(scores, lse, score)
    chosen = (p if bias is None else p + bias).topk(active, sorted=True).indices
    weights = p.gather(1, chosen)
    if normalise:
        weights = weights / _total(weights)
    weights = weights * scale
    number = scores.new_full((), tokens)
    q = p if score == "softmax" else p / _total(p)
    if present_mask is None:
        mean, entropy, log_sum = q.sum(0), torch.special.entr(q).sum(), lse.square().sum()
    else:
        present = present_mask.to(p.dtype)
        absent = ~present_mask[:, None]
        number = present_mask.sum().to(scores.dtype)
        weights, chosen = weights.masked_fill(absent, 0.0), chosen.masked_fill(absent, experts)
        # Padding may hold anything, so it is set to 0 before it is weighted.
        q, logs = q.masked_fill(absent, 0.0), lse.masked_fill(~present_mask, 0.0)
        mean, log_sum = present @ q, logs.square().sum()
        entropy = present @ torch.special.entr(q).sum(1)
    share = 1 / number.clamp_min(1)
    counts = counts_of(chosen, experts)
    return weights, chosen, counts, mean * share, log_sum * share, entropy * share, number, lse


def counts_of(chosen: Tensor, experts: int) -> Tensor:
    """How many rows chose each expert as first, second and so on: chosen (T, K) -> int64 (K, E)."""
    active = chosen.shape[1]
    # One bin for each choice and expert, and one for padding.
    bins = (chosen + (experts + 1) * torch.arange(active, device=chosen.device)).flatten()
    counts = torch.zeros(active * (experts + 1), dtype=torch.int64, device=chosen.device)
    counts = counts.scatter_add(0, bins, torch.ones_like(bins))
    return counts.view(active, experts + 1)[:, :experts].contiguous()


def backward(
    grad: Tensor,
    grad_probability: Tensor,
    grad_log_sum: Tensor,
    scores: Tensor,
    chosen: Tensor,
    lse: Tensor,
    tokens: Tensor,
    score: str,
    normalise: bool,
    scale: float,
) -> Tensor:
    """Gradient of the scores (T, E)."""
    experts = scores.shape[1]
    absent = chosen[:, :1] == experts
    present = (~absent).to(scores.dtype)
    p = probabilities(scores, lse, score)
    place = chosen.clamp_max(experts - 1)
    d_chosen = grad * present * scale
    if normalise:
        p_chosen = p.gather(1, place)
        total = _total(p_chosen)
        d_chosen = (d_chosen - (d_chosen * p_chosen).sum(1, keepdim=True) / total) / total
    share = present / tokens.clamp_min(1)
    if score == "softmax":
        d_p = share * grad_probability
    else:
        total = _total(p)
        d_p = share * (grad_probability - (p @ grad_probability)[:, None] / total) / total
    d_p = d_p.scatter_add(1, place, d_chosen)
    if score == "given":
        return d_p.masked_fill(absent, 0.0)
    if score == "softmax":
        soft, d_scores = p, p * (d_p - (p * d_p).sum(1, keepdim=True))
    else:
        soft, d_scores = (scores - lse[:, None]).exp(), p * (1 - p) * d_p
    d_scores = d_scores + share * (2 * grad_log_sum * lse[:, None]) * soft
    return d_scores.masked_fill(absent, 0.0)


def probabilities(scores: Tensor, lse: Tensor, score: str) -> Tensor:
    """p (T, E)."""
    if score == "softmax":
        return (scores - lse[:, None]).exp()
    return scores.sigmoid() if score == "sigmoid" else scores


def _total(p: Tensor) -> Tensor:
    """Sum over experts (T, 1), as a divisor."""
    return p.sum(1, keepdim=True).clamp_min(torch.finfo(p.dtype).tiny)
