"""RGB-D salient object detection with GL-DMNet: train, evaluate, predict, cross-validate.

The six answers of the task; scenes are read and split in `cohort`, varied in `augment`, scored in
`scoring`, drawn in `figures`, predicted in `infer`; `folds` leaves one group of scenes out after
the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import nn

from ...data.scenes.generate import write_sample_scenes
from ..engine.pipeline import Context, Item, Pipeline, Review, Splits
from ..engine.spec import DictSpec
from .build import build, freeze, optimizer, warm_start
from .data import example, open_splits
from .losses import loss
from .options import SaliencyOptions
from .prediction import list_inputs, predict_items, schema
from .scoring import review, validate


class SaliencyPipeline(Pipeline[SaliencyOptions, DictSpec]):
    """RGB-D salient object detection."""

    monitor = "error"
    spec_class = DictSpec

    def write_sample(self, folder: Path) -> Path:
        """Generated scenes in folders RGB, depth and GT."""

        return write_sample_scenes(folder)

    def open_data(
        self, options: SaliencyOptions, spec: DictSpec | None = None, *, as_test: bool = False
    ) -> Splits[DictSpec]:
        """Read the list of scenes, split it by groups, check which way round depth is."""

        return open_splits(options, spec, as_test)

    def build_model(self, options: SaliencyOptions, spec: DictSpec) -> nn.Module:
        """GL-DMNet."""

        return build(options)

    def load_initial_weights(
        self, model: nn.Module, options: SaliencyOptions, spec: DictSpec
    ) -> None:
        """The weights of timm's backbones."""

        warm_start(model, options)

    def optimizer(self, model: nn.Module, options: SaliencyOptions) -> torch.optim.Optimizer:
        """Adam; pretrained parts at their own share of the learning rate."""

        return optimizer(model, options)

    def begin_epoch(
        self, model: nn.Module, optimizer: Any, options: SaliencyOptions, epoch: int
    ) -> None:
        """Hold the parts that this stage of the training holds."""

        freeze(model, optimizer, options, epoch)

    def loss(
        self, model: nn.Module, batch: dict[str, torch.Tensor], options: SaliencyOptions
    ) -> torch.Tensor:
        """Cross-entropy and IoU of the four maps."""

        return loss(model, batch, options)

    def validate(
        self, model: nn.Module, batches: Any, options: SaliencyOptions
    ) -> dict[str, float]:
        """MAE and one minus S-measure, at the size of the model."""

        return validate(model, batches)

    def review(
        self, model: nn.Module, dataset: Any, context: Context[SaliencyOptions, DictSpec]
    ) -> Review:
        """Every metric of the field by data set, beside depth alone and the middle of the
        picture.
        """

        return review(model, dataset, context.options, context.spec, context.device)

    def prediction_options(self, options: SaliencyOptions) -> dict[str, Any]:
        """Where depth lies, if its folder is named."""
        return {"depth": options.depth}

    def export_example(
        self, model: nn.Module, splits: Splits[DictSpec]
    ) -> tuple[tuple[Any, ...], Any]:
        """Normalised pictures and depths; their number is free."""

        return example(splits)

    def list_items(self, options: Any, spec: DictSpec) -> Sequence[Item]:
        """Pictures, with the depth of each."""

        return list_inputs(options)

    def prediction_schema(self, options: Any, spec: DictSpec) -> dict[str, Any]:
        """map, height, width, depth, salient, and the box of what is salient."""

        return schema()

    def predict(
        self, model: nn.Module, items: Sequence[Item], context: Context[Any, DictSpec]
    ) -> list[pl.DataFrame | ValueError]:
        """A map of 8 bits and a row for each picture."""

        return predict_items(model, items, context.options, context.spec, context.device)
