"""Texts: labels with thresholds that hold and words that explain them, beside tf-idf on the same
texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from ...data.texts.generate import write_sample_texts
from ...models.text.losses import TextLoss
from ..engine.pipeline import (
    Batch,
    Calibration,
    Context,
    ExportInputs,
    FreeAxes,
    Pipeline,
    Review,
    Schema,
    Splits,
)
from ..engine.training.wrapped import call_method, plain_model
from ..metrics.labels.decisions import label_decisions, label_reliability
from . import figures, network
from .coding import inputs_of
from .data import TextPart, open_new, open_of_run
from .explanation.examples import example_figures
from .explanation.sums import told_of
from .linear import losses
from .options import TextOptions, TextPredictOptions
from .parts import parts_of_texts
from .prediction import TextItem, answer_lines, list_parts, predict_parts, schema
from .probabilities import calibrated, check_calibration, fit_calibration, tell
from .rungs import TextRungs, logits_of
from .scoring import score_classes, score_labels, score_numbers
from .spec import TextSpec


class TextPipeline(Pipeline[TextOptions, TextSpec, TextPredictOptions, TextPart, TextItem]):
    """Labels, classes or a number for texts."""

    monitor = "loss"
    spec_class = TextSpec

    def write_sample(self, folder: Path) -> Path:
        """Generated messages to a help desk, with labels of two levels."""
        return write_sample_texts(folder)

    def open_data(
        self, options: TextOptions, spec: TextSpec | None = None, *, as_test: bool = False
    ) -> Splits[TextSpec, TextPart]:
        """Read, split by group, learn terms and tokens of the training part, code."""
        return open_new(options) if spec is None else open_of_run(options, spec, as_test)

    def build_model(self, options: TextOptions, spec: TextSpec) -> nn.Module:
        """The network of the options; `ValueError` for options that do not fit together."""
        return network.build(options, spec)

    def load_initial_weights(self, model: nn.Module, options: TextOptions, spec: TextSpec) -> None:
        """The encoder's weights, the linear model, the descriptions of the labels."""
        network.load_initial(model, options, spec)

    def loss(self, model: nn.Module, batch: Batch, options: TextOptions) -> Tensor:
        """Mean loss of the texts; a model on top of the linear one sees logits of it that the text
        had no part in.
        """
        inputs = inputs_of(batch)
        if "base" in batch:
            logits: Tensor = call_method(model, "corrected", batch["base"], *inputs)
        else:
            logits = model(*inputs)
        return objective_of(model)(logits, batch["truth"])

    def validate(
        self, model: nn.Module, batches: Iterable[Batch], options: TextOptions
    ) -> dict[str, float]:
        """The loss of the validation part, and the share of texts whose first label is right."""
        goal, rows = objective_of(model).goal, []
        for batch in batches:
            logits = model(*inputs_of(batch)).double().cpu().numpy()
            truth = batch["truth"].cpu().numpy()
            loss = losses(logits, truth, goal)
            first = np.take_along_axis(truth, logits.argmax(1)[:, None], 1)[:, 0]
            rows.append(np.stack([loss, first]))
        loss, first = np.concatenate(rows, 1).mean(1).tolist()
        return {"loss": loss} if goal == "number" else {"loss": loss, "P@1": first}

    def rungs(self, spec: TextSpec) -> TextRungs:
        """Shares, tf-idf with a linear model, and the blend."""
        return TextRungs()

    def calibrate(
        self,
        model: nn.Module,
        splits: Splits[TextSpec, TextPart],
        options: TextOptions,
        device: torch.device,
    ) -> Calibration:
        """Scale, thresholds and sets, of the validation part."""
        part = splits.validation
        logits = logits_of({"model": model}, part, device)["model"]
        return fit_calibration(logits, part.truth, part.groups, options, splits.spec)

    def check_run(self, spec: TextSpec, calibration: Calibration) -> None:
        """Thresholds and scales must fit the labels."""
        check_calibration(spec, calibration)

    def review(
        self, model: nn.Module, dataset: TextPart, context: Context[TextOptions, TextSpec]
    ) -> Review:
        """Ranks, decisions, probabilities and sets, by source and language."""
        spec = context.spec
        logits = logits_of({"model": model}, dataset, context.device)["model"]
        if spec.goal == "number":
            width = float(context.calibration["width"])
            scores = score_numbers(dataset, logits, width, spec)
            truth, predicted = (
                x[:, 0] * spec.deviation + spec.mean for x in (dataset.truth, logits)
            )
            told = told_of(logits, context.calibration, spec)
            pictures = [figures.number_figure(truth, predicted, spec.labels[0])]
        elif spec.goal == "class":
            told = tell(logits, context.calibration, spec)
            scores = score_classes(dataset, told, spec)
            labels = dataset.truth.argmax(1)
            pictures = []
            if len(spec.labels) <= 30:
                pictures = [figures.confusion_figure(labels, told.probability, spec.labels)]
        else:
            told, truth = tell(logits, context.calibration, spec), dataset.truth > 0
            scores = score_labels(dataset, calibrated(logits, context.calibration), told, spec)
            f1 = label_decisions(truth, told.labels).f1
            pictures = [
                figures.label_figure(spec.labels, f1, spec.counts),
                figures.reliability_figure(label_reliability(truth, told.probability)),
            ]
        intervals = {name: list(ends) for name, ends in scores.intervals.items()}
        metrics = {**scores.values, "intervals": intervals}
        pictures = [*example_figures(model, dataset, told, context), *pictures]
        return Review(metrics, scores.headline, pictures, scores.tables)

    def export_example(
        self, model: nn.Module, splits: Splits[TextSpec, TextPart]
    ) -> tuple[ExportInputs, FreeAxes]:
        """Four texts of one window; how many texts, tokens and terms there are is free."""
        part = splits.test
        batch = part.coded.inputs([row % len(part) for row in range(4)], part.padding)
        names = ["features", "amounts"]
        if splits.spec.encoder is not None:
            names += ["tokens", "mask"]
        for name in names:
            batch[name] = nn.functional.pad(batch[name], (0, max(0, 2 - batch[name].shape[1])))
        texts, terms = torch.export.Dim("texts", min=2), torch.export.Dim("terms", min=2)
        of_tokens: dict[int, object] = {0: texts}
        if splits.spec.encoder is not None:
            window = splits.spec.encoder["window"]
            of_tokens[1] = torch.export.Dim("tokens", min=2, max=window)
            for name in ("tokens", "mask"):
                batch[name] = batch[name][:, : window - 1]  # room for one more
        free = [of_tokens] * 2 + [{0: texts, 1: terms}] * 2 + [{0: texts}] * 2
        if splits.spec.encoder is not None and splits.spec.knowledge_column is not None:
            window = splits.spec.encoder["window"]
            known = torch.export.Dim("knowledge", min=2, max=window)
            for name in ("knowledge", "knowledge_mask"):
                room = max(0, 2 - batch[name].shape[1])
                batch[name] = nn.functional.pad(batch[name], (0, room))[:, : window - 1]
            free += [{0: texts, 1: known}] * 2
        return inputs_of(batch), free

    def list_items(self, options: TextPredictOptions, spec: TextSpec) -> Sequence[TextItem]:
        """Parts of 1,024 texts."""
        return list_parts(options, spec)

    def training_parts(
        self, splits: Splits[TextSpec, TextPart], members: Mapping[str, str]
    ) -> pl.Series:
        """By the texts themselves."""
        return parts_of_texts(splits.test.table.texts, splits.spec.assets_folder)

    def prediction_schema(self, options: TextPredictOptions, spec: TextSpec) -> Schema:
        """row, id, then labels, prediction or number, the most probable labels, the set."""
        return schema(options, spec)

    def answer_lines(self, rows: pl.DataFrame, spec: TextSpec) -> list[str]:
        """Labels with their probabilities."""
        return answer_lines(rows, spec)

    def predict(
        self,
        model: nn.Module,
        items: Sequence[TextItem],
        context: Context[TextPredictOptions, TextSpec],
    ) -> list[pl.DataFrame | ValueError]:
        """A table for each part."""
        return predict_parts(model, items, context)


def objective_of(model: nn.Module) -> TextLoss:
    """The loss that a model was built with."""
    objective = plain_model(model).objective
    assert isinstance(objective, TextLoss)
    return objective
