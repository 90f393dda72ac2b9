"""Linear models of texts, called as all models of texts are, and their blend with a network.

Shapes: B texts, F features of a text (filled up), T numbers of the table beside it, V features that
are known, L outputs. Inputs are named in `inputs`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .inputs import TextInputs, TextModel


class ConstantTexts(TextModel):
    """The same outputs for all texts, such as the log-odds of each label.

    outputs: L.
    """

    logits: Tensor

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.register_buffer("logits", torch.zeros(outputs))

    def answer(self, x: TextInputs) -> Tensor:
        """(B, L)."""
        return self.logits.expand(len(x.features), -1)


class LinearTexts(TextModel):
    """A linear function of counted features and of the table: logits = amounts · weight[features] +
    table · table_weight + bias. Fitted elsewhere; its tensors are not trained.

    features: V; outputs: L; table: T.
    """

    weight: Tensor
    table_weight: Tensor
    bias: Tensor

    def __init__(self, features: int, outputs: int, table: int = 0) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(features, outputs))
        self.register_buffer("table_weight", torch.zeros(table, outputs))
        self.register_buffer("bias", torch.zeros(outputs))

    def answer(self, x: TextInputs) -> Tensor:
        """(B, L)."""
        words = F.embedding_bag(x.features, self.weight, mode="sum", per_sample_weights=x.amounts)
        return words + x.table @ self.table_weight + self.bias

    def parts(self, x: TextInputs, labels: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """What the logits are the sum of: of each feature (B, F, L), of the table (B, L), and the
        bias (B, L). labels: int64, those to explain, by default all.
        """
        by_feature = rows_of(self.weight, x.features, labels) * x.amounts[..., None]
        of_table = x.table @ of_labels(self.table_weight, labels)
        return by_feature, of_table, of_labels(self.bias, labels).expand_as(of_table)


def of_labels(values: Tensor, labels: Tensor | None) -> Tensor:
    """Those of some labels, of numbers (..., L) of all; labels: their places, None for all."""
    return values if labels is None else values[..., labels]


def rows_of(weight: Tensor, rows: Tensor, labels: Tensor | None) -> Tensor:
    """Rows (B, F) of a weight (V, L), of some labels. Both places are taken at once: all labels of
    the features of a long text are many numbers.
    """
    return weight[rows] if labels is None else weight[rows[..., None], labels]


class BlendedTexts(TextModel):
    """A weighted sum of the logits of two models, with a weight of each for every output: logits =
    first · model + second · simple + shift.

    outputs: L.
    """

    first: Tensor
    second: Tensor
    shift: Tensor

    def __init__(self, model: nn.Module, simple: nn.Module, outputs: int) -> None:
        super().__init__()
        self.model, self.simple = model, simple
        self.register_buffer("first", torch.full((outputs,), 0.5))
        self.register_buffer("second", torch.full((outputs,), 0.5))
        self.register_buffer("shift", torch.zeros(outputs))

    def answer(self, x: TextInputs) -> Tensor:
        """(B, L)."""
        return self.blend(self.model(*x), self.simple(*x))

    def blend(self, model: Tensor, simple: Tensor) -> Tensor:
        """The sum of the logits of the two."""
        return self.first * model + self.second * simple + self.shift
