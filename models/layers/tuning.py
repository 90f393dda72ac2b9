"""Backbones with pretrained weights of which a training changes all, the last stage, or none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

Tune = Literal["all", "last", "none"]


class TunedBackbone(nn.Module):
    """A network of stages, part of which a training may leave as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.tuned: Tune = "all"

    def last_stage(self) -> Sequence[nn.Module]:
        """The modules that "last" trains; ValueError for a network without stages."""
        raise NotImplementedError

    def tune(self, part: Tune) -> None:
        """Choose what a training changes: "all", the "last" stage, or "none".

        What it does not change gets no gradients, and stays in evaluation mode, so that its norms
        keep the statistics that they came with and nothing in it is drawn. Call it before the
        optimizer is made.
        """
        if part != "all":
            stage = self.last_stage() if part == "last" else ()
            trained = {id(weight) for module in stage for weight in module.parameters()}
            for weight in self.parameters():
                if id(weight) not in trained:
                    weight.requires_grad_(False)
        self.tuned = part
        self.train(self.training)

    def train(self, mode: bool = True) -> TunedBackbone:
        """As torch's, but for the parts that stay as they are."""
        super().train(mode and self.tuned == "all")
        if mode and self.tuned == "last":
            for module in self.last_stage():
                module.train()
        return self
