"""Whole models that were trained apart, mixed into one with experts (Branch-Attend-Mix, arXiv
2408.08274).
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..attention.softmax import SoftmaxAttention
from ..layers.blocks import FeedForward
from .attention import AttentionExperts
from .upcycle import assemble


@torch.no_grad()
def mix_branches(
    models: Sequence[nn.Module],
    *,
    attention: bool = True,
    shared: bool = False,
    active: int = 1,
    **options: Any,
) -> nn.Module:
    """One model in which feed-forward networks and attentions of the given ones are experts, all
    else their mean.

    The paper's third phase: the seed and its branches, each trained on for a domain, go in; routers
    are new. A token uses `active` feed-forward experts, by default one with its probability as
    weight, and all attention experts, softly weighed. attention: False averages the attentions, too
    (Branch-Train-Mix, arXiv 2403.07816); shared: attention experts share the mean of keys and
    values; options: as in `MoE`.

    Of equal models with weights that sum to 1 (active > 1) it is that model, whatever the routers
    say.

    Raises ValueError for fewer than two models, models of different parts, or without softmax
    attention or feed-forward networks."""
    first, names = models[0] if models else None, [list(model.state_dict()) for model in models]
    if first is None or len(models) < 2 or any(other != names[0] for other in names):
        raise ValueError(
            f"mix_branches: needs two models or more of the same parts, got {len(models)}"
        )
    mixed, found = copy.deepcopy(first), 0
    for name, part in list(mixed.named_modules()):
        each: list[Any] = [model.get_submodule(name) for model in models]
        made: nn.Module
        if isinstance(part, FeedForward):
            made = assemble(each, active=active, **options).train(part.training)
        elif attention and isinstance(part, SoftmaxAttention):
            made = AttentionExperts.assemble(each, shared=shared)
        else:
            for key, value in part.named_parameters(recurse=False):
                value.copy_(torch.stack([getattr(other, key) for other in each]).mean(0))
            for key, value in part.named_buffers(recurse=False):
                if value.is_floating_point():
                    value.copy_(torch.stack([getattr(other, key) for other in each]).mean(0))
            continue
        parent, _, last = name.rpartition(".")
        setattr(mixed.get_submodule(parent), last, made)
        found += 1
    if not found:
        raise ValueError(
            f"mix_branches: {type(first).__name__} has no feed-forward network and no softmax attention"
        )
    return mixed
