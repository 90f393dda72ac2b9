"""Chest X-rays with MEDUSA-style attention: train, evaluate, predict, and an audit for shortcuts.
Research software, not for clinical use.

The six answers of the task; pictures are read and split in `cohort`, varied in `augment`, scored in
`scoring`, explained in `explain`, predicted in `infer`; `audit` asks what could be read without the
lung, `lungs` trains the body on lung masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import nn

from ...base.errors import InputError
from ...data.xrays.generate import write_sample_xrays
from ..engine.pipeline import Context, Item, Pipeline, Review, Splits
from ..engine.spec import DictSpec
from .build import build, optimizer, warm_start
from .data import example, open_splits
from .options import MedicalOptions
from .prediction import list_inputs, predict_items, schema
from .scoring import finish, loss, review, validate


class MedicalPipeline(Pipeline[MedicalOptions, DictSpec]):
    """Chest X-rays."""

    monitor = "loss"
    spec_class = DictSpec

    def write_sample(self, folder: Path) -> Path:
        """Generated X-rays with a list, lung masks and boxes."""

        return write_sample_xrays(folder)

    def open_data(
        self, options: MedicalOptions, spec: DictSpec | None = None, *, as_test: bool = False
    ) -> Splits[DictSpec]:
        """Read the list of pictures, split it by patient."""

        return open_splits(options, spec, as_test)

    def build_model(self, options: MedicalOptions, spec: DictSpec) -> nn.Module:
        """The classifier with its attention."""

        return build(options, spec)

    def load_initial_weights(
        self, model: nn.Module, options: MedicalOptions, spec: DictSpec
    ) -> None:
        """Weights of the backbone and of the body."""

        warm_start(model, options, spec)

    def optimizer(self, model: nn.Module, options: MedicalOptions) -> torch.optim.Optimizer:
        """AdamW; a body that was trained before at its own share of the learning rate."""

        return optimizer(model, options)

    def loss(
        self, model: nn.Module, batch: dict[str, torch.Tensor], options: MedicalOptions
    ) -> torch.Tensor:
        """Cross-entropy."""

        return loss(model, batch, options)

    def validate(self, model: nn.Module, batches: Any, options: MedicalOptions) -> dict[str, float]:
        """Log-loss, AUC, balanced accuracy."""

        return validate(model, batches)

    def calibrate(
        self,
        model: nn.Module,
        splits: Splits[DictSpec],
        options: MedicalOptions,
        device: torch.device,
    ) -> dict[str, torch.Tensor]:
        """Temperature and operating point."""

        return finish(model, splits, options, device)

    def check_run(self, spec: DictSpec, calibration: dict[str, torch.Tensor]) -> None:
        """Temperature and operating point are one number each."""
        for name in ("temperature", "threshold"):
            if name not in calibration or calibration[name].numel() != 1:
                raise InputError(f"calibration.safetensors holds no {name}")

    def review(
        self, model: nn.Module, dataset: Any, context: Context[MedicalOptions, DictSpec]
    ) -> Review:
        """Scores by patient, calibration, attention, and the audit for shortcuts."""

        return review(
            model, dataset, context.calibration, context.options, context.spec, context.device
        )

    def prediction_options(self, options: MedicalOptions) -> dict[str, Any]:
        """The report has pictures already."""
        return {"explain": False}

    def export_example(
        self, model: nn.Module, splits: Splits[DictSpec]
    ) -> tuple[tuple[Any, ...], Any]:
        """Normalised pictures of both sizes; their number is free."""

        return example(splits)

    def list_items(self, options: Any, spec: DictSpec) -> Sequence[Item]:
        """Pictures and DICOM files."""

        return list_inputs(options)

    def prediction_schema(self, options: Any, spec: DictSpec) -> dict[str, Any]:
        """prediction, p_CLASS, positive, view."""

        return schema(options, spec)

    def predict(
        self, model: nn.Module, items: Sequence[Item], context: Context[Any, DictSpec]
    ) -> list[pl.DataFrame | ValueError]:
        """A row for each picture, and a picture of what the model looked at."""

        return predict_items(
            model, items, context.calibration, context.options, context.spec, context.device
        )
