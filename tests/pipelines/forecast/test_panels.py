"""One odd series spoils neither the scores nor the intervals of the others."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from headwise import pipelines
from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.pipelines import load_task
from headwise.pipelines.engine.runs.loaded import load_run
from headwise.pipelines.forecast.data import open_splits
from headwise.pipelines.forecast.options import ForecastOptions
from headwise.pipelines.forecast.scoring import stretch_by_series
from headwise.pipelines.forecast.usable import late_channels

ROWS = 200
SMALL = {
    "horizon": 4,
    "lookback": 8,
    "width": 8,
    "core": 4,
    "feedforward": 8,
    "layers": 1,
    "epochs": 1,
}


def weekly(seed: int, rows: int = ROWS) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=rows)
    return 20 + 5 * np.sin(2 * np.pi * np.arange(rows) / 7) + noise


def panel_file(path, form="%m/%d/%Y", **series):
    """A long table with two columns of ids, in dates with slashes."""
    days = pl.date_range(pl.date(2022, 1, 1), pl.date(2024, 1, 1), eager=True)
    frames = [
        pl.DataFrame(
            {
                "store": name,
                "item": "1",
                "ds": days.head(len(values)).dt.strftime(form),
                "y": values,
            }
        )
        for name, values in series.items()
    ]
    pl.concat(frames).write_csv(path)
    return path


ORDINARY = {f"s{seed}": weekly(seed) for seed in range(4)}
LAUNCHED = np.where(np.arange(ROWS) < 145, 0, 1000 + 100 * weekly(9))
FEW_BEFORE = np.where(np.arange(ROWS) == 30, 1.0, LAUNCHED)


def options_of(path, **changes):
    return ForecastOptions(data=str(path), horizon=4, lookback=8, **changes)


@pytest.mark.parametrize("late", [LAUNCHED, FEW_BEFORE], ids=["constant", "nearly constant"])
def test_a_product_launched_late_is_left_out_and_said(late, tmp_path):
    path = panel_file(tmp_path / "x.csv", **ORDINARY, new=late)
    with opened() as account:
        splits = open_splits(options_of(path), None, False)
    assert splits.train.names == [f"{name}/1" for name in ORDINARY]
    assert splits.spec.series == 4
    assert any(line.startswith("left out: 1 series that begin to move") for line in account.lines())
    with_all = open_splits(options_of(path), splits.spec, as_test=True).test
    assert "new/1" in with_all.names, "other data is scored in full"


def test_a_channel_of_a_wide_table_that_begins_late_gets_a_scale_of_its_own(tmp_path):
    days = pl.date_range(pl.date(2022, 1, 1), pl.date(2024, 1, 1), eager=True).head(ROWS)
    pl.DataFrame({"ds": days, "a": weekly(0), "b": LAUNCHED}).write_csv(tmp_path / "x.csv")
    with opened() as account:
        scaler = open_splits(options_of(tmp_path / "x.csv"), None, False).spec.scaler
    text = " ".join(account.lines())
    assert "1 channels constant in the training rows and scaled by all rows (b)" in text
    assert "series that move far beyond their training rows" in text
    assert scaler is not None
    assert scaler["std"][0] == pytest.approx(weekly(0)[:140].std())
    assert scaler["std"][1] == pytest.approx(LAUNCHED.std())


def test_constant_series_are_said(tmp_path):
    path = panel_file(tmp_path / "x.csv", **ORDINARY, still=np.full(ROWS, 3.0))
    with opened() as account:
        splits = open_splits(options_of(path), None, False)
    assert "still/1" in splits.train.names
    assert any("1 constant series" in line for line in account.lines())


def test_late_channels_are_those_whose_training_rows_give_no_scale():
    steady, trend = weekly(1), np.arange(ROWS) + weekly(2)
    one_slip = np.where(np.arange(ROWS) == 190, 1e6, weekly(3))
    values = np.stack([steady, trend, one_slip, np.zeros(ROWS), LAUNCHED], 1)
    assert late_channels(values, 140).tolist() == [False, False, False, False, True]


def test_short_series_are_left_out_or_an_error(tmp_path):
    path = panel_file(tmp_path / "x.csv", **ORDINARY, new=np.arange(10.0))
    with opened() as account:
        splits = open_splits(options_of(path), None, False)
    assert splits.train.names == [f"{name}/1" for name in ORDINARY]
    entry = next(e for e in account.to_json() if "too short" in str(e["what"]))
    assert (entry["topic"], entry["names"]) == ("left out", ["new/1"])
    with pytest.raises(InputError, match=r"series 'new/1': split ratio.*rows are needed"):
        open_splits(options_of(path, short="error"), None, False)
    short = panel_file(tmp_path / "y.csv", form="%Y-%m-%d", a=np.arange(10.0), b=np.arange(12.0))
    with pytest.raises(InputError, match="series 'a/1': split ratio"):
        open_splits(options_of(short), None, False)


def test_intervals_of_an_unusual_series_are_stretched_and_others_are_not():
    generator = torch.Generator().manual_seed(0)
    residuals = torch.rand(5 * 30, 4, 1, generator=generator)
    series = torch.arange(5).repeat_interleave(30)
    assert stretch_by_series(residuals, series, 5).tolist() == [1.0] * 5
    odd = residuals.clone()
    odd[series == 2] *= 50
    odd[series == 4] *= 0.01
    stretch = stretch_by_series(odd, series, 5)
    assert stretch[[0, 1, 3]].tolist() == [1.0] * 3
    assert stretch[2] == pytest.approx(50, rel=0.2)
    assert stretch[4] == pytest.approx(0.01, rel=0.2)
    means = odd.mean((1, 2))
    median = torch.stack([means[series == s].mean() for s in range(5)]).median()
    assert float(stretch[2]) == pytest.approx(float(means[series == 2].mean() / median), rel=1e-5)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A panel with a series that is launched late and one that moves as no other does."""
    folder = tmp_path_factory.mktemp("panel")
    jump = np.where(np.arange(ROWS) < 140, weekly(5), 20 + 12 * (weekly(5) - 20))
    path = panel_file(folder / "x.csv", **ORDINARY, new=LAUNCHED, odd=jump, brief=np.arange(6.0))
    return pipelines.forecast.train(data=path, run=folder / "run", **SMALL), path


