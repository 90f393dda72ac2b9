"""Forecasts past the end of series, in original units, with intervals: what `predict` writes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from ...base.errors import InputError
from ...data.series.clock import future_times
from ...data.series.files import SeriesItem, read_items
from ...data.series.series import Series
from ...data.series.windows import Scaler, constant_channels, time_marks
from ..engine.pipeline import Context
from .data import ForecastSpec, reading_of, refuse_huge
from .options import ForecastPredictOptions
from .scoring import forward, stretch_of

OWN_COLUMNS = ("file", "item", "status", "error", "part", "channel", "step", "time", "forecast")


def bound_names(levels: Sequence[float]) -> list[tuple[str, str]]:
    """Names of the lower and upper column of each level: 0.95 gives lower_95, upper_95."""
    return [(f"lower_{level * 100:g}", f"upper_{level * 100:g}") for level in levels]


def read_series(
    items: Sequence[SeriesItem], options: ForecastPredictOptions, spec: ForecastSpec
) -> list[Series | InputError]:
    """Read a group of series; a broken one is an error of its own."""
    decimal = "auto" if options.decimal == "run" else options.decimal
    reading, dates = spec.reading, reading_of(spec, decimal, options.missing)
    return read_items(
        items,
        date=reading["date"],
        id_column=reading["id_column"],
        usual_ids=dates.usual_ids,
        order=dates.order if options.date_order == "run" else options.date_order,
        local=dates.local,
        month_day=dates.month_day,
        form=dates.form,
        targets=spec.channels,
        known=spec.known,
        frequency=spec.frequency,
        series=reading["series"],
        fill=reading["fill"] if options.fill == "run" else options.fill,
        minimum=spec.lookback,
        # A series that is scaled by its own history needs all of it.
        last=None if spec.scaler is None else spec.lookback,
    )


class PreparedSeries:
    """A series ready for the model: its last look-back rows, scaled, and the times to forecast.

    constant: which channels (C,) of a series that is scaled by its own rows hold one value only.
    Their forecast is that value. Raises `InputError` for a series that is too short or cannot be
    scaled.
    """

    def __init__(self, series: Series, spec: ForecastSpec) -> None:
        rows, where = len(series.values), f"series {series.name!r}"
        if rows < spec.lookback:
            raise InputError(f"{where}: {rows} rows, but the model looks back {spec.lookback}")
        ahead = len(series.known) - rows
        if spec.known and ahead < spec.horizon:
            raise InputError(
                f"{where}: known columns {', '.join(spec.known)} go on for {ahead} rows past the "
                f"end of the targets, but the horizon is {spec.horizon}"
            )
        refuse_huge(where, series, spec.channels, spec.known)
        fitted = spec.scaler
        self.scaler = Scaler.from_dict(fitted) if fitted else Scaler.fit(series.values)
        past = self.scaler.scale(series.values[-spec.lookback :]).astype(np.float32)
        if not np.isfinite(past).all():
            raise InputError(f"{where}: values too far from those of the training to be scaled")
        self.inputs = {"past": past}
        if spec.marks:
            self.inputs["past_marks"] = time_marks(series.times[-spec.lookback :])
        if spec.known:
            known = series.known[:rows]
            scaler = Scaler.from_dict(spec.known_scaler or {}) if fitted else Scaler.fit(known)
            around = series.known[rows - spec.lookback : rows + spec.horizon]
            self.inputs["known"] = scaler.scale(around).astype(np.float32)
        self.name, self.parts = series.name, series.parts
        constant = np.zeros(len(spec.channels), dtype=bool)
        self.constant = constant if fitted else constant_channels(series.values)
        self.times = future_times(
            series.times, spec.frequency, spec.horizon, month_day=series.month_day
        )

    def table(self, forecast: np.ndarray, radius: np.ndarray, spec: ForecastSpec) -> pl.DataFrame:
        """Rows of the output. forecast (H, C) and radius (levels, H, C), both scaled."""
        values = np.where(self.constant, self.scaler.mean, self.scaler.restore(forecast))
        reach = np.where(self.constant, 0.0, radius * self.scaler.std)
        rows = forecast_rows(spec, self.times, values, reach)
        return rows.select(*id_cells(spec, self.parts), pl.all())


def id_names(spec: ForecastSpec) -> list[str]:
    """Columns of the output for the ids of a table that has several columns of them."""
    ids = spec.reading.get("id_columns", [])
    if len(ids) < 2 or spec.reading["series"] == "together":
        return []
    return [f"{name}_id" if name in OWN_COLUMNS else name for name in ids]


def id_cells(spec: ForecastSpec, parts: Sequence[str]) -> list[pl.Expr]:
    """What the columns of ids hold for a series; null where its file has no such columns."""
    cells = [*parts, *[None] * len(id_names(spec))]
    return [
        pl.lit(cell, dtype=pl.String).alias(name)
        for name, cell in zip(id_names(spec), cells, strict=False)
    ]


def forecast_rows(
    spec: ForecastSpec, times: np.ndarray, values: np.ndarray, reach: np.ndarray
) -> pl.DataFrame:
    """A row for each channel and step. times (H,), values (H, C) and half-widths (levels, H, C), in
    original units; bounds without a finite half-width are null.
    """
    horizon, channels = values.shape
    columns: dict[str, np.ndarray | list[str] | pl.Series] = {
        "channel": np.repeat(np.array(spec.channels, dtype=object), horizon).tolist(),
        "step": np.tile(np.arange(1, horizon + 1, dtype=np.int32), channels),
        "time": np.tile(times.astype("datetime64[us]"), channels),
        "forecast": values.T.reshape(-1),
    }
    for (lower, upper), half_width in zip(bound_names(spec.levels), reach, strict=True):
        for name, bound in ((lower, values - half_width), (upper, values + half_width)):
            cells = np.where(np.isfinite(half_width), bound, np.nan).T.reshape(-1)
            columns[name] = pl.Series(cells, nan_to_null=True)
    return pl.DataFrame(columns)


def forecast_batch(
    model: nn.Module,
    prepared: Sequence[PreparedSeries],
    context: Context[ForecastPredictOptions, ForecastSpec],
) -> list[pl.DataFrame]:
    """The table of each series of a batch."""
    batch: dict[str, Tensor] = {
        name: torch.from_numpy(np.stack([series.inputs[name] for series in prepared])).to(
            context.device
        )
        for name in prepared[0].inputs
    }
    with torch.no_grad():
        forecasts = forward(model, batch).double().cpu().numpy()
    radius = context.calibration["radius"].double().numpy()
    stretch = stretch_of(context.calibration, context.spec)
    return [
        series.table(forecast, radius * stretch.get(series.name, 1.0), context.spec)
        for series, forecast in zip(prepared, forecasts, strict=True)
    ]


LINES = 12  # of the forecast of one item in the terminal


def forecast_lines(rows: pl.DataFrame, spec: ForecastSpec) -> list[str]:
    """The first steps of each of the first channels, one a line, with the widest interval that the
    rows have.
    """
    bounds = [pair for pair in bound_names(sorted(spec.levels)) if rows[pair[0]].null_count() == 0]
    channels = rows["channel"].unique(maintain_order=True).to_list()
    shown_channels = channels[: max(1, LINES // 2)]
    steps = max(1, LINES // len(shown_channels))
    lines = []
    for channel in shown_channels:
        forecast = rows.filter(pl.col("channel") == channel)
        for row in forecast.head(steps).iter_rows(named=True):
            moment = str(row["time"]).removesuffix(" 00:00:00")
            line = f"{moment}  {channel}  {row['forecast']:.6g}"
            if bounds:
                lower, upper = bounds[-1]
                level = lower.removeprefix("lower_")
                line += f"  ({level} % interval {row[lower]:.6g} to {row[upper]:.6g})"
            lines.append(line)
        if forecast.height > steps:
            lines.append(f"… {forecast.height - steps} further steps of {channel}")
    if len(channels) > len(shown_channels):
        lines.append(f"… {len(channels) - len(shown_channels)} further channels")
    return lines
