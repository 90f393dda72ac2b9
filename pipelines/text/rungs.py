"""The rungs of Text: the mean, a linear regression, and its blend with the network."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from ..engine.ladder import LadderScores, Rung, Rungs, drawn_scores, rung_outputs, weighted_mean
from ..engine.options import RungName
from ..engine.pipeline import Context, Splits
from .data import TextRows, TextSpec
from .options import TextOptions
from .scoring import scaled_predictions

PENALTY = 1e-3  # of the squared weights, for each row
SHARES = tuple(k / 10 for k in range(11))


class LinearColumns(nn.Module):
    """A linear function of the columns, called as the network is; a real one belongs into
    `models/`.

    columns: D, of the input.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(columns))
        self.register_buffer("bias", torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        """features (B, D) to predictions (B,), all scaled."""
        return features @ self.weight + self.bias


class BlendedColumns(nn.Module):
    """A weighted mean of two models."""

    share: Tensor

    def __init__(self, model: nn.Module, simple: nn.Module) -> None:
        super().__init__()
        self.model, self.simple = model, simple
        self.register_buffer("share", torch.tensor(0.5))

    def forward(self, features: Tensor) -> Tensor:
        """features (B, D) to predictions (B,), all scaled."""
        return self.blend(self.model(features), self.simple(features))

    def blend(self, first: Tensor, second: Tensor) -> Tensor:
        """The mean of two predictions."""
        return self.share * first + (1 - self.share) * second


class TextRungs(Rungs[TextOptions, TextSpec, TextRows]):
    """The mean, a linear regression, and its blend with the network."""

    def answer_words(self, options: TextOptions, spec: TextSpec) -> str:
        """What is predicted."""
        return f"{spec.target} of a row"

    def model_words(self, options: TextOptions) -> str:
        """The name of the model."""
        return "the network"

    def simple(
        self,
        model: nn.Module,
        splits: Splits[TextSpec, TextRows],
        options: TextOptions,
        device: torch.device,
    ) -> dict[RungName, Rung]:
        """The mean of the target, and a linear regression with a small penalty."""
        rows = splits.train
        naive, linear = (LinearColumns(rows.features.shape[1]) for _ in range(2))
        naive.bias = rows.target.mean()
        centre, x = rows.features.mean(0), rows.features - rows.features.mean(0)
        matrix = x.T @ x + PENALTY * len(rows) * torch.eye(x.shape[1])
        linear.weight = torch.linalg.solve(matrix, x.T @ (rows.target - naive.bias))
        linear.bias = naive.bias - centre @ linear.weight
        return {
            "naive": Rung("mean of the training part", naive, short="the mean"),
            "simple": Rung("linear regression", linear),
        }

    def blend(
        self,
        model: nn.Module,
        simple: nn.Module,
        splits: Splits[TextSpec, TextRows],
        options: TextOptions,
        device: torch.device,
    ) -> Rung:
        """The share of the network with the smallest squared error on the validation part."""
        blend, truth = BlendedColumns(model, simple.to(device)), splits.validation.target
        parts = [scaled_predictions(part, splits.validation, device) for part in (model, simple)]
        errors = [(share * parts[0] + (1 - share) * parts[1] - truth) for share in SHARES]
        share = SHARES[int(np.argmin([float(error.square().mean()) for error in errors]))]
        blend.share = torch.tensor(share)
        return Rung(f"the blend, {share:.0%} of the network", blend)

    def empty(
        self,
        name: RungName,
        facts: Mapping[str, object],
        models: Mapping[RungName, nn.Module],
        spec: TextSpec,
    ) -> nn.Module:
        """A linear function, or the blend."""
        if name == "blend":
            return BlendedColumns(models["model"], models["simple"])
        return LinearColumns(len(spec.columns))

    def scores(
        self,
        models: Mapping[RungName, nn.Module],
        dataset: TextRows,
        context: Context[TextOptions, TextSpec],
    ) -> LadderScores:
        """Mean squared errors of the scaled target, with draws of rows."""
        outputs = rung_outputs(
            models, lambda model: scaled_predictions(model, dataset, context.device)
        )
        squares = {
            name: (output - dataset.target).double().square().numpy()
            for name, output in outputs.items()
        }
        return drawn_scores(
            "MSE",
            {name: float(values.mean()) for name, values in squares.items()},
            {name: partial(weighted_mean, values) for name, values in squares.items()},
            len(dataset),
        )
