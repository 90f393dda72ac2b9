"""Rolling origins: forecast from several past moments with the same weights, and compare with what
came.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import torch
from torch import nn

from ....base.account import opened
from ....base.errors import InputError
from ....base.files import write_aside, write_json
from ...engine.accounts import publish
from ...engine.command_line.terminal import say
from ...engine.pipeline import Calibration, Review
from ...engine.runs.loaded import Loaded, load_run
from ...engine.runs.report import write_report
from ...engine.training.jobs import with_data
from .. import figures
from ..data import ForecastSpec, ForecastWindows, open_splits
from ..naive import naive_forecasts, naive_names
from ..options import BacktestOptions, ForecastOptions
from ..pipeline import ForecastPipeline
from ..scoring import batches, forward, intervals_of


def backtest(pipeline: ForecastPipeline, options: BacktestOptions) -> pl.DataFrame:
    """One row per moment: errors of the model and of the naive forecasts, coverage of each
    interval.

    Writes backtest.parquet, backtest.json and backtest.html into the run. Moments inside the
    training part of the run's own data are marked, because the model has seen what came.
    """
    loaded = load_run(pipeline, options.run, options.accelerator)
    with opened() as account:
        dataset, training_rows = _windows(pipeline, options, loaded)
    publish(account, loaded.run.path / "backtest-account.json")
    spec = loaded.spec
    step = options.step or spec.horizon
    windows = list(range(len(dataset) - 1, -1, -step))[: options.origins][::-1]
    if len(windows) < options.origins:
        say(f"backtest: the data has room for {len(windows)} of {options.origins} moments")
    rows = moment_rows(
        loaded.model, dataset, windows, training_rows, loaded.calibration, spec, loaded.device
    )
    table = pl.DataFrame(rows).with_columns(pl.col("origin").cast(pl.Datetime("us")))
    path = loaded.run.path
    write_aside(path / "backtest.parquet", table.write_parquet)
    means = table.select(pl.col(pl.Float64).mean()).row(0, named=True)
    write_json(path / "backtest.json", {"origins": len(rows), "step": step, **means})
    naive_means = {name: means[f"{_column(name)}_mae"] for name in naive_names(spec)}
    best_naive = min(naive_means, key=lambda name: naive_means[name])
    verdict = "better" if means["mae"] < naive_means[best_naive] else "WORSE"
    headline = (
        f"{len(rows)} moments{_known_moments(table)}: MAE {means['mae']:.3f} on average "
        f"(standardised), {verdict} than {best_naive} ({naive_means[best_naive]:.3f})"
    )
    figure = figures.backtest_figure(
        [str(row["origin"])[:16].replace("T", " ") for row in rows],
        np.array([row["mae"] for row in rows]),
        np.array([row[f"{_column(best_naive)}_mae"] for row in rows]),
        best_naive,
    )
    review = Review({}, headline, [figure], {"Moments": table})
    write_report(loaded.run, pipeline, review, name="backtest")
    say(headline)
    say(f"report {path / 'backtest.html'}")
    return table


def _column(naive: str) -> str:
    """How the columns of a naive forecast begin."""
    return naive.replace(" ", "_")


def _known_moments(table: pl.DataFrame) -> str:
    """How many moments the model was trained on, and its error at the others, in words."""
    count = int(table["in_training_part"].sum())
    if not count:
        return ""
    rest = table.filter(~pl.col("in_training_part"))
    error = f"; MAE {rest['mae'].mean():.3f} at the others" if rest.height else ""
    return f" ({count} of them in the training part{error})"


def _windows(
    pipeline: ForecastPipeline,
    options: BacktestOptions,
    loaded: Loaded[ForecastOptions, ForecastSpec],
) -> tuple[ForecastWindows, int]:
    """All windows of the one series, and how many of its rows the model has seen."""
    spec = loaded.spec
    if options.data is None:
        data_options = with_data(pipeline, loaded.options, loaded.run)
        training_rows = len(open_splits(data_options, spec, as_test=False).train.times[0])
    else:
        data_options, training_rows = replace(loaded.options, data=options.data), 0
    dataset = open_splits(data_options, spec, as_test=True).test
    if len(dataset.scalers) > 1:
        raise InputError(
            "backtest: goes through one table at a time; give a wide file, or --series together in "
            "training"
        )
    return dataset, training_rows


def moment_rows(
    model: nn.Module,
    dataset: ForecastWindows,
    windows: list[int],
    training_rows: int,
    calibration: Calibration,
    spec: ForecastSpec,
    device: torch.device,
) -> list[dict[str, object]]:
    """A row for each window. training_rows: of the series, which the model has seen."""
    intervals, rows = intervals_of(calibration, spec), []
    with torch.no_grad():
        for indices, batch in batches(dataset, windows, device, "backtest"):
            truth, forecast = batch["future"], forward(model, batch)
            error = (forecast - truth).cpu()
            naive_errors = {
                _column(name): (values - truth).cpu()
                for name, values in naive_forecasts(batch["past"], spec).items()
            }
            for row, index in enumerate(indices):
                start = index + spec.lookback
                coverage = {
                    f"coverage_{level * 100:g}": (
                        float((error[row].abs() <= widths).double().mean())
                        if bool(widths.isfinite().all())
                        else None
                    )
                    for level, widths in zip(intervals.levels, intervals.widths, strict=True)
                }
                rows.append(
                    {
                        "origin": dataset.times[0][start].astype("datetime64[us]").item(),
                        "in_training_part": start < training_rows,
                        "mse": float(error[row].square().mean()),
                        "mae": float(error[row].abs().mean()),
                        **{
                            f"{name}_{score}": float(values.mean())
                            for name, wrong in naive_errors.items()
                            for score, values in (
                                ("mse", wrong[row].square()),
                                ("mae", wrong[row].abs()),
                            )
                        },
                        **coverage,
                    }
                )
    return rows
