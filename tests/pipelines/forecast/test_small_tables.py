"""Small tables: sizes that they allow, no infinite intervals, no certainty that is not there."""

import json
import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
import yaml

from headwise import pipelines
from headwise.base.account import opened
from headwise.data.series.series import Series
from headwise.pipelines import load_task
from headwise.pipelines.engine.runs.loaded import load_run
from headwise.pipelines.forecast.data import open_splits
from headwise.pipelines.forecast.options import ForecastOptions
from headwise.pipelines.forecast.prediction import PreparedSeries, forecast_lines
from headwise.pipelines.forecast.scoring import finite_levels, lacking_windows
from headwise.pipelines.metrics.conformal import ConformalIntervals

TINY = {"width": 8, "core": 4, "feedforward": 8, "layers": 1, "epochs": 1}


def monthly(path, rows=60, start="2018-01-31"):
    first = pl.select(pl.lit(start).str.to_date()).item()
    months = pl.select(
        pl.date_range(pl.lit(first).dt.month_start(), pl.date(2040, 1, 1), "1mo").head(rows)
    ).to_series()
    dates = months.dt.month_end() if first.day > 28 else months
    season = np.sin(2 * np.pi * np.arange(rows) / 12)
    pl.DataFrame({"Month": dates, "sales": season + np.arange(rows) / 50}).write_csv(path)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("monthly")
    data = monthly(folder / "x.csv")
    run = pipelines.forecast.train(data=data, run=folder / "run", lookback=2, horizon=6, **TINY)
    return run, data


@pytest.mark.parametrize(("rows", "lookback", "horizon"), [(60, 12, 3), (200, 20, 10), (20, 6, 1)])
def test_sizes_fall_back_to_what_the_table_allows_and_are_said(rows, lookback, horizon, tmp_path):
    data = monthly(tmp_path / "x.csv", rows)
    with opened() as account:
        splits = open_splits(ForecastOptions(data=str(data)), None, False)
    assert (splits.spec.lookback, splits.spec.horizon) == (lookback, horizon)
    assert any(f"look-back {lookback} and horizon {horizon}" in line for line in account.lines())
    stated = open_splits(ForecastOptions(data=str(data), horizon=1), None, False).spec
    assert stated.horizon == 1


def test_long_tables_keep_the_usual_sizes(tmp_path):
    days = pl.date_range(pl.date(2000, 1, 1), pl.date(2010, 1, 1), eager=True).head(960)
    pl.DataFrame({"date": days, "a": np.arange(960.0)}).write_csv(tmp_path / "x.csv")
    spec = open_splits(ForecastOptions(data=str(tmp_path / "x.csv")), None, False).spec
    assert (spec.lookback, spec.horizon) == (96, 96)


def test_levels_without_enough_windows_are_empty_columns_and_said(trained):
    run, _ = trained
    rows = pl.read_parquet(run.path / "predictions.parquet")
    bounds = rows.select("lower_80", "upper_80", "lower_95", "upper_95")
    assert bounds.null_count().row(0) == (6, 6, 6, 6)
    assert rows["forecast"].is_finite().all()
    metrics = run.metrics()
    assert metrics["intervals"][1] == {
        "level": 0.95,
        "coverage": None,
        "mean_width": None,
        "coverage_of_paths": None,
        "coverage_by_channel": None,
    }
    assert "1 validation window is too few for 80% and 95% intervals" in metrics["intervals_note"]
    text = (run.path / "report.html").read_text()
    assert "too few for 80% and 95% intervals" in text
    assert ">inf<" not in text
    assert "too few windows for an interval" in text


def test_the_error_of_few_blocks_has_no_interval(trained):
    metrics = trained[0].metrics()
    assert metrics["mse_interval_95"] is None
    assert metrics["mse_blocks"] == 1
    assert metrics["difference_to_baseline"]["interval_95"] is None
    assert "too few for an interval" in (trained[0].path / "report.html").read_text()


def test_levels_with_enough_windows_are_those_that_are_finite():
    few = ConformalIntervals.fit(torch.rand(10, 2, 1), (0.8, 0.95))
    assert finite_levels(few) == [0.8]
    assert lacking_windows(few) == (
        "10 validation windows are too few for 95% intervals (19 are needed for 95%)"
    )
    assert lacking_windows(ConformalIntervals.fit(torch.rand(19, 2, 1), (0.8, 0.95))) == ""


