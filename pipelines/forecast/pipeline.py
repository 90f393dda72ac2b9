"""Forecasting: SOFTS on wide or long tables, with baselines, intervals and forecasts past the end
of the file.

The six answers of the task; the windows are scored in `scoring`, drawn in `figures`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import nn
from torch.nn.functional import mse_loss

from ...base.errors import InputError
from ...data.series.generate import sample_series, write_wide
from ...data.series.windows import Scaler
from ...models.series.softs import SOFTS
from ..engine.pipeline import Context, Item, Pipeline, ReportFigure, Review, Splits
from ..engine.spec import DictSpec
from .data import open_splits
from .figures import future_picture
from .options import ForecastOptions
from .prediction import forecast_series, list_series, schema
from .scoring import calibrate, forward, review


class ForecastPipeline(Pipeline[ForecastOptions, DictSpec]):
    """Forecasting."""

    monitor = "mse"
    spec_class = DictSpec

    def write_sample(self, folder: Path) -> Path:
        """A generated table: hourly, 7 channels that follow each other with lags."""

        path = folder / "generated.csv"
        write_wide(sample_series("hourly"), path)
        return path

    def open_data(
        self, options: ForecastOptions, spec: DictSpec | None = None, *, as_test: bool = False
    ) -> Splits[DictSpec]:
        """Read, check, split, scale on the training rows, cut windows."""

        return open_splits(options, spec, as_test)

    def build_model(self, options: ForecastOptions, spec: DictSpec) -> nn.Module:
        """SOFTS, or its encoder with another mechanism."""

        return SOFTS(
            lookback=options.lookback,
            horizon=options.horizon,
            width=options.width,
            core=options.core,
            feedforward=options.feedforward,
            layers=options.layers,
            heads=options.heads,
            dropout=options.dropout,
            normalise=options.normalise,
            stochastic=options.stochastic,
            attention=options.attention,
            ffn=options.ffn,
            moe={
                "experts": options.experts,
                "active": options.active,
                "mixing": "none" if options.router == "token" else options.router,
                "temperature": options.router_temperature,
                "balance": options.balance,
            },
            known=len(spec["known"]),
        )

    def loss(
        self, model: nn.Module, batch: dict[str, torch.Tensor], options: ForecastOptions
    ) -> torch.Tensor:
        """Mean squared error on the scaled values."""

        return mse_loss(forward(model, batch), batch["future"])

    def validate(
        self, model: nn.Module, batches: Any, options: ForecastOptions
    ) -> dict[str, float]:
        """MSE and MAE over all validation windows."""
        squared = absolute = count = 0.0
        for batch in batches:
            error = (forward(model, batch) - batch["future"]).double()
            squared += float(error.square().sum())
            absolute += float(error.abs().sum())
            count += error.numel()
        return {"mse": squared / count, "mae": absolute / count}

    def calibrate(
        self,
        model: nn.Module,
        splits: Splits[DictSpec],
        options: ForecastOptions,
        device: torch.device,
    ) -> dict[str, torch.Tensor]:
        """Calibrate the intervals on the validation windows."""

        return calibrate(model, splits.validation, options, device)

    def check_run(self, spec: DictSpec, calibration: dict[str, torch.Tensor]) -> None:
        """The scaler and the intervals must be of the run's channels, horizon and levels."""

        channels = len(spec["channels"])
        if spec["scaler"] is not None and len(Scaler.from_dict(spec["scaler"]).mean) != channels:
            raise InputError(
                f"the scaler in spec.json is not of {channels} channels; the file is damaged"
            )
        found = tuple(calibration["radius"].shape) if "radius" in calibration else None
        if found != (needed := (len(spec["levels"]), spec["horizon"], channels)):
            raise InputError(
                f"calibration.safetensors holds intervals of shape {found}, the run needs {needed}"
            )

    def review(
        self, model: nn.Module, dataset: Any, context: Context[ForecastOptions, DictSpec]
    ) -> Review:
        """Errors beside naive baselines, coverage of the intervals, best, median and worst
        windows.
        """

        return review(
            model, dataset, context.calibration, context.options, context.spec, context.device
        )

    def export_example(
        self, model: nn.Module, splits: Splits[DictSpec]
    ) -> tuple[tuple[Any, ...], Any]:
        """Two windows; the number of windows is free."""

        batch = splits.test.__getitems__([0, len(splits.test) - 1])
        given = (batch["past"], batch.get("past_marks"), batch.get("known"))
        rows = torch.export.Dim("batch")
        return given, tuple(None if value is None else {0: rows} for value in given)

    def list_items(self, options: Any, spec: DictSpec) -> Sequence[Item]:
        """Series of a file, a folder or a pattern."""

        return list_series(options, spec)

    def prediction_schema(self, options: Any, spec: DictSpec) -> dict[str, Any]:
        """channel, step, time, forecast, and a lower and an upper bound for each level."""

        return schema(spec)

    def predict(
        self, model: nn.Module, items: Sequence[Item], context: Context[Any, DictSpec]
    ) -> list[pl.DataFrame | ValueError]:
        """Forecasts past the end of each series, in original units."""

        return forecast_series(
            model, items, context.calibration, context.options, context.spec, context.device
        )

    def prediction_figures(
        self, rows: pl.DataFrame, options: ForecastOptions, spec: DictSpec
    ) -> Sequence[ReportFigure]:
        """The forecast past the end of the file, after the last rows of it."""

        return future_picture(rows, options, spec)
