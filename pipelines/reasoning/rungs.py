"""The rungs of reasoning: the most common answer, the best constant for each form of question, the
network, and their blend. The first two look at no scene.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from torch import nn

from ...models.reasoning.simple import BlendedAnswers, ConstantAnswer, ConstantByForm
from ..engine.class_ladder import fit_blend, prior_logits
from ..engine.ladder import LadderScores, Rung, Rungs, drawn_scores, weighted_mean
from ..engine.options import RungName
from ..engine.pipeline import Context, Splits
from .data import FreshTrials, ReasoningPart, ReasoningSpec, TrialPart
from .options import ReasoningOptions
from .scoring import ANSWERS, fit_shares, log_losses, logits_of

FITTED = 10_000
"""Generated trials from which the answers without a scene are counted."""


def in_memory(part: ReasoningPart) -> TrialPart:
    """The trials of a part; of generated ones, as many as are counted."""
    return part.part(FITTED) if isinstance(part, FreshTrials) else part


class ReasoningRungs(Rungs[ReasoningOptions, ReasoningSpec, ReasoningPart]):
    """The most common answer, the best constant for each form of question, and the blend."""

    def answer_words(self, options: ReasoningOptions, spec: ReasoningSpec) -> str:
        """What is answered."""
        return "answers to questions about scenes"

    def model_words(self, options: ReasoningOptions) -> str:
        """The name of the network."""
        return f"the network ({options.model})"

    def simple(
        self,
        model: nn.Module,
        splits: Splits[ReasoningSpec, ReasoningPart],
        options: ReasoningOptions,
        device: torch.device,
    ) -> dict[RungName, Rung]:
        """The shares of the answers; and of those that each operator gives."""
        train = in_memory(splits.train)
        naive, simple = ConstantAnswer(), ConstantByForm()
        naive.logits = prior_logits(train.answers, ANSWERS)
        simple.shares = fit_shares(train)
        words = "the most common answer for each form of question, without the scene"
        return {
            "naive": Rung("the most common answer", naive),
            "simple": Rung(words, simple, short="the best constants, without the scene"),
        }

    def blend(
        self,
        model: nn.Module,
        simple: nn.Module,
        splits: Splits[ReasoningSpec, ReasoningPart],
        options: ReasoningOptions,
        device: torch.device,
    ) -> Rung:
        """The mean of the probabilities of the two."""
        part, blend = in_memory(splits.validation), BlendedAnswers(model, simple.to(device))
        logits = logits_of({"model": model, "simple": blend.simple}, part, device)
        words = fit_blend(blend, part.answers, logits["model"], logits["simple"], len(part))
        return Rung(words, blend)

    def empty(
        self,
        name: RungName,
        facts: Mapping[str, object],
        models: Mapping[RungName, nn.Module],
        spec: ReasoningSpec,
    ) -> nn.Module:
        """Constants, or the blend."""
        if name == "blend":
            return BlendedAnswers(models["model"], models["simple"])
        return ConstantAnswer() if name == "naive" else ConstantByForm()

    def scores(
        self,
        models: Mapping[RungName, nn.Module],
        dataset: ReasoningPart,
        context: Context[ReasoningOptions, ReasoningSpec],
    ) -> LadderScores:
        """Accuracy, with draws of trials, and the log-loss beside it."""
        part = in_memory(dataset)
        logits = logits_of(models, part, context.device)
        right = {
            name: (values.argmax(1) == part.answers).astype(np.float64)
            for name, values in logits.items()
        }
        losses = {
            name: float(log_losses(values, part.answers).mean()) for name, values in logits.items()
        }
        return drawn_scores(
            "accuracy",
            {name: float(values.mean()) for name, values in right.items()},
            {name: partial(weighted_mean, values) for name, values in right.items()},
            len(part),
            larger_is_better=True,
            further={"log-loss": losses},
        )
