"""Reasoning: the work behind the verbs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from scipy.special import softmax
from torch import Tensor, nn

from ...base.errors import InputError
from ...models.reasoning.networks import ReasonerOptions, build_reasoner
from ...models.reasoning.size import width_for
from ..engine.mechanisms import mechanism_options
from ..engine.pipeline import (
    Batch,
    Calibration,
    Context,
    ExportInputs,
    FreeAxes,
    Metrics,
    Pipeline,
    Review,
    Schema,
    Splits,
)
from ..metrics.operating import fit_temperature
from . import data, figures
from .data import ReasoningPart, ReasoningSpec, TrialPart
from .options import ReasoningOptions, ReasoningPredictOptions
from .prediction import SCHEMA, TrialItem, answer_lines, list_parts, predict_parts
from .published import published_facts
from .rungs import ReasoningRungs, in_memory
from .scoring import LOOKED, attention_of, logits_of, looks_of, looks_table, network_of, score


class ReasoningPipeline(
    Pipeline[ReasoningOptions, ReasoningSpec, ReasoningPredictOptions, ReasoningPart, TrialItem]
):
    """Answers to questions about scenes of coloured letters."""

    monitor = "loss"
    spec_class = ReasoningSpec

    def write_sample(self, folder: Path) -> Path:
        """The validation and the test part of a training with default options."""
        return self.write_sample_for(ReasoningOptions(), folder)

    def write_sample_for(self, options: ReasoningOptions, folder: Path) -> Path:
        """The validation and the test part that the options ask for; the training part is generated
        while it is trained on.
        """
        lines = data.generated_lines(options, options.seed, with_train=False)
        return data.write_trials(folder / data.SAMPLE, lines)

    def open_data(
        self, options: ReasoningOptions, spec: ReasoningSpec | None = None, *, as_test: bool = False
    ) -> Splits[ReasoningSpec, ReasoningPart]:
        """Read the trials; generate those of the training where there are none."""
        return data.open_splits(options, spec, as_test)

    def build_model(self, options: ReasoningOptions, spec: ReasoningSpec) -> nn.Module:
        """The network of the options; `ValueError` for options that do not fit together."""
        chosen = ReasonerOptions(
            width=options.width,
            heads=options.heads,
            layers=options.layers,
            attention=options.attention,
            attention_options=mechanism_options(options),
            ffn=options.ffn,
            dropout=options.dropout,
            tree=options.mask == "tree",
            latents=options.latents,
        )
        if options.parameters is not None:
            width = width_for(options.model, chosen, options.parameters)
            chosen = replace(chosen, width=width)
        return build_reasoner(options.model, chosen)

    def loss(self, model: nn.Module, batch: Batch, options: ReasoningOptions) -> Tensor:
        """Cross-entropy of the answers."""
        return F.cross_entropy(model(batch["rules"], batch["scenes"]).float(), batch["answers"])

    def validate(
        self, model: nn.Module, batches: Iterable[Batch], options: ReasoningOptions
    ) -> dict[str, float]:
        """Log-loss and accuracy."""
        loss = right = count = 0.0
        for batch in batches:
            logits = model(batch["rules"], batch["scenes"]).double()
            answers = batch["answers"]
            loss += float(F.cross_entropy(logits, answers, reduction="sum"))
            right += float((logits.argmax(1) == answers).sum())
            count += len(answers)
        return {"loss": loss / count, "accuracy": right / count}

    def rungs(self, spec: ReasoningSpec) -> ReasoningRungs:
        """Constants, and their blend with the network."""
        return ReasoningRungs()

    def calibrate(
        self,
        model: nn.Module,
        splits: Splits[ReasoningSpec, ReasoningPart],
        options: ReasoningOptions,
        device: torch.device,
    ) -> Calibration:
        """The temperature of the validation part."""
        part = in_memory(splits.validation)
        logits = logits_of({"model": model}, part, device)["model"]
        return {"temperature": torch.tensor(fit_temperature(part.answers, logits))}

    def check_run(self, spec: ReasoningSpec, calibration: Calibration) -> None:
        """The temperature must be one number."""
        if "temperature" not in calibration or calibration["temperature"].numel() != 1:
            raise InputError("calibration.safetensors holds no temperature")

    def review(
        self,
        model: nn.Module,
        dataset: ReasoningPart,
        context: Context[ReasoningOptions, ReasoningSpec],
    ) -> Review:
        """Accuracy by level and operator, beside what needs no scene; where the network looks."""
        part = in_memory(dataset)
        logits = logits_of({"model": model}, part, context.device)["model"]
        logits = logits / float(context.calibration["temperature"])
        scores = score(part, logits)
        metrics: Metrics = dict(scores.metrics())
        tables = scores.tables()
        shown = _spread(part, LOOKED)
        looked = part.take(shown)
        network = network_of(model)
        attention = {} if network is None else attention_of(network, looked, context.device)
        looks = looks_of(looked, attention)
        metrics["looked"] = {name: look.to_json() for name, look in looks.items()}
        if looks:
            tables["Attention on the objects that were asked for"] = looks_table(looks)
        best = next(iter(looks), None)
        pictures = [
            figures.scenes_figure(
                looked,
                softmax(logits[shown], axis=1),
                attention[best] if best is not None else None,
                best,
            ),
            figures.levels_figure(scores),
        ]
        headline = scores.headline
        if facts := published_facts(part, context.options.seed):
            metrics["published"] = facts.to_json()
            tables["Beside trials of --rules official"] = facts.table()
            headline = f"{headline}. {facts.sentence}"
        return Review(metrics, headline, pictures, tables)

    def export_example(
        self, model: nn.Module, splits: Splits[ReasoningSpec, ReasoningPart]
    ) -> tuple[ExportInputs, FreeAxes]:
        """Two trials; how many trials, nodes and objects there are is free."""
        part = in_memory(splits.test)
        batch = part.__getitems__([0, len(part) - 1])
        trials, objects = torch.export.Dim("trials"), torch.export.Dim("objects", min=2)
        scenes = F.pad(batch["scenes"], (0, 0, 0, max(0, 2 - batch["scenes"].shape[1])))
        return (batch["rules"], scenes), ({0: trials}, {0: trials, 1: objects})

    def list_items(
        self, options: ReasoningPredictOptions, spec: ReasoningSpec
    ) -> Sequence[TrialItem]:
        """Parts of 4,096 trials."""
        return list_parts(options.input)

    def prediction_schema(self, options: ReasoningPredictOptions, spec: ReasoningSpec) -> Schema:
        """row, id, question, prediction, probability, by_rule, well_posed."""
        return SCHEMA

    def answer_lines(self, rows: pl.DataFrame, spec: ReasoningSpec) -> list[str]:
        """Questions with their answers."""
        return answer_lines(rows)

    def predict(
        self,
        model: nn.Module,
        items: Sequence[TrialItem],
        context: Context[ReasoningPredictOptions, ReasoningSpec],
    ) -> list[pl.DataFrame | ValueError]:
        """A table for each part."""
        return predict_parts(model, items, context)


def _spread(part: TrialPart, count: int) -> np.ndarray:
    """Rows spread evenly over a part, at most that many."""
    return np.unique(np.linspace(0, len(part) - 1, min(count, len(part))).round().astype(int))
