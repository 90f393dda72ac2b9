"""The rungs of recordings: shares of the classes, statistics with logistic regression, the blend.

Shapes: N recordings, C classes, S statistics.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, cast

import numpy as np
import torch
from scipy.special import log_softmax
from torch import Tensor, nn

from ...models.speech.classifier import BlendedRecordings, LinearRecordings, PriorRecordings
from ..engine.class_ladder import class_list, class_scores, fit_blend, prior_logits
from ..engine.ladder import LadderScores, Rung, Rungs, rung_outputs
from ..engine.options import RungName
from ..engine.pipeline import Context, Splits
from ..metrics.frozen_fit import LinearMap, fit_classes, refit_classes
from .data import RecordingSet, inputs_of
from .options import RecordingsOptions
from .spec import RecordingsSpec

BATCH = 64
Reads = Literal["statistics", "tokens", "mean"]
WORDS: Mapping[Reads, str] = {
    "statistics": "statistics of MFCC, energy and pitch",
    "tokens": "all layers of the encoder",
    "mean": "the mean state of the encoder",
}
HEADS = {
    "mean": "mean pooling",
    "gaam": "Gaussian adaptive attention",
    "gaam-density": "density adaptive attention",
    "gaam-mixture": "Gaussian adaptive attention (mixture)",
    "grouped-gaam": "Gaussian adaptive and grouped-query attention",
}


class Fitted(NamedTuple):
    """A linear model of what it reads, and its mean log-loss on the validation part."""

    reads: Reads
    map: LinearMap
    loss: float


class RecordingRungs(Rungs[RecordingsOptions, RecordingsSpec, RecordingSet]):
    """Shares of the classes, logistic regression, and its blend with the model of tokens."""

    def answer_words(self, options: RecordingsOptions, spec: RecordingsSpec) -> str:
        """What is told of a recording."""
        return f"class of a recording ({class_list(spec.classes)})"

    def model_words(self, options: RecordingsOptions) -> str:
        """The name of the model of tokens."""
        return head_words(options)

    def simple(
        self,
        model: nn.Module,
        splits: Splits[RecordingsSpec, RecordingSet],
        options: RecordingsOptions,
        device: torch.device,
    ) -> dict[RungName, Rung]:
        """The shares of the classes, and the logistic regression with the smallest log-loss on the
        validation part: of statistics, and of an encoder's states where there is one.
        """
        train, validation, spec = splits.train, splits.validation, splits.spec
        classes = len(spec.classes)
        naive = PriorRecordings(classes)
        naive.logits = prior_logits(train.labels, classes)
        best = min(
            (fit_linear(reads, train, validation, options.seed) for reads in forms(spec)),
            key=lambda fitted: fitted.loss,
        )

        def rung(chosen: LinearMap) -> Rung:
            words = f"{chosen.words} of {WORDS[best.reads]}"
            facts = {"reads": best.reads, "size": len(chosen.centre)}
            return Rung(words, linear_of(best.reads, chosen), facts, short="logistic regression")

        def refit() -> Rung:
            parts = [(numbers(p, best.reads), p.labels) for p in (train, validation)]
            return rung(refit_classes(best.map, parts, classes, seed=options.seed % (1 << 32)))

        shares = "the shares of the classes"
        return {
            "naive": Rung("shares of the classes", naive, short=shares),
            "simple": rung(best.map)._replace(refit=refit),
        }

    def blend(
        self,
        model: nn.Module,
        simple: nn.Module,
        splits: Splits[RecordingsSpec, RecordingSet],
        options: RecordingsOptions,
        device: torch.device,
    ) -> Rung:
        """The mean of the probabilities of the two."""
        validation, blend = splits.validation, BlendedRecordings(model, simple.to(device))
        logits = logits_of({"model": model, "simple": blend.simple}, validation, device)
        groups = len(set(validation.groups.tolist()))
        words = fit_blend(blend, validation.labels, logits["model"], logits["simple"], groups)
        return Rung(words, blend)

    def empty(
        self,
        name: RungName,
        facts: Mapping[str, object],
        models: Mapping[RungName, nn.Module],
        spec: RecordingsSpec,
    ) -> nn.Module:
        """Shares, a regression, or the blend."""
        if name == "naive":
            return PriorRecordings(len(spec.classes))
        if name == "blend":
            return BlendedRecordings(models["model"], models["simple"])
        reads = cast(Reads, facts["reads"])
        return LinearRecordings(reads, int(str(facts["size"])), len(spec.classes))

    def scores(
        self,
        models: Mapping[RungName, nn.Module],
        dataset: RecordingSet,
        context: Context[RecordingsOptions, RecordingsSpec],
    ) -> LadderScores:
        """Log-loss, with draws of speakers (or groups)."""
        logits = logits_of(models, dataset, context.device)
        return class_scores(dataset.labels, logits, dataset.groups)


def head_words(options: RecordingsOptions) -> str:
    """What a sentence calls the model of tokens."""
    return HEADS.get(options.head, f"{options.attention} attention")


def forms(spec: RecordingsSpec) -> list[Reads]:
    """What logistic regressions read."""
    if spec.features == "whisper-layers":
        return ["statistics", "tokens"]
    return ["statistics", "mean"] if spec.features == "whisper-frames" else ["statistics"]


def numbers(part: RecordingSet, reads: Reads) -> np.ndarray:
    """What a linear model reads of each recording, float64 (N, ·)."""
    rows: list[Tensor] = []
    for index in range(len(part)):
        clip = part.clip(index)
        of_tokens = clip.tokens.flatten() if reads == "tokens" else clip.tokens.mean(0)
        rows.append(clip.statistics if reads == "statistics" else of_tokens)
    return torch.stack(rows).double().numpy()


def fit_linear(reads: Reads, train: RecordingSet, validation: RecordingSet, seed: int) -> Fitted:
    """Logistic regression, whose penalty has the smallest log-loss on the validation part."""
    held = numbers(validation, reads)
    chosen = fit_classes(
        numbers(train, reads),
        train.labels,
        held,
        validation.labels,
        len(train.classes),
        seed=seed % (1 << 32),
    )
    logits = (held - chosen.centre) @ chosen.weight.T + chosen.bias
    true_class = np.arange(len(held)), validation.labels
    return Fitted(reads, chosen, float(-log_softmax(logits, axis=1)[true_class].mean()))


def linear_of(reads: Reads, chosen: LinearMap) -> LinearRecordings:
    """The model of a regression."""
    model = LinearRecordings(reads, len(chosen.centre), len(chosen.bias))
    model.centre, model.weight, model.bias = (torch.from_numpy(x).float() for x in chosen[:3])
    return model


@torch.no_grad()
def logits_of(
    models: Mapping[RungName, nn.Module], part: RecordingSet, device: torch.device
) -> dict[RungName, np.ndarray]:
    """float64 (N, C) of each rung."""
    by_rung: dict[RungName, list[np.ndarray]] = {name: [] for name in models}
    for start in range(0, len(part), BATCH):
        batch = part.__getitems__(range(start, min(start + BATCH, len(part))))
        inputs = [value.to(device) for value in inputs_of(batch)]

        def run(model: nn.Module, inputs: list[Tensor] = inputs) -> Tensor:
            return model(*inputs)

        for name, logits in rung_outputs(models, run).items():
            by_rung[name].append(logits.double().cpu().numpy())
    return {name: np.concatenate(values) for name, values in by_rung.items()}
