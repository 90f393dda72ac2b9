"""The rungs of long contexts: the same window for all heads, as large as the plan, and the plan."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from torch import nn

from ..engine.ladder import LadderScores, Rung, Rungs, drawn_scores, weighted_mean
from ..engine.options import RungName
from ..engine.pipeline import Context, Splits
from .comparing import uniform_like
from .data import PromptPart
from .methods import METHODS
from .options import LongContextOptions
from .planned import PlannedModel, planned
from .scoring import scores_of
from .spec import LongContextSpec

WINDOWS = "the same window for all heads"


class LongContextRungs(Rungs[LongContextOptions, LongContextSpec, PromptPart]):
    """Uniform windows, chosen unless the plan is better beyond doubt, and the plan."""

    def answer_words(self, options: LongContextOptions, spec: LongContextSpec) -> str:
        """What the model does."""
        return "answers with a cut cache"

    def model_words(self, options: LongContextOptions) -> str:
        """How the plan was made."""
        return METHODS[options.method].words

    def simple(
        self,
        model: nn.Module,
        splits: Splits[LongContextSpec, PromptPart],
        options: LongContextOptions,
        device: torch.device,
    ) -> dict[RungName, Rung]:
        """The same window for all heads, which together read as many keys as the plan."""
        domain = planned(model)
        windows = PlannedModel(domain.base, beside=domain)
        windows.take(uniform_like(domain.plan, splits.spec.longest))
        words = f"{WINDOWS}, which together are as large as the plan"
        return {"naive": Rung(words, windows, short=WINDOWS)}

    def empty(
        self,
        name: RungName,
        facts: Mapping[str, object],
        models: Mapping[RungName, nn.Module],
        spec: LongContextSpec,
    ) -> nn.Module:
        """Windows without their sizes."""
        domain = planned(models["model"])
        windows = PlannedModel(domain.base, beside=domain)
        windows.method = "uniform"
        return windows

    def scores(
        self,
        models: Mapping[RungName, nn.Module],
        dataset: PromptPart,
        context: Context[LongContextOptions, LongContextSpec],
    ) -> LadderScores:
        """Loss of the answers (of the text where none is known), with draws of groups."""
        scores = {
            name: scores_of(planned(model).base, planned(model).plan, dataset, name)
            for name, model in models.items()
        }
        known = {name: values.measured for name, values in scores.items()}
        further = {
            "right answers": {n: float(np.nanmean(v.right)) for n, v in scores.items()
                              if not np.isnan(v.right).all()},
            "loss of the text": {n: float(np.nanmean(v.text)) for n, v in scores.items()},
        }  # fmt: skip
        return drawn_scores(
            "loss of the answer",
            {name: float(values.mean()) for name, values in known.items()},
            {name: partial(weighted_mean, values) for name, values in known.items()},
            dataset.groups,
            further={name: values for name, values in further.items() if values},
        )
