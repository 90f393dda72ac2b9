"""Re-identification and fine-grained recognition with DCAL: train, embed, search, explain.

The six answers of the task; pictures are read and split in `cohort`, scored in `scoring`, drawn in
`figures`, embedded in `infer`, searched in `gallery`, cut out of frames in `crops`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import nn

from ...data.persons.generate import write_sample_persons
from ..engine.pipeline import Context, Item, Pipeline, Review, Splits
from ..engine.spec import DictSpec
from .build import build, optimizer, warm_start
from .data import example, open_splits
from .losses import loss
from .options import ReidOptions
from .prediction import check_maps, list_inputs, predict_items, schema
from .scoring import fit_baseline, review, validate


class ReidPipeline(Pipeline[ReidOptions, DictSpec]):
    """Re-identification and fine-grained recognition."""

    monitor = "error"
    spec_class = DictSpec

    def write_sample(self, folder: Path) -> Path:
        """Generated figures in the layout of Market-1501."""

        return write_sample_persons(folder)

    def open_data(
        self, options: ReidOptions, spec: DictSpec | None = None, *, as_test: bool = False
    ) -> Splits[DictSpec]:
        """Read the list of pictures, and split it by identity or by picture."""

        return open_splits(options, spec, as_test)

    def build_model(self, options: ReidOptions, spec: DictSpec) -> nn.Module:
        """DCAL, or the conditional embedder."""

        return build(options, spec)

    def load_initial_weights(self, model: nn.Module, options: ReidOptions, spec: DictSpec) -> None:
        """The weights of timm's backbone."""

        warm_start(model, options)

    def optimizer(self, model: nn.Module, options: ReidOptions) -> torch.optim.Optimizer:
        """Weight decay for matrices only."""

        return optimizer(model, options)

    def loss(
        self, model: nn.Module, batch: dict[str, torch.Tensor], options: ReidOptions
    ) -> torch.Tensor:
        """Cross-entropy and triplets of every branch, weighed by what the model learns of their
        variances.
        """

        return loss(model, batch, options)

    def validate(self, model: nn.Module, batches: Any, options: ReidOptions) -> dict[str, float]:
        """One minus mAP (to search) or accuracy."""

        return validate(model, batches, options)

    def calibrate(
        self, model: nn.Module, splits: Splits[DictSpec], options: ReidOptions, device: torch.device
    ) -> dict[str, torch.Tensor]:
        """The baseline on colours, fitted on the training part."""

        return fit_baseline(splits, options.seed)

    def review(
        self, model: nn.Module, dataset: Any, context: Context[ReidOptions, DictSpec]
    ) -> Review:
        """mAP, CMC, mINP or accuracy beside colours alone; ranked lists; attention."""

        return review(
            model, dataset, context.calibration, context.options, context.spec, context.device
        )

    def prediction_options(self, options: ReidOptions) -> dict[str, Any]:
        """Where the pictures of a table lie."""
        return {"images": options.images}

    def export_example(
        self, model: nn.Module, splits: Splits[DictSpec]
    ) -> tuple[tuple[Any, ...], Any]:
        """Normalised pictures; their number is free."""

        return example(splits)

    def list_items(self, options: Any, spec: DictSpec) -> Sequence[Item]:
        """Pictures."""

        check_maps(options, spec)
        return list_inputs(options.input, options.images)

    def prediction_schema(self, options: Any, spec: DictSpec) -> dict[str, Any]:
        """vector (or vector_ATTRIBUTE), model; prediction and probability of a run that names
        classes.
        """

        return schema(options, spec)

    def predict(
        self, model: nn.Module, items: Sequence[Item], context: Context[Any, DictSpec]
    ) -> list[pl.DataFrame | ValueError]:
        """A row a picture."""

        return predict_items(model, items, context.options, context.spec, context.device)