def test_the_run_keeps_the_order_of_dates_and_the_columns_of_ids(trained, tmp_path):
    """A file whose days could be months is read as training read them."""
    run, _ = trained
    reading = run.spec()["reading"]
    assert (reading["date_order"], reading["id_columns"]) == ("mdy", ["store", "item"])
    path = panel_file(tmp_path / "new.csv", a=weekly(7)[:12], b=weekly(8)[:12])
    rows = pipelines.forecast.predict(run=run.path, input=path, output=tmp_path / "o.parquet")
    table = rows.table()
    assert table["status"].unique().to_list() == ["ok"]
    assert (
        table.filter(pl.col("step") == 1)["time"].dt.date().to_list()
        == [pl.select(pl.date(2022, 1, 13)).item()] * 2
    )
    assert table.select("store", "item_id").unique(maintain_order=True).rows() == [
        ("a", "1"),
        ("b", "1"),
    ]
    other = panel_file(tmp_path / "other.csv", form="%d/%m/%Y", a=weekly(7)[:20])
    rows = pipelines.forecast.predict(run=run.path, input=other, output=tmp_path / "p.parquet")
    assert "in the order month/day/year" in rows.table()["error"][0]
    rows = pipelines.forecast.predict(
        run=run.path, input=other, output=tmp_path / "q.parquet", date_order="dmy"
    )
    assert rows.failed == 0


def test_each_series_has_a_row_and_intervals_of_its_size(trained):
    run, _ = trained
    rows = pl.read_parquet(run.path / "predictions.parquet")
    width = {
        name: table.filter(pl.col("status") == "ok")
        .select(pl.col("upper_80") - pl.col("lower_80"))
        .to_series()
        .mean()
        for (name,), table in rows.group_by("store", maintain_order=True)
    }
    assert "needs 8" in rows.filter(pl.col("item") == "brief/1")["error"][0]
    ordinary = [width[name] for name in ORDINARY]
    assert max(ordinary) < 20, "others have the intervals of their own size"
    assert width["odd"] > 20 * max(ordinary), "its deviation and its errors are larger"
    assert width["new"] > 50


def test_coverage_and_widths_count_the_stretch(trained):
    run, path = trained
    loaded = load_run(load_task("forecast").load(), str(run.path), "cpu")
    stretch = loaded.calibration["stretch"].numpy()
    assert loaded.spec.names == [*(f"{name}/1" for name in ORDINARY), "odd/1"]
    assert (stretch[:4] == 1).all()
    assert stretch[4] > 3
    options = replace(loaded.options, data=str(path))
    test = load_task("forecast").load().open_data(options, loaded.spec).test
    batch = test.__getitems__(list(range(len(test))))
    with torch.no_grad():
        forecast = loaded.model(batch["past"], batch.get("past_marks"), batch.get("known"))
    error = (forecast - batch["future"]).abs().double().numpy()
    factor = stretch[test.series_of(torch.arange(len(test))).numpy()][:, None, None]
    radius = loaded.calibration["radius"].double().numpy()
    for level, (entry, widths) in enumerate(zip(run.metrics()["intervals"], radius, strict=True)):
        assert entry["level"] == (0.8, 0.95)[level]
        inside = error <= widths * factor
        assert entry["coverage"] == pytest.approx(inside.mean(), abs=2e-3)
        assert entry["coverage_of_paths"] == pytest.approx(inside.all(1).mean(), abs=5e-3)
        assert entry["coverage_by_channel"]["y"] == pytest.approx(inside.mean(), abs=2e-3)
        assert entry["mean_width"] == pytest.approx(2 * widths.mean() * factor.mean(), rel=1e-4)


def test_forecasts_of_the_test_part_stand_next_to_what_came(trained):
    run, _ = trained
    rows = pl.read_parquet(run.path / "test_forecasts.parquet")
    assert rows["part"].unique().to_list() == ["test"]
    assert rows["item"].unique(maintain_order=True).to_list() == [
        *(f"{name}/1" for name in ORDINARY),
        "odd/1",
    ]
    first = rows.filter(pl.col("item") == "s1/1")
    assert first["truth"].to_numpy()[-4:] == pytest.approx(ORDINARY["s1"][-4:], rel=1e-5)
    last_day = pl.select(pl.date(2022, 1, 1) + pl.duration(days=ROWS - 1)).item()
    assert first["time"].dt.date()[-1] == last_day
    assert first["time"].n_unique() == first.height == 40, "windows share no rows"
    assert (first["origin"] == first["time"]).sum() == 10


def test_constant_series_are_forecast_as_their_constant_without_width(trained, tmp_path):
    run, _ = trained
    constants = {"zero": np.zeros(20), "small": np.full(20, 1e-3), "large": np.full(20, 1e6)}
    path = panel_file(tmp_path / "new.csv", **constants)
    rows = pipelines.forecast.predict(run=run.path, input=path, output=tmp_path / "o.parquet")
    for name, values in constants.items():
        table = rows.table().filter(pl.col("store") == name)
        for column in ("forecast", "lower_95", "upper_95", "lower_80"):
            assert table[column].to_numpy() == pytest.approx(values[:4], rel=1e-12)
