"""Forecasts of rows that are known, with what came: the last windows of the test part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import nn

from ..engine.pipeline import Context
from ..metrics.conformal import ConformalIntervals
from .data import ForecastSpec, ForecastWindows
from .options import ForecastOptions
from .prediction import forecast_rows, id_cells
from .scoring import batches, forward, stretch_of

MOST_ROWS = 500_000  # of the table
MOST_WINDOWS = 10  # of a series


def past_forecasts(
    model: nn.Module,
    dataset: ForecastWindows,
    intervals: ConformalIntervals,
    context: Context[ForecastOptions, ForecastSpec],
) -> pl.DataFrame:
    """The forecasts of the last windows of each series, which share no rows, with the true values.

    Columns: item, part (train, validation or test), origin (the first moment of the forecast), the
    columns of a prediction, and truth; in original units. A table of very many series and steps
    holds the first ones only.
    """
    spec, stretch = context.spec, stretch_of(context.calibration, context.spec)
    indices = last_windows(dataset, spec)
    # A wide table is one item, which predictions call by the name of its file.
    file = Path(str(context.options.data)).name
    tables = []
    with torch.no_grad():
        for block, batch in batches(dataset, indices, context.device, "test forecasts"):
            forecasts = forward(model, batch).double().cpu().numpy()
            truths = batch["future"].double().cpu().numpy()
            for index, forecast, truth in zip(block, forecasts, truths, strict=True):
                series, start = dataset.locate(index)
                scaler, name = dataset.scalers[series], dataset.names[series]
                times = dataset.times[series][start + spec.lookback :][: spec.horizon]
                reach = intervals.widths.numpy() * stretch.get(name, 1.0) * scaler.std
                rows = forecast_rows(spec, times, scaler.restore(forecast), reach)
                tables.append(
                    rows.select(
                        pl.lit(name if spec.names else file).alias("item"),
                        pl.lit(dataset.part).alias("part"),
                        *id_cells(spec, dataset.ids[series]),
                        pl.lit(times[0].astype("datetime64[us]")).alias("origin"),
                        pl.all(),
                        pl.Series("truth", scaler.restore(truth).T.reshape(-1)),
                    )
                )
    return pl.concat(tables)


def last_windows(dataset: ForecastWindows, spec: ForecastSpec) -> list[int]:
    """Windows from the end of each series, a horizon apart, in the order of the data."""
    rows_each = spec.horizon * len(spec.channels)
    series_of = dataset.series_of(torch.arange(len(dataset))).numpy()
    starts = np.searchsorted(series_of, np.unique(series_of))
    ends = np.append(starts[1:], len(series_of))
    most = max(1, min(MOST_WINDOWS, MOST_ROWS // (rows_each * len(starts))))
    chosen = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if len(chosen) * rows_each >= MOST_ROWS:
            break
        chosen += list(range(end - 1, start - 1, -spec.horizon))[:most][::-1]
    return chosen
