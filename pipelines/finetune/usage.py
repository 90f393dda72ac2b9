"""Which heads and experts of a converted model are on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ...models.language.tuning.anatomy import decoder_layers
from ...models.language.tuning.convert import DifferentialOutput, ExpertQueries, HeadGates
from ...models.language.tuning.tuned import LanguageModel, TunedModel
from ...models.moe.layer import MoE
from ..engine.pipeline import Metrics
from .coding import batch_of
from .data import TunePart
from .scoring import BATCH, token_losses

ROWS = 64  # of a part, for which it is looked at


@dataclass(frozen=True)
class Usage:
    """what: a head or an expert; by_layer: share of tokens that each is on for, or its mean weight;
    weights: lambda of each layer of grouped differential attention.
    """

    what: str
    by_layer: Mapping[int, np.ndarray]
    weights: Mapping[int, float]

    def metrics(self) -> Metrics:
        """As `metrics.json` holds it."""
        share = float(np.mean([values.mean() for values in self.by_layer.values()]))
        values: Metrics = {"what": self.what, "share_on": share}
        if self.weights:
            values["noise_weight"] = {str(k): v for k, v in self.weights.items()}
        return values


@torch.no_grad()
def usage_of(model: LanguageModel, part: TunePart, device: torch.device) -> Usage | None:
    """Which heads or experts are on for the first rows of a part; None for a model that was not
    converted.
    """
    if not isinstance(model, TunedModel) or model.change.convert == "none":
        return None
    totals: dict[int, torch.Tensor] = {}
    hooks, tokens = [], 0
    weights: dict[int, float] = {}
    for number in model.layers:
        for module in decoder_layers(model.base)[number].modules():
            if isinstance(module, HeadGates):
                module.used = torch.zeros(module.heads, dtype=torch.float64)
            elif isinstance(module, DifferentialOutput):
                weights[number] = float(module.noise_weight())
            elif isinstance(module, MoE | ExpertQueries):
                hooks.append(module.register_forward_hook(_watch(totals, number)))
    try:
        for start in range(0, min(ROWS, part.count), BATCH):
            rows = part.coded[start : start + BATCH]
            batch = batch_of(rows, packed=False, padding=part.coder.padding)
            tokens += sum(map(len, rows))
            token_losses(model, {name: value.to(device) for name, value in batch.items()})
    finally:
        for hook in hooks:
            hook.remove()
    what = "head"
    by_layer = {k: (v / tokens).cpu().numpy() for k, v in totals.items()}
    for number in model.layers:
        for module in decoder_layers(model.base)[number].modules():
            if isinstance(module, HeadGates) and module.used is not None:
                by_layer[number], module.used = (module.used / tokens).numpy(), None
    if totals:
        what = "expert"
    if weights:
        by_layer = {number: np.array([weight]) for number, weight in weights.items()}
        what = "noise map"
    return Usage(what, by_layer, weights)


def _watch(totals: dict[int, torch.Tensor], number: int):  # type: ignore[no-untyped-def]
    def add(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: object) -> None:
        if isinstance(module, MoE):
            assert module.routing is not None
            used = module.routing.counts.sum(0).double()
        else:
            assert isinstance(module, ExpertQueries)
            assert module.latest is not None
            used = module.latest.double().sum((0, 1))
        totals[number] = totals.get(number, torch.zeros_like(used)) + used

    return add