def test_month_ends_stay_month_ends_with_a_look_back_of_two(trained, tmp_path):
    """The last two rows of a clock of the 30th look like month ends, and 28 February is either."""
    run, _ = trained
    assert run.spec()["reading"]["month_day"] == 31
    times = pl.read_parquet(run.path / "predictions.parquet")["time"].dt.date()
    assert [str(day) for day in times[:3]] == ["2023-01-31", "2023-02-28", "2023-03-31"]
    thirtieth = ["2022-10-30", "2022-11-30", "2022-12-30", "2023-01-30", "2023-02-28"]
    new = pl.DataFrame({"Month": thirtieth, "sales": range(5)})
    new.write_csv(tmp_path / "x.csv")
    pipelines.forecast.predict(
        run=run.path, input=tmp_path / "x.csv", output=tmp_path / "o.parquet"
    )
    times = pl.read_parquet(tmp_path / "o.parquet")["time"].dt.date()
    assert [str(day) for day in times[:2]] == ["2023-03-30", "2023-04-30"]
    new.tail(1).vstack(new.tail(1).with_columns(pl.lit("2023-03-31").alias("Month"))).write_csv(
        tmp_path / "y.csv"
    )
    pipelines.forecast.predict(
        run=run.path, input=tmp_path / "y.csv", output=tmp_path / "p.parquet"
    )
    times = pl.read_parquet(tmp_path / "p.parquet")["time"].dt.date()
    assert str(times[0]) == "2023-04-30"


def test_rows_that_were_cut_off_still_say_the_day_of_the_month(trained):
    """Of a clock of the 30th, the end of February and of April alone look like month ends."""
    spec = load_run(load_task("forecast").load(), str(trained[0].path), "cpu").spec
    times = np.array(["2023-02-28", "2023-04-30"], dtype="datetime64[us]")
    series = Series("x", times, np.ones((2, 1)), np.empty((2, 0)), month_day=30)
    assert str(PreparedSeries(series, spec).times[0])[:10] == "2023-05-30"
    assert str(PreparedSeries(replace(series, month_day=0), spec).times[0])[:10] == "2023-05-31"


def test_runs_of_older_versions_open(trained, tmp_path):
    """Their spec has no order of dates, no names; their options hold one id column or none."""
    run, data = trained
    old = tmp_path / "old"
    shutil.copytree(run.path, old)
    spec = json.loads((old / "spec.json").read_text())
    del spec["names"]
    spec["reading"] = {"date": None, "id_column": None, "fill": "error", "series": "apart"}
    (old / "spec.json").write_text(json.dumps(spec))
    options = yaml.safe_load((old / "config.yaml").read_text())
    for name in ("short", "date_order"):
        del options[name]
    options["id_column"] = None
    (old / "config.yaml").write_text(yaml.safe_dump(options))
    rows = pipelines.forecast.predict(run=old, input=data, output=tmp_path / "o.parquet").table()
    first = pl.read_parquet(run.path / "predictions.parquet")
    assert rows.drop("file").equals(first.drop("file"))
    assert pipelines.forecast.evaluate(run=old)["mse"] == run.metrics()["mse"]
    options["id_column"] = "shop"
    (old / "config.yaml").write_text(yaml.safe_dump(options))
    loaded = load_run(load_task("forecast").load(), str(old), "cpu")
    assert loaded.options.id_column == ("shop",)


def test_one_item_is_answered_with_the_first_steps(trained):
    run, _ = trained
    loaded = load_run(load_task("forecast").load(), str(run.path), "cpu")
    rows = pl.read_parquet(run.path / "predictions.parquet")
    lines = forecast_lines(rows, loaded.spec)
    assert len(lines) == 6
    assert lines[0] == f"2023-01-31  sales  {rows['forecast'][0]:.6g}"
    held = rows.with_columns(pl.lit(1.5).alias("lower_80"), pl.lit(2.5).alias("upper_80"))
    (first, *_) = forecast_lines(held, loaded.spec)
    assert first.endswith("(80 % interval 1.5 to 2.5)")
    many = pl.concat([rows.with_columns(pl.lit(f"c{i}").alias("channel")) for i in range(9)])
    assert forecast_lines(many, loaded.spec)[-1] == "… 3 further channels"


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["--experts", "4"], "--experts: is read by --ffn moe, not by --ffn mlp"),
        (["--active", "1"], "--active"),
        (["--balance", "0.5"], "--balance"),
        (["--router", "similarity", "--ffn", "glu"], "--router"),
        (["--ffn", "moe", "--router-temperature", "2"], "--router-temperature"),
    ],
)
def test_options_that_the_model_does_not_read_are_refused(words, option, headwise, tmp_path):
    code, lines = headwise("forecast", "train", *words, "--run", str(tmp_path / "run"))
    assert code == 2
    assert option in lines[-1]
    assert not (tmp_path / "run").exists()


def test_sizes_of_star_are_named_with_another_mechanism(tmp_path):
    options = ForecastOptions(data=str(monthly(tmp_path / "x.csv")), attention="softmax", core=7)
    with opened() as account:
        open_splits(options, None, False)
    assert any("--attention softmax does not read (--core)" in line for line in account.lines())
