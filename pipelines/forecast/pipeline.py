"""Forecasting with SOFTS on wide or long tables: baselines, intervals, forecasts past the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from ...base.errors import InputError
from ...data.series.files import SeriesItem, list_items
from ...data.series.generate import sample_series, write_wide
from ...data.series.series import Series
from ...data.series.windows import Scaler
from ...models.series.softs import SOFTS
from ..engine.inference.batches import predict_in_batches
from ..engine.pipeline import Batch, Calibration, Context, Pipeline, ReportFigure, Review, Splits
from ..metrics.conformal import ConformalIntervals
from . import figures
from .data import ForecastSpec, ForecastWindows, open_splits, read_data
from .options import ForecastOptions, ForecastPredictOptions
from .prediction import PreparedSeries, bound_names, forecast_batch, read_series
from .scoring import (
    Scores,
    absolute_residuals,
    forward,
    headline_of,
    interval_of_mean,
    intervals_of,
    metrics_of,
    tables_of,
    windows_to_draw,
)


class ForecastPipeline(Pipeline[ForecastOptions, ForecastSpec]):
    """Forecasting."""

    monitor = "mse"
    spec_class = ForecastSpec

    def write_sample(self, folder: Path) -> Path:
        """A generated table: hourly, 7 channels that follow each other with lags."""
        path = folder / "generated.csv"
        write_wide(sample_series("hourly"), path)
        return path

    def open_data(
        self, options: ForecastOptions, spec: ForecastSpec | None = None, *, as_test: bool = False
    ) -> Splits[ForecastSpec]:
        """Read, check, split, scale by the training rows, cut windows."""
        return open_splits(options, spec, as_test)

    def build_model(self, options: ForecastOptions, spec: ForecastSpec) -> nn.Module:
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
            known=len(spec.known),
        )

    def loss(self, model: nn.Module, batch: Batch, options: ForecastOptions) -> Tensor:
        """Mean squared error on the scaled values."""
        return mse_loss(forward(model, batch), batch["future"])

    def validate(
        self, model: nn.Module, batches: Iterable[Batch], options: ForecastOptions
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
        splits: Splits[ForecastSpec],
        options: ForecastOptions,
        device: torch.device,
    ) -> Calibration:
        """Half-widths of the intervals (levels, H, C) on the scaled values, from the validation
        windows.
        """
        residuals = absolute_residuals(model, splits.validation, device)
        intervals = ConformalIntervals.fit(residuals, sorted(options.levels))
        return {"radius": intervals.widths.float(), "windows": torch.tensor(len(residuals))}

    def check_run(self, spec: ForecastSpec, calibration: Calibration) -> None:
        """The scaler and the intervals must be of the run's channels, horizon and levels."""
        channels = len(spec.channels)
        if spec.scaler is not None and len(Scaler.from_dict(spec.scaler).mean) != channels:
            raise InputError(
                f"the scaler in spec.json is not of {channels} channels; the file is damaged"
            )
        shape = tuple(calibration["radius"].shape) if "radius" in calibration else None
        expected = (len(spec.levels), spec.horizon, channels)
        if shape != expected:
            raise InputError(
                f"calibration.safetensors holds intervals of shape {shape}, the run needs "
                f"{expected}"
            )

    def review(
        self,
        model: nn.Module,
        dataset: ForecastWindows,
        context: Context[ForecastOptions, ForecastSpec],
    ) -> Review:
        """Errors compared with naive baselines, coverage of the intervals, best, median and worst
        windows.
        """
        spec, intervals = context.spec, intervals_of(context.calibration, context.spec)
        scores = Scores(model, dataset, intervals, spec, context.device)
        errors, coverage, naive = scores.errors, scores.coverage, scores.best_naive
        windows = windows_to_draw(model, dataset, scores, intervals, context)
        pictures = [
            figures.windows_figure(windows, coverage["levels"][-1]),
            figures.steps_figure(
                {name: summary.mae_by_step.numpy() for name, summary in errors.items()},
                dict(zip(coverage["levels"], map(np.array, coverage["coverage_by_step"]))),
            ),
            figures.channels_figure(
                spec.channels,
                errors["model"].mae_by_channel.numpy(),
                errors[naive].mae_by_channel.numpy(),
                naive,
            ),
        ]
        # Neighbouring windows share their rows, as far as a window reaches.
        window = context.options.horizon + context.options.lookback
        mse_interval = interval_of_mean(scores.per_window, window)
        metrics = metrics_of(scores, spec, intervals, mse_interval)
        headline = headline_of(scores, spec, mse_interval)
        return Review(metrics, headline, pictures, tables_of(scores, spec))

    def export_example(
        self, model: nn.Module, splits: Splits[ForecastSpec]
    ) -> tuple[tuple[Tensor | None, ...], tuple[Mapping[int, object] | None, ...]]:
        """Two windows; the number of windows is free."""
        batch = splits.test.__getitems__([0, len(splits.test) - 1])
        arguments = (batch["past"], batch.get("past_marks"), batch.get("known"))
        rows = torch.export.Dim("batch")
        return arguments, tuple(None if value is None else {0: rows} for value in arguments)

    def list_items(
        self, options: ForecastPredictOptions, spec: ForecastSpec
    ) -> Sequence[SeriesItem]:
        """Series of a file, a folder or a pattern: a wide file is one, a long file holds one per
        id.
        """
        reading = spec.reading
        return list_items(options.input, id_column=reading["id_column"], series=reading["series"])

    def prediction_schema(
        self, options: ForecastPredictOptions, spec: ForecastSpec
    ) -> dict[str, pl.DataType]:
        """channel, step, time, forecast, and a lower and an upper bound for each level."""
        bounds = {name: pl.Float64() for pair in bound_names(spec.levels) for name in pair}
        return {
            "channel": pl.String(),
            "step": pl.Int32(),
            "time": pl.Datetime("us"),
            "forecast": pl.Float64(),
            **bounds,
        }

    def predict(
        self,
        model: nn.Module,
        items: Sequence[SeriesItem],
        context: Context[ForecastPredictOptions, ForecastSpec],
    ) -> list[pl.DataFrame | ValueError]:
        """Forecasts past the end of each series, in original units."""
        # A group of series is read at once, since many may be in one file.
        groups = read_series(items, context.options, context.spec)

        def prepare(series: Series | InputError) -> PreparedSeries:
            if isinstance(series, InputError):
                raise series
            return PreparedSeries(series, context.spec)

        return predict_in_batches(
            groups,
            prepare,
            lambda _, prepared: forecast_batch(model, prepared, context),
            context.options.batch_size,
        )

    def prediction_figures(
        self, rows: pl.DataFrame, options: ForecastOptions, spec: ForecastSpec
    ) -> Sequence[ReportFigure]:
        """The forecast past the end of the file, after its last rows."""
        predicted = rows.filter(pl.col("status") == "ok")
        if predicted.is_empty():
            return []
        first = predicted.filter(pl.col("item") == pl.lit(predicted["item"][0]))
        return [figures.future_figure(first, read_data(options, spec).series[0], options, spec)]
