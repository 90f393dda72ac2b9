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
from ...data.series.windows import Scaler, time_marks
from ..engine.pipeline import Context
from .data import ForecastSpec, refuse_huge
from .options import ForecastPredictOptions
from .scoring import forward


def bound_names(levels: Sequence[float]) -> list[tuple[str, str]]:
    """Names of the lower and upper column of each level: 0.95 gives lower_95, upper_95."""
    return [(f"lower_{level * 100:g}", f"upper_{level * 100:g}") for level in levels]


def read_series(
    items: Sequence[SeriesItem], options: ForecastPredictOptions, spec: ForecastSpec
) -> list[Series | InputError]:
    """Read a group of series; a broken one is an error of its own."""
    reading = spec.reading
    return read_items(
        items,
        date=reading["date"],
        id_column=reading["id_column"],
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

    Raises `InputError` for a series that is too short or cannot be scaled.
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
        self.times = future_times(series.times, spec.frequency, spec.horizon)

    def table(self, forecast: np.ndarray, radius: np.ndarray, spec: ForecastSpec) -> pl.DataFrame:
        """Rows of the output. forecast (H, C) and radius (levels, H, C), both scaled."""
        horizon, channels = forecast.shape
        values = self.scaler.restore(forecast)
        columns: dict[str, np.ndarray | list[str]] = {
            "channel": np.repeat(np.array(spec.channels, dtype=object), horizon).tolist(),
            "step": np.tile(np.arange(1, horizon + 1, dtype=np.int32), channels),
            "time": np.tile(self.times.astype("datetime64[us]"), channels),
            "forecast": values.T.reshape(-1),
        }
        for (lower, upper), reach in zip(bound_names(spec.levels), radius, strict=True):
            columns[lower] = (values - reach * self.scaler.std).T.reshape(-1)
            columns[upper] = (values + reach * self.scaler.std).T.reshape(-1)
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
    return [
        series.table(forecast, radius, context.spec)
        for series, forecast in zip(prepared, forecasts, strict=True)
    ]
