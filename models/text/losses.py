"""The loss of texts: of a class, of any number of labels, or of a number.

Shapes: B texts, L outputs, E experts.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.label_losses import ClassLoss, Imbalance, LabelLoss


class TextLoss(nn.Module):
    """The mean loss of the texts of a batch.

    goal: cross-entropy of a "class", binary cross-entropy of "labels", squared error of a scaled
    "number"; imbalance: how rare labels are helped; counts: texts of the training part with each
    label, of `samples`. It has no tensors that are stored.

    Raises ValueError for a way to help that there is not for the goal.
    """

    def __init__(
        self,
        goal: Literal["class", "labels", "number"],
        imbalance: Imbalance,
        counts: Tensor,
        samples: int,
    ) -> None:
        super().__init__()
        self.goal: Literal["class", "labels", "number"] = goal
        self.imbalance = imbalance
        if goal == "number" and imbalance != "none":
            raise ValueError(f"imbalance {imbalance}: a number has no rare labels")
        if goal == "class" and imbalance == "asymmetric":
            raise ValueError("imbalance asymmetric: is for labels, not for one class of each text")
        if goal == "labels" and imbalance == "diverse":
            raise ValueError("imbalance diverse: is for one class of each text, not for labels")
        self.of_labels = LabelLoss(imbalance, counts, samples) if goal == "labels" else None
        self.of_class = ClassLoss(imbalance, counts) if goal == "class" else None

    def forward(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Logits and truth (B, L) -> (); logits of diverse experts of a class are (E, B, L)."""
        logits = logits if logits.dtype == torch.float64 else logits.float()
        truth = truth.to(logits.dtype)
        if self.goal == "number":
            return F.mse_loss(logits, truth)
        if self.of_labels is not None:
            return self.of_labels(logits, truth).mean()
        assert self.of_class is not None
        return self.of_class(logits, truth.argmax(1)).mean()
