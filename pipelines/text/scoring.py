"""How good predictions are, compared with the mean of the training part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..engine.training import order
from .data import TextRows, TextSpec

BATCH = 256


@dataclass(frozen=True)
class Scores:
    """Predictions and truth of a part, (N,), in original units, and what they are compared with."""

    prediction: np.ndarray
    truth: np.ndarray
    mean: float
    """Of the training part: the naive prediction."""

    @property
    def mae(self) -> float:
        """Mean absolute error."""
        return float(np.abs(self.prediction - self.truth).mean())

    @property
    def naive_mae(self) -> float:
        """Mean absolute error of the naive prediction."""
        return float(np.abs(self.mean - self.truth).mean())


@torch.no_grad()
def scaled_predictions(model: nn.Module, part: TextRows, device: torch.device) -> Tensor:
    """Predictions for the rows of a part, scaled as its target is, (N,)."""
    batches = order.loader(part, order.sequential(len(part), BATCH), device=device)
    return torch.cat([model(batch["features"]).cpu() for batch in batches])


def scores_of(model: nn.Module, part: TextRows, spec: TextSpec, device: torch.device) -> Scores:
    """Predict a part."""
    scaled = scaled_predictions(model, part, device).double().numpy()
    mean, deviation = spec.mean[-1], spec.deviation[-1]
    truth = part.target.double().numpy()
    return Scores(scaled * deviation + mean, truth * deviation + mean, mean)
