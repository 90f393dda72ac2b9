"""Separately trained models, mixed into one with experts (Branch-Attend-Mix, arXiv 2408.08274)."""

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
    """One model whose experts are the feed-forward networks and attentions of the given models; the
    rest is their mean.

    The paper's third phase: the models are the seed and its branches, each trained further on a
    domain; routers are new. A token uses `active` feed-forward experts, by default one with its
    probability as weight, and all attention experts, softly weighted. attention: False averages the
    attentions, too (Branch-Train-Mix, arXiv 2403.07816); shared: attention experts share the mean
    of keys and values; options: as in `MoE`.

    For equal models, with weights that sum to 1 (active > 1), the result is the same function,
    whatever the routers say.

    Raises ValueError for fewer than two models, models with different parts, and models without
    softmax attention or feed-forward networks.
    """
    first, names = models[0] if models else None, [list(model.state_dict()) for model in models]
    if first is None or len(models) < 2 or any(keys != names[0] for keys in names):
        raise ValueError(
            f"mix_branches: needs two models or more of the same parts, got {len(models)}"
        )
    mixed, replaced = copy.deepcopy(first), 0
    for name, part in list(mixed.named_modules()):
        branches: list[Any] = [model.get_submodule(name) for model in models]
        experts: nn.Module
        if isinstance(part, FeedForward):
            experts = assemble(branches, active=active, **options).train(part.training)
        elif attention and isinstance(part, SoftmaxAttention):
            experts = AttentionExperts.assemble(branches, shared=shared)
        else:
            tensors = (*part.named_parameters(recurse=False), *part.named_buffers(recurse=False))
            for key, value in tensors:
                if value.is_floating_point():
                    value.copy_(torch.stack([getattr(branch, key) for branch in branches]).mean(0))
            continue
        parent, _, last = name.rpartition(".")
        setattr(mixed.get_submodule(parent), last, experts)
        replaced += 1
    if not replaced:
        raise ValueError(
            f"mix_branches: {type(first).__name__} has no feed-forward network and no softmax "
            "attention"
        )
    return mixed
