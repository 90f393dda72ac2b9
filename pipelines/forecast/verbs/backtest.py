"""Rolling origins: forecast from several past moments with the same weights, and compare with what
came.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import torch

from ....base.errors import InputError
from ....base.files import write_aside, write_json
from ...engine.command_line.terminal import say
from ...engine.pipeline import AnyPipeline, Review
from ...engine.runs.loaded import load_run
from ...engine.runs.report import write_report
from ...engine.training.jobs import with_data
from ...metrics.forecasting import repeat_last
from .. import figures
from ..data import open_splits
from ..options import BacktestOptions
from ..scoring import batches, forward, intervals_of


def backtest(pipeline: AnyPipeline, options: BacktestOptions) -> pl.DataFrame:
    """One row per moment: errors of the model and of repeating the last value, coverage of each
    interval.

    Writes backtest.parquet, backtest.json and backtest.html into the run. Moments inside the
    training part of the run's own data are marked, for the model has seen what came."""
    loaded = load_run(pipeline, options.run, options.accelerator)
    own = options.data is None
    wanted = (
        with_data(pipeline, loaded.options, loaded.run)
        if own
        else replace(loaded.options, data=options.data)
    )
    spec = loaded.spec
    dataset = open_splits(wanted, spec, as_test=True).test
    seen = len(open_splits(wanted, spec, as_test=False).train.times[0]) if own else 0
    if len(dataset.scalers) > 1:
        raise InputError(
            "backtest: goes through one table at a time; give a wide file, or --series together in training"
        )
    step = options.step or spec["horizon"]
    chosen = list(range(len(dataset) - 1, -1, -step))[: options.origins][::-1]
    if len(chosen) < options.origins:
        say(f"backtest: the data has room for {len(chosen)} of {options.origins} moments")
    intervals = intervals_of(loaded.calibration, spec)
    rows = []
    with torch.no_grad():
        for indices, batch in batches(dataset, chosen, loaded.device, "backtest"):
            truth, forecast = batch["future"], forward(loaded.model, batch)
            naive = repeat_last(batch["past"], spec["horizon"])
            error, naive_error = (forecast - truth).cpu(), (naive - truth).cpu()
            for row, index in enumerate(indices):
                start = index + spec["lookback"]
                inside = {
                    f"coverage_{level * 100:g}": float((error[row].abs() <= widths).double().mean())
                    for level, widths in zip(intervals.levels, intervals.widths, strict=True)
                }
                rows.append(
                    {
                        "origin": dataset.times[0][start].astype("datetime64[us]").item(),
                        "in_training_part": start < seen,
                        "mse": float(error[row].square().mean()),
                        "mae": float(error[row].abs().mean()),
                        "repeat_last_mse": float(naive_error[row].square().mean()),
                        "repeat_last_mae": float(naive_error[row].abs().mean()),
                        **inside,
                    }
                )
    table = pl.DataFrame(rows).with_columns(pl.col("origin").cast(pl.Datetime("us")))
    path = loaded.run.path
    write_aside(path / "backtest.parquet", lambda part: table.write_parquet(part))
    means = table.select(pl.col(pl.Float64).mean()).row(0, named=True)
    write_json(path / "backtest.json", {"origins": len(rows), "step": step, **means})
    mine, naive = means["mae"], means["repeat_last_mae"]
    headline = (
        f"{len(rows)} moments: MAE {mine:.3f} on average (standardised), repeat last {naive:.3f}"
    )
    picture = figures.backtest_picture(
        [str(row["origin"])[:16].replace("T", " ") for row in rows],
        np.array([row["mae"] for row in rows]),
        np.array([row["repeat_last_mae"] for row in rows]),
    )
    write_report(
        loaded.run, pipeline, Review({}, headline, [picture], {"Moments": table}), name="backtest"
    )
    say(headline)
    say(f"report {path / 'backtest.html'}")
    return table
