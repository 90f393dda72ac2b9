"""Losses that keep all experts of a router in use: means over the present tokens, layer by layer.

Shapes: E experts, K active experts of a token. n_ke: share of tokens whose choice k is expert e;
P_e: mean probability.

Average them over layers: joining the tokens of several layers first would hide layers that collapse
onto different experts.
"""

from typing import Literal

import torch
from torch import Tensor

from ..ranks import summed_over_ranks
from .router import Routing

Convention = Literal["switch", "sum", "first"]


def of_all_ranks(routing: Routing) -> Routing:
    """The routing with the counts of the tokens of all ranks, where several train together.

    So the mean of `load_balance` over the ranks is that of the entire batch, where all ranks have
    as many tokens.
    """
    counts = torch.cat([routing.counts.flatten(), routing.tokens.to(routing.counts).view(1)])
    total = summed_over_ranks(counts)
    return routing._replace(
        counts=total[:-1].view_as(routing.counts), tokens=total[-1].to(routing.tokens)
    )


def load_balance(routing: Routing, convention: Convention = "switch") -> Tensor:
    """E sum_e f_e P_e: 1 if all experts are used equally, E / K if all tokens use the same K with
    certainty.

    "switch": f_e = sum_k n_ke / K (Fedus et al., arXiv 2101.03961, equations 4-6, for K = 1;
    MegaBlocks); "sum": f_e = sum_k n_ke, K times as much (transformers, CLIP-MoE); "first": only
    first choices are counted (GShard, Tutel). At logits of exactly 0 the value is that of uniform
    use whatever is chosen: it cannot show a collapse there.

    Raises ValueError for an unknown convention.
    """
    choices, experts = routing.counts.shape
    if convention not in ("switch", "sum", "first"):
        raise ValueError(
            f"load_balance: convention must be 'switch', 'sum' or 'first', got {convention!r}"
        )
    counts = routing.counts[0] if convention == "first" else routing.counts.sum(0)
    share = counts.to(routing.probability.dtype) / routing.tokens.clamp_min(1)
    if convention == "switch":
        share = share / choices
    return experts * (share * routing.probability).sum()


def z_loss(routing: Routing) -> Tensor:
    """Mean squared log-sum-exp of the logits, which keeps them small (Zoph et al., arXiv
    2202.08906, equation 5).
    """
    return routing.log_sum


def importance(routing: Routing) -> Tensor:
    """Squared coefficient of variation of the experts' probabilities (Shazeer et al., arXiv
    1701.06538, equation 6).
    """
    p = routing.probability
    return p.var(correction=0) / p.mean().square().clamp_min(torch.finfo(p.dtype).tiny)
