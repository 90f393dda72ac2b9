"""Forecasts past the end of series, in original units, with intervals: what `predict` writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch

from ...base.errors import InputError
from ...data.series.clock import future_times
from ...data.series.files import SeriesItem, list_items, read_items
from ...data.series.series import Series
from ...data.series.windows import Scaler, time_marks
from .data import refuse_huge

if TYPE_CHECKING:
    from torch import nn


def bounds(spec: dict[str, Any]) -> list[tuple[str, str]]:
    """Names of the lower and upper column of each level: 0.95 gives lower_95, upper_95."""
    return [(f"lower_{level * 100:g}", f"upper_{level * 100:g}") for level in spec["levels"]]


def schema(spec: dict[str, Any]) -> dict[str, Any]:
    """Columns of a forecast."""
    sides = {name: pl.Float64 for pair in bounds(spec) for name in pair}
    return {
        "channel": pl.String,
        "step": pl.Int32,
        "time": pl.Datetime("us"),
        "forecast": pl.Float64,
        **sides,
    }


def list_series(options: Any, spec: dict[str, Any]) -> Sequence[SeriesItem]:
    """The series of `--input`: a wide file is one, a long file holds one per id; folders and
    patterns hold files.
    """
    reading = spec["reading"]
    return list_items(options.input, id_column=reading["id_column"], series=reading["series"])


def read_series(
    items: Sequence[SeriesItem], options: Any, spec: dict[str, Any]
) -> list[Series | InputError]:
    """Read a group of series; a broken one is an error of its own."""
    reading = spec["reading"]
    return read_items(
        items,
        date=reading["date"],
        id_column=reading["id_column"],
        targets=spec["channels"],
        known=spec["known"],
        frequency=spec["frequency"],
        series=reading["series"],
        fill=reading["fill"] if options.fill == "run" else options.fill,
        minimum=spec["lookback"],
        # A series that is scaled by its own history needs all of it.
        last=None if spec["scaler"] is None else spec["lookback"],
    )


class Ready:
    """A series prepared for the model: its last look-back rows, scaled."""

    def __init__(self, series: Series, spec: dict[str, Any], marks: bool) -> None:
        lookback, horizon = spec["lookback"], spec["horizon"]
        rows = len(series.values)
        if rows < lookback:
            raise InputError(
                f"series {series.name!r}: {rows} rows, but the model looks back {lookback}"
            )
        ahead = len(series.known) - rows
        if spec["known"] and ahead < horizon:
            raise InputError(
                f"series {series.name!r}: known columns {', '.join(spec['known'])} go on for {ahead} rows past the end "
                f"of the targets, but the horizon is {horizon}"
            )
        refuse_huge(f"series {series.name!r}", series, spec["channels"], spec["known"])
        own = spec["scaler"] is None
        self.scaler = Scaler.fit(series.values) if own else Scaler.from_dict(spec["scaler"])
        past = self.scaler.scale(series.values[-lookback:]).astype(np.float32)
        if not np.isfinite(past).all():
            raise InputError(
                f"series {series.name!r}: values too far from those of the training to be scaled"
            )
        self.given: dict[str, np.ndarray] = {"past": past}
        if marks:
            self.given["past_marks"] = time_marks(series.times[-lookback:])
        if spec["known"]:
            known_scaler = (
                Scaler.fit(series.known[:rows]) if own else Scaler.from_dict(spec["known_scaler"])
            )
            around = series.known[rows - lookback : rows + horizon]
            self.given["known"] = known_scaler.scale(around).astype(np.float32)
        self.times = future_times(series.times, spec["frequency"], horizon)

    def rows(
        self,
        forecast: np.ndarray,
        radius: np.ndarray,
        channels: Sequence[str],
        names: Sequence[Any],
    ) -> pl.DataFrame:
        """Rows of the answer. forecast (H, C) scaled, radius (levels, H, C) scaled."""
        horizon, width = forecast.shape
        values = self.scaler.restore(forecast)
        table: dict[str, Any] = {
            "channel": np.repeat(np.array(channels, dtype=object), horizon).tolist(),
            "step": np.tile(np.arange(1, horizon + 1, dtype=np.int32), width),
            "time": np.tile(self.times.astype("datetime64[us]"), width),
            "forecast": values.T.reshape(-1),
        }
        for (lower, upper), reach in zip(names, radius, strict=True):
            table[lower] = (values - reach * self.scaler.std).T.reshape(-1)
            table[upper] = (values + reach * self.scaler.std).T.reshape(-1)
        return pl.DataFrame(table)


def forecast_series(
    model: nn.Module,
    items: Sequence[SeriesItem],
    calibration: dict[str, torch.Tensor],
    options: Any,
    spec: dict[str, Any],
    device: torch.device,
) -> list[pl.DataFrame | ValueError]:
    """A table for each item, or why there is none."""
    answers: list[pl.DataFrame | ValueError] = []
    ready: dict[int, Ready] = {}
    for place, series in enumerate(read_series(items, options, spec)):
        if isinstance(series, Exception):
            answers.append(series)
            continue
        try:
            ready[place] = Ready(series, spec, spec["marks"])
            answers.append(
                InputError(f"series {series.name!r}: the model was not asked")
            )  # replaced below
        except InputError as error:
            answers.append(error)
    radius, names = calibration["radius"].double().numpy(), bounds(spec)
    places = list(ready)
    for start in range(0, len(places), options.batch_size):
        batch = places[start : start + options.batch_size]
        given = {
            name: torch.from_numpy(np.stack([ready[place].given[name] for place in batch])).to(
                device
            )
            for name in ready[batch[0]].given
        }
        with torch.no_grad():
            forecast = (
                model(given["past"], given.get("past_marks"), given.get("known"))
                .double()
                .cpu()
                .numpy()
            )
        for place, values in zip(batch, forecast, strict=True):
            answers[place] = ready[place].rows(values, radius, spec["channels"], names)
    return answers
