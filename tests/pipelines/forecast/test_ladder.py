"""The ladder of forecasting: what is chosen where the right answer is known, and that it is what
predicts."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from headwise.models.series.simple import SmoothedForecaster
from headwise.pipelines import load_task
from headwise.pipelines.engine.command_line import parse
from headwise.pipelines.engine.runs.loaded import load_run
from headwise.pipelines.engine.training.jobs import evaluate, train
from headwise.pipelines.forecast.ridge import (
    best_ridge,
    naive_map,
    season_by_autocorrelation,
    sums_of,
)
from headwise.pipelines.forecast.rungs import blend_shares, season_words, span_words

SMALL = ["--width", "32", "--core", "16", "--feedforward", "32", "--layers", "1",
         "--lookback", "12", "--horizon", "2", "--no-marks"]  # fmt: skip


def write(path: Path, values: np.ndarray) -> Path:
    """A table of one column, by the hour."""
    start = np.datetime64("2024-01-01T00:00:00")
    times = [str(start + np.timedelta64(hour, "h")) for hour in range(len(values))]
    pl.DataFrame({"date": times, "x": values}).write_csv(path)
    return path


def noise(rows: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=rows)


def linear(rows: int) -> np.ndarray:
    """An autoregression of order 2 with small steps."""
    steps, values = noise(rows), np.zeros(rows)
    for t in range(2, rows):
        values[t] = 1.6 * values[t - 1] - 0.9 * values[t - 2] + 0.1 * steps[t]
    return values


def chaotic(rows: int) -> np.ndarray:
    """The logistic map: no linear map sees more in it than its mean."""
    values = np.full(rows, 0.3)
    for t in range(1, rows):
        values[t] = 3.99 * values[t - 1] * (1 - values[t - 1])
    return values


def trained(folder: Path, values: np.ndarray, *words: str):
    task = load_task("forecast")
    pipeline = task.load()
    data = write(folder / "data.csv", values)
    options = parse(
        task, "train", ["--data", str(data), "--run", str(folder / "run"), *SMALL, *words]
    )
    train(pipeline, options)
    return pipeline, load_run(pipeline, str(folder / "run"), "cpu")


class TestChoice:
    def test_of_noise_the_naive_forecast_predicts(self, tmp_path: Path) -> None:
        _, loaded = trained(tmp_path, noise(1500), "--epochs", "1")
        assert loaded.ladder is not None
        assert loaded.ladder.chosen == "naive"
        assert "mean" in loaded.ladder.words("naive")

    def test_of_a_linear_process_the_ridge_regression_predicts(self, tmp_path: Path) -> None:
        _, loaded = trained(tmp_path, linear(2000), "--epochs", "1")
        assert loaded.ladder is not None
        assert loaded.ladder.chosen == "simple"

    def test_of_a_chaotic_process_the_model_predicts(self, tmp_path: Path) -> None:
        words = ("--epochs", "12", "--lr", "0.003", "--no-normalise", "--patience", "12")
        _, loaded = trained(tmp_path, chaotic(3000), *words)
        assert loaded.ladder is not None
        assert loaded.ladder.chosen == "model"


class TestWhatIsChosen:
    @pytest.fixture(scope="class")
    def run(self, tmp_path_factory: pytest.TempPathFactory):
        folder = tmp_path_factory.mktemp("chosen")
        return trained(folder, linear(800), "--max-steps", "5", "--choose", "blend")

    def test_predicts(self, run) -> None:
        """The metrics are those of the blend, made here from its two parts."""
        pipeline, loaded = run
        assert loaded.ladder.chosen == "blend"
        models, context = loaded.ladder.models, loaded.context(loaded.options)
        splits = pipeline.open_data(loaded.options, loaded.spec)
        squares = []
        for index in range(len(splits.test)):
            batch = splits.test.__getitems__([index])
            share = models["blend"].share[:, None]
            forecast = share * models["model"](batch["past"]) + (1 - share) * models["simple"](
                batch["past"]
            )
            squares.append(float((forecast - batch["future"]).square().mean()))
        stored = loaded.run.metrics()
        assert stored["mse"] == pytest.approx(np.mean(squares), rel=1e-6)
        assert stored["ladder"]["rungs"]["blend"]["MSE"] == pytest.approx(stored["mse"], rel=1e-6)
        assert evaluate(
            pipeline, parse(pipeline.task, "evaluate", ["--run", str(loaded.run.path)])
        )["mse"] == pytest.approx(stored["mse"], rel=1e-9)
        assert context.spec.horizon == 2

    def test_the_ridge_regression_is_of_the_training_and_the_validation_part(self, run) -> None:
        """Its weights are those of `best_ridge` on the joined windows, with what was chosen."""
        pipeline, loaded = run
        splits = pipeline.open_data(loaded.options, loaded.spec)
        rungs = pipeline.rungs(loaded.spec)
        first = rungs.simple(loaded.domain_model, splits, loaded.options, torch.device("cpu"))[
            "simple"
        ]
        parts = [
            part.__getitems__(list(range(len(part)))) for part in (splits.train, splits.validation)
        ]
        windows = {name: torch.cat([part[name] for part in parts]) for name in ("past", "future")}
        plain, weighted = sums_of([windows], per_channel=False)
        (train, weighed), (held, _) = (sums_of([part], per_channel=False) for part in parts)
        chosen = best_ridge(train, weighed, held, loaded.spec.lookback, 1)
        expected = chosen.refit(plain, weighted, loaded.spec.lookback).module(loaded.spec.lookback)
        stored = loaded.ladder.models["simple"]
        torch.testing.assert_close(stored.weight, expected.weight)
        assert not torch.allclose(stored.weight, first.model.weight, rtol=1e-4)
        assert loaded.ladder.words("simple").endswith("of the training and the validation part")

    def test_a_rung_that_was_changed_is_refused(self, run, tmp_path: Path) -> None:
        import shutil

        from headwise.base.errors import InputError

        pipeline, loaded = run
        copy = tmp_path / "run"
        shutil.copytree(loaded.run.path, copy)
        file = copy / "ladder" / "simple.safetensors"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"simple\.safetensors: missing or damaged"):
            load_run(pipeline, str(copy), "cpu")

    def test_a_run_without_a_ladder_predicts_with_its_model(self, run, tmp_path: Path) -> None:
        import shutil

        pipeline, loaded = run
        copy = tmp_path / "run"
        shutil.copytree(loaded.run.path, copy)
        (copy / "ladder.json").unlink()
        older = load_run(pipeline, str(copy), "cpu")
        assert older.ladder is None
        past = torch.randn(3, 12, 1)
        assert torch.equal(older.model(past), loaded.ladder.models["model"](past))


class TestRidge:
    def windows(self, channels: int = 2, known: int = 0) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        past = torch.randn(300, 6, channels, generator=generator).cumsum(1)
        batch = {"past": past, "future": torch.randn(300, 3, channels, generator=generator)}
        batch["future"] += past[:, -1:] * 0.7 + past[:, :1]
        if known:
            batch["known"] = torch.randn(300, 9, known, generator=generator)
            batch["future"] += batch["known"][:, 6:, :1]
        return batch

    def test_the_error_by_sums_is_that_of_the_module(self) -> None:
        batch = self.windows(known=2)
        sums, weighted = sums_of([batch], per_channel=True)
        best = best_ridge(sums, weighted, sums, 6, 2)
        module = best.map.module(6)
        forecast = module(batch["past"], None, batch["known"])
        error = float((forecast - batch["future"]).square().mean())
        assert best.mse == pytest.approx(error, rel=1e-4)

    def test_the_map_is_that_of_scikit_learn(self) -> None:
        from sklearn.linear_model import Ridge

        batch = self.windows(channels=1)
        sums, _ = sums_of([batch], per_channel=False)
        from headwise.pipelines.forecast.ridge import PENALTIES, ridge_maps

        x = batch["past"][..., 0].double().numpy()
        y = batch["future"][..., 0].double().numpy()
        spread = ((x - x.mean(0)) ** 2).sum() / x.shape[1]
        for penalty, fitted in zip(PENALTIES, ridge_maps(sums, "as they are", 6, 6), strict=True):
            plain = Ridge(alpha=penalty * spread).fit(x, y)
            assert np.allclose(fitted.weight[0].numpy(), plain.coef_.T, atol=1e-6)
            assert np.allclose(fitted.bias[0].numpy(), plain.intercept_, atol=1e-6)

    def test_a_shift_of_the_level_shifts_the_forecast_in_the_forms_that_take_it_off(self) -> None:
        from headwise.pipelines.forecast.ridge import ridge_maps

        batch = self.windows(channels=1)
        sums, weighted = sums_of([batch], per_channel=False)
        assert weighted is not None
        for form, of in (("less the last", sums), ("less their mean", sums), ("scaled", weighted)):
            for fitted in ridge_maps(of, form, 6, 6):  # pyright: ignore[reportArgumentType]
                assert torch.allclose(fitted.weight.sum(1), torch.ones(1, 3, dtype=torch.float64))

    def test_the_season_is_where_the_windows_repeat(self) -> None:
        steps = torch.arange(400)
        wave = torch.sin(2 * torch.pi * steps / 7)[:, None]
        past = torch.stack([wave[k : k + 24] for k in range(300)])
        sums, _ = sums_of([{"past": past, "future": past[:, :2]}], per_channel=False)
        assert season_by_autocorrelation(sums, 24) in (7, 14, 21)

    def test_naive_maps_are_the_naive_forecasts(self) -> None:
        from headwise.models.series.simple import RepeatPast

        batch = self.windows(channels=1)
        sums, _ = sums_of([batch], per_channel=False)
        for season in (None, 0, 1, 2, 5):
            model = RepeatPast(6, 3, season)
            rows = None if season is None else model.rows or ()
            error = float((model(batch["past"]) - batch["future"]).square().mean())
            assert naive_map(rows, sums, 6).mse(sums) == pytest.approx(error, rel=1e-4)


def test_shares_are_the_best_ones_drawn_towards_one_half() -> None:
    generator = torch.Generator().manual_seed(0)
    model, simple, truth = (torch.randn(500, 8, generator=generator).double() for _ in range(3))
    aligned = ((truth - simple) * (model - simple)).sum(0)
    distance = (model - simple).square().sum(0)
    shares = blend_shares(aligned, distance, 0.0)
    for block in (slice(0, 4), slice(4, 8)):
        errors = [
            float((share * model + (1 - share) * simple - truth)[:, block].square().sum())
            for share in (shares[block][0] + step for step in (-0.02, 0.0, 0.02))
        ]
        assert errors[1] == min(errors)
    assert torch.allclose(blend_shares(aligned, distance, 1.0), (shares + 0.5) / 2)


def test_spans_are_said_in_the_largest_unit() -> None:
    assert span_words(96, "1h") == "4 days"
    assert span_words(4, "15m") == "1 hour"
    assert span_words(12, "1mo") == "1 year"
    assert span_words(5, "1b") == "5 business days"
    assert season_words(24, "1h") == "repeating the last day (24 rows)"
    assert season_words(1, "1h") == "repeating the last value"


class TestSmoothing:
    def smoothed(self, values: np.ndarray, alpha: float, beta: float, phi: float):
        """Level, trend and squared one-step errors, row by row."""
        level, trend, error = values[0], 0.0, 0.0
        for value in values[1:]:
            expected = level + phi * trend
            error += (value - expected) ** 2
            level, before = expected + alpha * (value - expected), level
            trend = (1 - beta) * phi * trend + beta * (level - before)
        return level, trend, error

    def test_it_is_the_best_setting_of_a_plain_loop(self) -> None:
        generator = torch.Generator().manual_seed(0)
        past = torch.randn(4, 20, 2, generator=generator).double().cumsum(1)
        forecast = SmoothedForecaster(20, 3, 0)(past)
        for row in range(4):
            for channel in range(2):
                values = past[row, :, channel].numpy()
                level, trend, _, phi = min(
                    ((*self.smoothed(values, *setting), setting[2])
                     for setting in SmoothedForecaster.SETTINGS),
                    key=lambda fitted: fitted[2],
                )  # fmt: skip
                expected = [
                    level + trend * sum(phi ** (k + 1) for k in range(h + 1)) for h in range(3)
                ]
                np.testing.assert_allclose(forecast[row, :, channel], expected, rtol=1e-5)

    def test_a_season_on_a_line_goes_on(self) -> None:
        steps = torch.arange(34).double()
        values = 0.0 * steps + torch.tensor([3.0, -1.0, -2.0, 0.0])[torch.arange(34) % 4]
        forecast = SmoothedForecaster(30, 4, 4)(values[None, :30, None])
        np.testing.assert_allclose(forecast[0, :, 0], values[30:], atol=0.3)

    def test_a_season_that_does_not_fit_twice_is_left_out(self) -> None:
        assert SmoothedForecaster(10, 2, 6).season == 0
        assert SmoothedForecaster(12, 2, 6).season == 6

    def test_short_series_with_a_drifting_level_are_smoothed(self, tmp_path: Path) -> None:
        """Two hundred rows are too few for ridge regression to find that the last value is all."""
        drifting = noise(260).cumsum() + 0.8 * np.random.default_rng(1).normal(size=260)
        _, loaded = trained(tmp_path, drifting, "--max-steps", "2", "--lookback", "24")
        assert loaded.ladder is not None
        facts = loaded.ladder.facts["rungs"]["simple"]["facts"]
        assert facts["kind"] in ("smoothed", "ridge")
        past = torch.randn(2, 24, 1)
        again = load_run(load_task("forecast").load(), str(tmp_path / "run"), "cpu")
        assert again.ladder is not None
        assert torch.equal(
            again.ladder.models["simple"](past), loaded.ladder.models["simple"](past)
        )
