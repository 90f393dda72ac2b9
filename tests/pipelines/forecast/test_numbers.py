"""Which windows the intervals are of, and which rows the errors: by plain numpy."""

import copy
import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from headwise import pipelines
from headwise.data.series.generate import sample_series, write_wide
from headwise.pipelines import load_task
from headwise.pipelines.engine.runs.loaded import load_run
from headwise.pipelines.forecast.scoring import interval_of_mean

LOOKBACK, HORIZON = 24, 12
SMALL = {
    "horizon": HORIZON,
    "lookback": LOOKBACK,
    "width": 16,
    "core": 8,
    "feedforward": 16,
    "layers": 1,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run whose levels do not ascend, and the errors (N, H, C) of its windows by part; those of
    the validation part with the ridge regression that has not seen it.
    """
    folder = tmp_path_factory.mktemp("forecast")
    data = folder / "wide.csv"
    write_wide(sample_series(rows=1600, channels=3), data)
    run = pipelines.forecast.train(
        data=data, run=folder / "run", epochs=1, levels=(0.95, 0.5, 0.8), **SMALL
    )
    task = load_task("forecast")
    loaded = load_run(task.load(), str(run.path), "cpu")
    splits = task.load().open_data(replace(loaded.options, data=str(data)), loaded.spec)
    assert loaded.ladder.chosen == "blend"
    simple = (
        task.load()
        .rungs(loaded.spec)
        .simple(loaded.domain_model, splits, loaded.options, torch.device("cpu"))["simple"]
    )
    held_out = copy.deepcopy(loaded.model)
    held_out.simple = simple.model
    errors = {}
    for name in ("validation", "test"):
        part = getattr(splits, name)
        batch = part.__getitems__(list(range(len(part))))
        with torch.no_grad():
            predictor = held_out if name == "validation" else loaded.model
            forecast = predictor(batch["past"], batch.get("past_marks"), batch.get("known"))
            of_model = loaded.ladder.models["model"](batch["past"], batch.get("past_marks"))
        errors[name] = (forecast - batch["future"]).double().numpy()
        errors[f"{name} of SOFTS"] = (of_model - batch["future"]).double().numpy()
    return run, data, loaded, errors


def test_intervals_are_quantiles_of_the_validation_windows_by_ascending_level(trained):
    run, _, loaded, errors = trained
    residuals = np.sort(np.abs(errors["validation"]), axis=0)
    count = len(residuals)
    expected = [residuals[int(np.ceil((count + 1) * level)) - 1] for level in (0.5, 0.8, 0.95)]
    np.testing.assert_allclose(loaded.calibration["radius"].numpy(), expected, rtol=1e-4, atol=1e-5)
    assert loaded.spec.to_json()["levels"] == [0.5, 0.8, 0.95]
    metrics = run.metrics()
    assert [interval["level"] for interval in metrics["intervals"]] == [0.5, 0.8, 0.95]
    for interval, radius in zip(metrics["intervals"], expected):
        assert interval["mean_width"] == pytest.approx(2 * radius.mean(), rel=1e-4)
        assert interval["coverage"] == pytest.approx(
            (np.abs(errors["test"]) <= radius).mean(), abs=2e-3
        )


def test_bounds_of_predictions_have_the_width_of_their_own_level(trained, tmp_path):
    run, data, loaded, _ = trained
    rows = pipelines.forecast.predict(
        run=run.path, input=data, output=tmp_path / "o.parquet"
    ).table()
    deviation = np.array(loaded.spec.to_json()["scaler"]["std"])
    for place, level in enumerate((50, 80, 95)):
        width = (rows[f"upper_{level}"] - rows[f"lower_{level}"]).to_numpy().reshape(3, HORIZON).T
        np.testing.assert_allclose(
            width, 2 * loaded.calibration["radius"][place].numpy() * deviation, rtol=1e-5
        )


def test_errors_are_those_of_the_test_windows(trained):
    run, _, loaded, errors = trained
    metrics, test_errors = run.metrics(), errors["test"]
    assert metrics["windows"] == len(test_errors)
    assert metrics["mse"] == pytest.approx(np.square(test_errors).mean(), rel=1e-5)
    assert metrics["mae"] == pytest.approx(np.abs(test_errors).mean(), rel=1e-5)
    np.testing.assert_allclose(
        metrics["by_step"]["mae"], np.abs(test_errors).mean((0, 2)), rtol=1e-5
    )
    deviation = np.array(loaded.spec.to_json()["scaler"]["std"])
    for place, scores in enumerate(metrics["original_units"].values()):
        assert scores["mae"] == pytest.approx(
            np.abs(test_errors[..., place]).mean() * deviation[place], rel=1e-4
        )
        assert scores["rmse"] == pytest.approx(
            np.sqrt(np.square(test_errors[..., place]).mean()) * deviation[place], rel=1e-4
        )
    # Windows share most of their rows: whole blocks are drawn, as long as the rows that two windows
    # may share.
    low, high = interval_of_mean(
        np.square(test_errors).mean((1, 2)), np.arange(0, len(test_errors), LOOKBACK + HORIZON)
    )
    assert metrics["mse_interval_95"] == pytest.approx([low, high], rel=1e-4)


def test_the_score_of_an_epoch_is_of_all_validation_windows_alike(trained):
    """The last batch is smaller than the others."""
    run, _, _, errors = trained
    row = pl.read_csv(run.path / "history.csv").row(0, named=True)
    of_model = errors["validation of SOFTS"]
    assert row["val_mse"] == pytest.approx(np.square(of_model).mean(), rel=1e-5)
    assert row["val_mae"] == pytest.approx(np.abs(of_model).mean(), rel=1e-5)


def test_a_backtest_has_the_errors_of_the_windows_that_begin_at_its_moments(trained):
    run, data, loaded, errors = trained
    rows = pipelines.forecast.backtest(run=run.path, origins=3, step=2)
    squared = np.square(errors["test"]).mean((1, 2))[[-5, -3, -1]]
    np.testing.assert_allclose(rows["mse"].to_numpy(), squared, rtol=1e-4)
    told = pl.read_csv(data, try_parse_dates=True)
    assert rows["origin"].to_list() == [told["date"][-HORIZON - back] for back in (4, 2, 0)]
    widths = loaded.calibration["radius"].numpy()
    for place, level in enumerate((50, 80, 95)):
        inside = [(np.abs(errors["test"][at]) <= widths[place]).mean() for at in (-5, -3, -1)]
        np.testing.assert_allclose(rows[f"coverage_{level}"].to_numpy(), inside, atol=0.03)
    stored = json.loads((run.path / "backtest.json").read_text())
    assert stored["mse"] == pytest.approx(squared.mean(), rel=1e-4)


def test_the_interval_of_a_mean_of_dependent_values_is_as_wide_as_it_should_be():
    """AR(1), rho = .9: the mean deviates sqrt((1 + rho) / (1 - rho)) = 4.4 times as much as of
    independent values.
    """
    generator, rho, count = np.random.default_rng(4), 0.9, 20_000
    values = np.zeros(count)
    for k, shock in enumerate(generator.normal(size=count)):
        values[k] = rho * values[k - 1] + shock
    low, high = interval_of_mean(values, np.arange(0, count, 200))
    plain = 2 * 1.96 * values.std() / np.sqrt(count)
    assert (high - low) / plain == pytest.approx(np.sqrt((1 + rho) / (1 - rho)), rel=0.2)
    assert low < values.mean() < high
    low, high = interval_of_mean(values, np.arange(count))
    assert (high - low) / plain == pytest.approx(1, rel=0.1)


def test_forecasts_by_known_columns_are_those_of_the_window_that_begins_where_the_table_ends(
    tmp_path,
):
    """The table ends 30 rows early, and what is known goes on: the same forecast as `evaluate`
    makes of that window.
    """
    generator = np.random.default_rng(0)
    plan = generator.normal(size=400)
    days = pl.datetime_range(
        pl.datetime(2024, 1, 1), pl.datetime(2026, 1, 1), "1h", eager=True
    ).head(400)
    load = 5 + 3 * plan + np.sin(np.arange(400)) + 0.1 * generator.normal(size=400)
    told = pl.DataFrame({"date": days, "load": load, "plan": plan})
    told.write_csv(tmp_path / "whole.csv")
    how = {"known": ["plan"], "targets": ["load"], "epochs": 2, "lr": 3e-3, "normalise": False}
    run = pipelines.forecast.train(data=tmp_path / "whole.csv", run=tmp_path / "r", **how, **SMALL)
    task = load_task("forecast")
    loaded = load_run(task.load(), str(run.path), "cpu")
    part = (
        task.load()
        .open_data(
            replace(loaded.options, data=str(tmp_path / "whole.csv")), loaded.spec, as_test=True
        )
        .test
    )
    end = 370
    batch = part.__getitems__([end - LOOKBACK])
    with torch.no_grad():
        expected = (
            loaded.model(batch["past"], batch.get("past_marks"), batch["known"])[0, :, 0]
            .double()
            .numpy()
        )
    cut = told.with_columns(pl.when(pl.int_range(pl.len()) < end).then("load").alias("load")).head(
        end + HORIZON
    )
    cut.write_csv(tmp_path / "cut.csv")
    rows = pipelines.forecast.predict(
        run=run.path, input=tmp_path / "cut.csv", output=tmp_path / "o.parquet"
    ).table()
    mean, deviation = (loaded.spec.to_json()["scaler"][name][0] for name in ("mean", "std"))
    np.testing.assert_allclose(
        (rows["forecast"].to_numpy() - mean) / deviation, expected, rtol=1e-4, atol=1e-5
    )
