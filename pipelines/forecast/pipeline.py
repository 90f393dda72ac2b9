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
from ..engine.mechanisms import mechanism_options
from ..engine.pipeline import Batch, Calibration, Context, Pipeline, ReportFigure, Review, Splits
from ..metrics.conformal import ConformalIntervals
from . import figures
from .data import ForecastSpec, ForecastWindows, open_splits, read_data, reading_of
from .options import ForecastOptions, ForecastPredictOptions
from .past import past_forecasts
from .prediction import (
    PreparedSeries,
    bound_names,
    forecast_batch,
    forecast_lines,
    id_names,
    read_series,
)
from .rungs import ForecastRungs
from .scoring import (
    Certainty,
    Scores,
    absolute_residuals,
    block_starts,
    finite_levels,
    forward,
    headline_of,
    intervals_of,
    metrics_of,
    stretch_by_series,
    stretch_of,
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

    def training_parts(self, splits: Splits[ForecastSpec], members: Mapping[str, str]) -> pl.Series:
        """By the last rows of the parts."""
        return splits.test.parts_in_training()

    def build_model(self, options: ForecastOptions, spec: ForecastSpec) -> nn.Module:
        """SOFTS, or its encoder with another mechanism."""
        return SOFTS(
            lookback=spec.lookback,
            horizon=spec.horizon,
            width=options.width,
            core=options.core,
            feedforward=options.feedforward,
            layers=options.layers,
            heads=options.heads,
            dropout=options.dropout,
            normalise=options.normalise,
            stochastic=options.stochastic,
            attention=options.attention,
            attention_options=mechanism_options(options),
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

    def rungs(self, spec: ForecastSpec) -> ForecastRungs:
        """A naive and a simple forecast, and the blend."""
        return ForecastRungs()

    def calibrate(
        self,
        model: nn.Module,
        splits: Splits[ForecastSpec],
        options: ForecastOptions,
        device: torch.device,
    ) -> Calibration:
        """Half-widths of the intervals (levels, H, C) on the scaled values, from the validation
        windows. "stretch" (series,), if there: how much wider those of each series are.
        """
        residuals, series = absolute_residuals(model, splits.validation, device)
        stretch = stretch_by_series(residuals, series, len(splits.validation.names))
        intervals = ConformalIntervals.fit(
            residuals / stretch[series][:, None, None], sorted(options.levels)
        )
        fitted = {"radius": intervals.widths.float(), "windows": torch.tensor(len(residuals))}
        if bool((stretch != 1).any()):
            fitted["stretch"] = stretch
        return fitted

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
        stretched = len(calibration["stretch"]) if "stretch" in calibration else len(spec.names)
        if stretched != len(spec.names):
            raise InputError(
                f"calibration.safetensors holds intervals of {stretched} series, the run has "
                f"{len(spec.names)}"
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
        stretch = stretch_of(context.calibration, spec)
        scores = Scores(model, dataset, intervals, spec, context.device, stretch)
        errors, coverage, naive = scores.errors, scores.coverage, scores.best_naive
        windows = windows_to_draw(model, dataset, scores, intervals, context)
        finite = finite_levels(intervals)
        steps = dict(zip(coverage["levels"], map(np.array, coverage["coverage_by_step"])))
        pictures = [
            figures.windows_figure(windows, finite[-1] if finite else None),
            figures.steps_figure(
                {
                    "this run" if name == "model" else name: summary.mae_by_step.numpy()
                    for name, summary in errors.items()
                },
                {level: steps[level] for level in finite},
            ),
            figures.channels_figure(
                spec.channels,
                errors["model"].mae_by_channel.numpy(),
                errors[naive].mae_by_channel.numpy(),
                naive,
            ),
        ]
        # Neighbouring windows share their rows, as far as a window reaches.
        certainty = Certainty(scores, block_starts(dataset, spec.horizon + spec.lookback))
        records = past_forecasts(model, dataset, intervals, context)
        return Review(
            metrics_of(scores, spec, intervals, certainty),
            headline_of(scores, spec, intervals, certainty),
            pictures,
            tables_of(scores, spec, intervals),
            records={f"{dataset.part}_forecasts": records},
        )

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
        return list_items(
            options.input,
            id_column=reading["id_column"],
            usual_ids=reading_of(spec).usual_ids,
            series=reading["series"],
        )

    def prediction_schema(
        self, options: ForecastPredictOptions, spec: ForecastSpec
    ) -> dict[str, pl.DataType]:
        """channel, step, time, forecast, and a lower and an upper bound for each level."""
        bounds = {name: pl.Float64() for pair in bound_names(spec.levels) for name in pair}
        return {
            **{name: pl.String() for name in id_names(spec)},
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
        panel = read_data(options, spec)
        named = [series for series in panel.series if series.name == first["item"][0]]
        return [figures.future_figure(first, (named or panel.series)[0], spec)]

    def answer_lines(self, rows: pl.DataFrame, spec: ForecastSpec) -> list[str]:
        """The first steps of the forecast as a small table, with the widest interval."""
        return forecast_lines(rows, spec)
