"""Recordings: the work behind the verbs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from ...base.errors import InputError
from ...data.speech.generate import write_sample_voices
from ...data.speech.labelled import names_stretches, table_of_labels
from ...data.speech.manifests import stretch_name
from ...models.layers.label_losses import ClassLoss
from ...models.speech.classifier import RecordingClassifier
from ..engine.mechanisms import mechanism_options
from ..engine.options import EvaluateOptions
from ..engine.pipeline import (
    Batch,
    Calibration,
    Context,
    ExportInputs,
    FreeAxes,
    Member,
    Pipeline,
    Review,
    Schema,
    Splits,
)
from ..engine.training.wrapped import plain_model
from ..metrics.classification import scores
from .data import RecordingSet, inputs_of, open_splits
from .features import opened, usable
from .figures import calibration_figure
from .options import RecordingsEvaluateOptions, RecordingsOptions, RecordingsPredictOptions
from .prediction import RecordingItem, list_items, predict_items, schema
from .rungs import RecordingRungs
from .scoring import fit_calibration, score_part
from .spec import RecordingsSpec


class RecordingsPipeline(
    Pipeline[
        RecordingsOptions, RecordingsSpec, RecordingsPredictOptions, RecordingSet, RecordingItem
    ]
):
    """Classes of recordings."""

    monitor = "loss"
    spec_class = RecordingsSpec

    def write_sample(self, folder: Path) -> Path:
        """Generated tones that rise, fall or stay, of speakers with their own pitch."""
        return write_sample_voices(folder)

    def open_data(
        self,
        options: RecordingsOptions,
        spec: RecordingsSpec | None = None,
        *,
        as_test: bool = False,
    ) -> Splits[RecordingsSpec, RecordingSet]:
        """List, read, split by speaker, measure the moments of the training part."""
        return open_splits(options, spec, as_test=as_test)

    def build_model(self, options: RecordingsOptions, spec: RecordingsSpec) -> RecordingClassifier:
        """The classifier of tokens, with the loss that it is trained by."""
        moments = opened(spec.moments)
        model = RecordingClassifier(
            moments.mean,
            usable(moments.deviation, moments.mean),
            options.width,
            len(spec.classes),
            head=options.head,
            attention=options.attention,
            options=mechanism_options(options) if options.head == "attention" else {},
            layers=options.layers,
            heads=options.heads,
            ffn=options.ffn,
            hidden=options.hidden,
            dropout=options.dropout,
            diverse=options.imbalance == "diverse",
        )
        model.objective = ClassLoss(options.imbalance, torch.tensor(spec.counts))
        return model

    def loss(self, model: nn.Module, batch: Batch, options: RecordingsOptions) -> Tensor:
        """Mean loss of the recordings; of diverse experts, the sum of theirs."""
        objective = plain_model(model).objective
        assert isinstance(objective, ClassLoss)
        return objective(model(*inputs_of(batch)), batch["labels"]).mean()

    def validate(
        self, model: nn.Module, batches: Iterable[Batch], options: RecordingsOptions
    ) -> dict[str, float]:
        """Log-loss (what early stopping goes by), accuracy, balanced accuracy."""
        logits, labels = [], []
        for batch in batches:
            logits.append(model(*inputs_of(batch)).double().cpu())
            labels.append(batch["labels"].cpu())
        probability = torch.cat(logits).softmax(1).numpy()
        scored = scores(torch.cat(labels).numpy(), probability)
        return {
            "loss": scored["log_loss"],
            "accuracy": scored["accuracy"],
            "balanced_accuracy": scored["balanced_accuracy"],
        }

    def rungs(self, spec: RecordingsSpec) -> RecordingRungs:
        """Shares of the classes, statistics with logistic regression, and the blend."""
        return RecordingRungs()

    def calibrate(
        self,
        model: nn.Module,
        splits: Splits[RecordingsSpec, RecordingSet],
        options: RecordingsOptions,
        device: torch.device,
    ) -> Calibration:
        """A temperature, of the validation part."""
        return fit_calibration(model, splits.validation, device)

    def check_run(self, spec: RecordingsSpec, calibration: Calibration) -> None:
        """The temperature must be a number above 0."""
        temperature = calibration.get("temperature")
        if temperature is None or temperature.ndim or not 0 < float(temperature) < np.inf:
            raise InputError("calibration.safetensors: holds no temperature; the file is damaged")

    def review(
        self,
        model: nn.Module,
        dataset: RecordingSet,
        context: Context[RecordingsOptions, RecordingsSpec],
    ) -> Review:
        """Scores with intervals by speaker, classes, speakers, confusion."""
        scored = score_part(
            model, dataset, context.calibration, context.options.seed, context.device
        )
        picture = calibration_figure(dataset.labels, scored.probability, dataset.classes)
        return Review(scored.values, scored.headline, [picture], scored.tables)

    def evaluation_options(
        self, options: EvaluateOptions, trained: RecordingsOptions
    ) -> RecordingsOptions:
        """As of every pipeline; a table of other data needs no pattern of the training's names."""
        assert isinstance(options, RecordingsEvaluateOptions)
        return super().evaluation_options(options, trained)

    def prediction_options(
        self, options: RecordingsOptions, spec: RecordingsSpec
    ) -> Mapping[str, object]:
        """Where the table of a folder lists stretches, those that it lists: they were read."""
        assert options.data is not None
        table = table_of_labels(options.data, options.label_from, options.pattern)
        named = {pair.split("=")[0] for pair in options.columns}
        if table is None or not (named & {"start", "end"} or names_stretches(table)):
            return super().prediction_options(options, spec)
        columns = {"input": str(table), "columns": options.columns}
        return {**super().prediction_options(options, spec), **columns}

    def export_example(
        self, model: nn.Module, splits: Splits[RecordingsSpec, RecordingSet]
    ) -> tuple[ExportInputs, FreeAxes]:
        """Two recordings; how many there are is free, and how many frames they have."""
        batch = splits.test.__getitems__([0, min(1, len(splits.test) - 1)])
        recordings = torch.export.Dim("recordings", min=2)
        axes: dict[int, object] = {0: recordings}
        if splits.spec.features != "whisper-layers":
            axes[1] = torch.export.Dim("frames", min=2)
        return inputs_of(batch), (axes, axes, {0: recordings})

    def list_items(
        self, options: RecordingsPredictOptions, spec: RecordingsSpec
    ) -> Sequence[RecordingItem]:
        """Recordings of a file, folder, pattern or table."""
        return list_items(options, spec)

    def member(self, item: RecordingItem) -> Member:
        """A recording by its file and stretch."""
        return Member(item["file"], stretch_name(item["start"], item["end"]))

    def answer_lines(self, rows: pl.DataFrame, spec: RecordingsSpec) -> list[str]:
        """The class of a recording with its probability, then those of the other classes."""
        lines = []
        for row in rows.iter_rows(named=True):
            shares = sorted(((row[f"p_{c}"], c) for c in spec.classes), reverse=True)[:4]
            listed = ", ".join(f"{name} {share:.1%}" for share, name in shares)
            remarks = f"; {row['remarks']}" if row["remarks"] else ""
            lines.append(f"{row['prediction']} ({listed}), {row['seconds']:.2f} s{remarks}")
        return lines

    def prediction_schema(self, options: RecordingsPredictOptions, spec: RecordingsSpec) -> Schema:
        """prediction, p_CLASS, seconds, speaker, remarks."""
        return schema(spec)

    def predict(
        self,
        model: nn.Module,
        items: Sequence[RecordingItem],
        context: Context[RecordingsPredictOptions, RecordingsSpec],
    ) -> list[pl.DataFrame | ValueError]:
        """A row for each recording."""
        return predict_items(model, items, context)
