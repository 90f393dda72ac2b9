"""Importance of hidden units for general texts, by which the steps of a training are masked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from ...base.account import note
from ...models.language.opening import OpenedLanguageModel
from ...models.language.tuning.anatomy import layer_range
from ...models.language.tuning.importance import Form, TextBatch, joined_importance, unit_gradients
from ..engine.training.order import mix
from .coding import Coded, batch_of
from .general import GeneralTexts
from .options import USUAL, FinetuneOptions, parse_layers

FORMS: Mapping[str, Form] = {"signal": "loss", "published": "published"}
BATCH = 4
FAINT = 1e-5  # gradients below it are rounding noise of 32 bits


def layers_of(options: FinetuneOptions) -> tuple[float, float, bool] | None:
    """The layers that a training tunes."""
    return parse_layers(options.layers or USUAL[options.method][1])


def modules_of(options: FinetuneOptions) -> tuple[str, ...]:
    """The modules that a training tunes in these layers."""
    return options.modules or USUAL[options.method][0]


def importance_of(
    opened: OpenedLanguageModel, general: Sequence[GeneralTexts], options: FinetuneOptions
) -> dict[int, Tensor]:
    """Importance of the hidden units of the tuned layers: the largest over the sources of general
    texts.
    """
    layers = layer_range(layers_of(options), opened.facts.layers)
    form = FORMS[options.mask]
    parts, largest = [], 0.0
    for number, texts in enumerate(general):
        gradients = unit_gradients(
            opened.model,
            batches(texts.rows),
            layers,
            form=form,
            seed=mix(options.seed, 8, number) % (1 << 31),
        )
        parts.append(gradients.importance())
        largest = max(largest, gradients.largest())
    if largest < FAINT:
        note(
            "assumed",
            f"--mask {options.mask}: the largest gradient is {largest:.1g}, which is rounding "
            "noise: the mask protects units at random",
        )
    return joined_importance(parts)


def batches(rows: Sequence[Coded], size: int = BATCH) -> Iterator[TextBatch]:
    """Texts in batches."""
    for start in range(0, len(rows), size):
        batch = batch_of(rows[start : start + size], packed=False, padding=0)
        yield TextBatch(batch["tokens"], batch["targets"])


def masked_share(masks: Mapping[torch.nn.Parameter, Tensor]) -> float:
    """The mean share of a step that is taken."""
    if not masks:
        return 1.0
    return float(torch.cat([mask.flatten().double() for mask in masks.values()]).mean())
