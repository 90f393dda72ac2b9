"""The rungs of texts: shares of the labels, tf-idf with a linear model, and its blend with the
network.

Shapes: N texts, L outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from ...data.texts.labels import Goal
from ...models.text.linear import BlendedTexts, ConstantTexts
from ..engine.class_ladder import certainty_of, class_scores, prior_logits
from ..engine.command_line.terminal import Progressbar
from ..engine.ladder import LadderScores, Rung, Rungs, drawn_scores, rung_outputs, weighted_mean
from ..engine.options import RungName
from ..engine.pipeline import Context, Splits
from ..metrics.labels.ranking import mean_average_precision, precision_at
from .blending import fit_weights
from .coding import inputs_of
from .data import TextPart
from .linear import LinearFit, best_linear, losses, refit_linear
from .network import empty_linear, set_linear
from .options import TextOptions
from .spec import TextSpec

BATCH = 64
MODELS = {
    "hybrid": "the hybrid model",
    "attention": "the label-attention model",
    "cross": "the cross-attention model",
    "sources": "the model of several sources",
    "sparse": "the rescaled linear model",
}
ANSWERS: Mapping[Goal, str] = {
    "class": "the class of a text",
    "labels": "the labels of a text",
    "number": "the number of a text",
}


class TextRungs(Rungs[TextOptions, TextSpec, TextPart]):
    """Shares of the labels, tf-idf with a linear model, and its blend with the network."""

    def answer_words(self, options: TextOptions, spec: TextSpec) -> str:
        """What is predicted."""
        if spec.goal == "number":
            return f"{spec.labels[0]} of a text"
        return f"{ANSWERS[spec.goal]} ({len(spec.labels)} to choose from)"

    def model_words(self, options: TextOptions) -> str:
        """The name of the model."""
        return MODELS[options.model]

    def simple(
        self,
        model: nn.Module,
        splits: Splits[TextSpec, TextPart],
        options: TextOptions,
        device: torch.device,
    ) -> dict[RungName, Rung]:
        """The share of each label, and the linear model of counted terms."""
        spec, train, validation = splits.spec, splits.train, splits.validation
        naive = ConstantTexts(spec.outputs)
        naive.logits = _prior(train.truth, spec.goal)
        fitted = spec.fitted
        if fitted is None or options.model == "sources":
            # The linear part of that model always has deviations of sources.
            fitted = best_linear(train.rows, validation.rows, spec.goal, of_sources=fitted)

        def rung(fitted: LinearFit) -> Rung:
            by_source = fitted.sources is not None
            model = set_linear(empty_linear(spec, by_source=by_source), fitted)
            facts = {"by_source": by_source}
            return Rung(fitted.words, model, facts, short="tf-idf with a linear model")

        def refit() -> Rung:
            return rung(refit_linear(fitted, (train.rows, validation.rows), spec.goal))

        share = "the mean" if spec.goal == "number" else "the shares of the labels"
        return {
            "naive": Rung(f"{share} of the training part", naive, short=share),
            "simple": rung(fitted)._replace(refit=refit if len(validation) else None),
        }

    def blend(
        self,
        model: nn.Module,
        simple: nn.Module,
        splits: Splits[TextSpec, TextPart],
        options: TextOptions,
        device: torch.device,
    ) -> Rung:
        """The logits of the two, summed with weights of the validation part; those of rare labels
        are drawn towards the weights of all.
        """
        spec, part = splits.spec, splits.validation
        logits = logits_of({"model": model, "simple": simple.to(device)}, part, device)
        weights = fit_weights(logits["model"], logits["simple"], part.truth, spec.goal)
        blend = BlendedTexts(model, simple, spec.outputs)
        certainty = certainty_of(len(np.unique(part.groups)))
        even = np.array([0.5, 0.5, 0.0])
        chosen = certainty * weights.values + (1 - certainty) * even[:, None]
        blend.first, blend.second, blend.shift = (
            torch.from_numpy(row.astype(np.float32)) for row in chosen
        )
        return Rung(f"sum of the logits of the two, {weights.words}", blend)

    def empty(
        self,
        name: RungName,
        facts: Mapping[str, object],
        models: Mapping[RungName, nn.Module],
        spec: TextSpec,
    ) -> nn.Module:
        """Shares, a linear model, or the blend."""
        if name == "naive":
            return ConstantTexts(spec.outputs)
        if name == "blend":
            return BlendedTexts(models["model"], models["simple"], spec.outputs)
        return empty_linear(spec, by_source=bool(facts.get("by_source")))

    def scores(
        self,
        models: Mapping[RungName, nn.Module],
        dataset: TextPart,
        context: Context[TextOptions, TextSpec],
    ) -> LadderScores:
        """Log-loss (of a number: squared error in its own unit), with draws of groups."""
        goal = context.spec.goal
        logits = logits_of(models, dataset, context.device)
        if goal == "class":
            return class_scores(dataset.truth.argmax(1), logits, dataset.groups)
        by_text = {name: losses(values, dataset.truth, goal) for name, values in logits.items()}
        further: dict[str, dict[RungName, float]] = {}
        if goal == "labels":
            truth = dataset.truth > 0
            for name, values in logits.items():
                further.setdefault("mAP", {})[name] = mean_average_precision(truth, values)
                first = precision_at(truth, values, 1)
                further.setdefault("P@1", {})[name] = float(first.mean())
        else:
            scale = context.spec.deviation**2
            by_text = {name: values * scale for name, values in by_text.items()}
            variance = float(dataset.truth.var()) * scale
            further["R²"] = {
                name: 1 - float(values.mean()) / max(variance, 1e-12)
                for name, values in by_text.items()
            }
        return drawn_scores(
            "log-loss" if goal == "labels" else "squared error",
            {name: float(values.mean()) for name, values in by_text.items()},
            {name: partial(weighted_mean, values) for name, values in by_text.items()},
            dataset.groups,
            further=further,
        )


@torch.no_grad()
def logits_of(
    models: Mapping[RungName, nn.Module], part: TextPart, device: torch.device
) -> dict[RungName, np.ndarray]:
    """float64 (N, L) of each rung."""
    parts: dict[RungName, list[np.ndarray]] = {name: [] for name in models}
    with Progressbar(total=len(part), unit="text", desc="scores") as bar:
        for start in range(0, len(part), BATCH):
            rows = range(start, min(start + BATCH, len(part)))
            batch = part.coded.inputs(rows, part.padding)
            inputs = [value.to(device) for value in inputs_of(batch)]

            def run(model: nn.Module, inputs: list[Tensor] = inputs) -> Tensor:
                return model(*inputs)

            for name, logits in rung_outputs(models, run).items():
                parts[name].append(logits.double().cpu().numpy())
            bar.update(len(rows))
    return {name: np.concatenate(values) for name, values in parts.items()}


def _prior(truth: np.ndarray, goal: Goal) -> Tensor:
    """Logits (L,) that say what is frequent; 0, the mean, of a scaled number."""
    if goal == "number":
        return torch.zeros(truth.shape[1])
    if goal == "class":
        return prior_logits(truth.argmax(1), truth.shape[1])
    share = (truth.sum(0) + 1) / (len(truth) + 2)
    return torch.from_numpy(np.log(share / (1 - share))).float()
