"""Whole-slide images: from slides, feature files or bags to a classified and explained cohort, with
ACMIL.

The six answers of the task; slides become features in `extract`, cohorts in `cohort`, scores in
`scoring`, heatmaps in `explain`, batch inference in `infer`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import nn

from ...base.errors import InputError
from ...data.slides.generate import write_sample_slides
from ...models.bags.acmil import ACMIL, MaxPool, MeanPool
from ...models.layers.vit import TransformerEncoder
from ..engine.pipeline import Context, Item, Pipeline, Review, Splits
from ..engine.spec import DictSpec
from .data import feature_folder, open_splits
from .options import WsiOptions
from .prediction import list_inputs, predict_items, schema
from .scoring import fit_baseline, loss, review, validate


class WsiPipeline(Pipeline[WsiOptions, DictSpec]):
    """Whole-slide images."""

    monitor = "loss"
    spec_class = DictSpec

    def write_sample(self, folder: Path) -> Path:
        """Generated slides of two classes, two a patient, and their list."""

        return write_sample_slides(folder)

    def open_data(
        self, options: WsiOptions, spec: DictSpec | None = None, *, as_test: bool = False
    ) -> Splits[DictSpec]:
        """Extract what is missing, split by patient, measure the features."""

        return open_splits(options, spec, as_test)

    def build_model(self, options: WsiOptions, spec: DictSpec) -> nn.Module:
        """ACMIL, ABMIL, mean or max pooling."""

        shared: dict[str, Any] = {"inner": options.inner, "dropout": options.dropout}
        if options.attention != "none":
            shared["mixing"] = TransformerEncoder(
                options.inner,
                depth=options.layers,
                heads=options.heads,
                attention=options.attention,
                ffn=options.ffn,
                hidden=2 * options.inner,
                dropout=options.dropout,
                moe={"experts": 8, "active": 2} if options.ffn == "moe" else None,
            )
        for name in ("mean", "deviation"):
            shared[name] = None if spec[name] is None else torch.tensor(spec[name])
        sizes = spec["width"], len(spec["classes"])
        if options.model in ("mean", "max"):
            return (MeanPool if options.model == "mean" else MaxPool)(*sizes, **shared)
        if options.model == "abmil":
            return ACMIL(*sizes, branches=1, masked=0, **shared)
        return ACMIL(
            *sizes,
            branches=options.branches,
            masked=options.masked,
            mask_share=options.mask_share,
            attention="multihead" if options.model == "acmil-mha" else "gated",
            **shared,
        )

    def loss(
        self, model: nn.Module, batch: dict[str, torch.Tensor], options: WsiOptions
    ) -> torch.Tensor:
        """Of the slide, of the branches, and of their likeness."""

        return loss(model, batch, options)

    def validate(self, model: nn.Module, batches: Any, options: WsiOptions) -> dict[str, float]:
        """Log-loss, AUC, balanced accuracy."""

        return validate(model, batches)

    def calibrate(
        self, model: nn.Module, splits: Splits[DictSpec], options: WsiOptions, device: torch.device
    ) -> dict[str, torch.Tensor]:
        """The baseline, fitted on the training part."""

        return fit_baseline(splits.train, options.seed)

    def check_run(self, spec: DictSpec, calibration: dict[str, torch.Tensor]) -> None:
        """The baseline must be of the run's classes and features."""
        found = (
            tuple(calibration["baseline_weight"].shape)
            if "baseline_weight" in calibration
            else None
        )
        if found != (needed := (len(spec["classes"]), spec["width"])):
            raise InputError(
                f"calibration.safetensors holds a baseline of shape {found}, the run needs {needed}"
            )

    def review(
        self, model: nn.Module, dataset: Any, context: Context[WsiOptions, DictSpec]
    ) -> Review:
        """Scores by patient beside the baseline, calibration, attention."""

        return review(
            model, dataset, context.calibration, context.options, context.spec, context.device
        )

    def prediction_options(self, options: WsiOptions) -> dict[str, Any]:
        """The features that the training has extracted; the report has heatmaps already."""

        return {"features": feature_folder(options), "slides": options.slides, "explain": False}

    def export_example(
        self, model: nn.Module, splits: Splits[DictSpec]
    ) -> tuple[tuple[Any, ...], Any]:
        """One bag; the number of its instances is free."""

        return (splits.test[0][0],), ({0: torch.export.Dim("instances", min=2)},)

    def list_items(self, options: Any, spec: DictSpec) -> Sequence[Item]:
        """Slides, feature files, or bags of a table."""

        return list_inputs(options, spec)

    def prediction_schema(self, options: Any, spec: DictSpec) -> dict[str, Any]:
        """prediction, p_CLASS, tiles, top tiles."""

        return schema(spec)

    def predict(
        self, model: nn.Module, items: Sequence[Item], context: Context[Any, DictSpec]
    ) -> list[pl.DataFrame | ValueError]:
        """A row for each item; heatmaps beside the output."""

        return predict_items(model, items, context.options, context.spec, context.device)
