"""What each token and counted feature adds to the logits of a model of texts, whatever model it is.

Shapes: B texts, N tokens, F features, L outputs that are explained. Inputs are named in `inputs`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from .attention import (
    AttentionTexts,
    Contributions,
    HybridTexts,
    ScaledTexts,
    added,
    linear_contributions,
    scaled,
)
from .inputs import TextInputs
from .linear import BlendedTexts, ConstantTexts, LinearTexts, of_labels
from .sources import SourceLinearTexts

# By their type: what inherits from one may have terms of its own.
SUMS = (
    AttentionTexts, ConstantTexts, HybridTexts, LinearTexts, ScaledTexts, SourceLinearTexts,
)  # fmt: skip


def is_sum(model: nn.Module) -> bool:
    """Whether the logits of a model are sums over tokens, counted features and the table."""
    if isinstance(model, BlendedTexts):
        return is_sum(model.model) and is_sum(model.simple)
    return type(model) in SUMS


def text_contributions(
    model: nn.Module, inputs: Sequence[Tensor], labels: Tensor | None = None
) -> Contributions:
    """What makes up the logits of texts: they are the sum, within rounding.

    inputs: as the model takes them; labels: int64, the outputs to explain, None for all. The
    encoder runs once, whatever their number.

    Raises ValueError for a model that is no sum, see `is_sum`.
    """
    x = TextInputs(*inputs)
    match model:
        case BlendedTexts():
            first, second, shift = (
                of_labels(values, labels) for values in (model.first, model.second, model.shift)
            )
            return added(
                scaled(text_contributions(model.model, inputs, labels), first, shift),
                scaled(text_contributions(model.simple, inputs, labels), second, 0 * shift),
            )
        case ConstantTexts():
            bias = of_labels(model.logits, labels)
            logits = bias.expand(len(x.features), -1)
            by_token, by_feature = (
                bias.new_zeros(*logits.shape, places) for places in (x.places, x.features.shape[1])
            )
            return Contributions(logits, by_token, by_feature, torch.zeros_like(logits), bias)
        case LinearTexts():
            return linear_contributions(model, x, labels)
        case AttentionTexts() | HybridTexts() | ScaledTexts():
            return model.contributions(x, labels)
    raise ValueError(f"{type(model).__name__}: its logits are no sum over the words")


def divided_part(model: nn.Module) -> nn.Module | None:
    """Of a model that is no sum as a whole, the part whose logits are added to the rest and are
    one: its linear model. The model itself where it is a sum; None where it has no such part.
    """
    if is_sum(model):
        return model
    if isinstance(model, BlendedTexts):
        parts = divided_part(model.model), divided_part(model.simple)
        if parts[0] is None or parts[1] is None:
            return None
        blend = BlendedTexts(parts[0], parts[1], len(model.first))
        blend.first, blend.second, blend.shift = model.first, model.second, model.shift
        return blend
    linear = getattr(model, "linear", None)
    return linear if isinstance(linear, nn.Module) and is_sum(linear) else None


def attended_tokens(model: nn.Module, inputs: Sequence[Tensor]) -> Tensor | None:
    """Which tokens a model that is no sum attends to, (B, N): the mean of its queries. None where
    it has no attention to tokens, or a mechanism without weights.
    """
    if isinstance(model, BlendedTexts):
        return attended_tokens(model.model, inputs)
    attended = cast("Callable[..., Tensor] | None", getattr(model, "attended", None))
    if attended is None:
        return None
    x = TextInputs(*inputs)
    try:
        return attended(x.tokens, x.mask, x.table).mean(1)
    except ValueError:
        return None
