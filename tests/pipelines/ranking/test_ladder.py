"""The ladder of ranking: what is chosen where the right answer is known."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.models.clicks.click import Layout, SharedBottom
from headwise.pipelines import load_task
from headwise.pipelines.engine.command_line import parse
from headwise.pipelines.engine.pipeline import Context
from headwise.pipelines.engine.runs.ladder_files import fit_ladder
from headwise.pipelines.ranking.rungs import RankingRungs, _counted
from headwise.pipelines.ranking.scoring import calibrate, rate_scores
from headwise.pipelines.ranking.trees import (
    FOLDS,
    check_trees,
    count_codes,
    count_in_folds,
    fit_trees,
    smoothed_rates,
)

SCHEMA = """\
log: log.csv
user: user
item: item
categorical: {user: {}, item: {}, a: {}, b: {}}
tasks: {click: {column: click}}
split: {by: random, train: 0.6, validation: 0.2}
"""


def opened_log(folder: Path, click: np.ndarray, a: np.ndarray, b: np.ndarray):
    user, item = pairs(len(click))
    pl.DataFrame(
        {"user": user, "item": item, "a": a, "b": b, "click": click.astype(int)}
    ).write_csv(folder / "log.csv")
    (folder / "log.yaml").write_text(SCHEMA)
    task = load_task("ranking")
    words = ["--data", str(folder / "log.csv"), "--schema", str(folder / "log.yaml")]
    options = parse(task, "train", [*words, "--width", "4", "--layers", "1"])
    pipeline = task.load()
    with opened():
        return pipeline, options, pipeline.open_data(options)


def pairs(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Users and items of the rows of every log."""
    generator = np.random.default_rng(5)
    return generator.integers(300, size=rows), generator.integers(50, size=rows)


def fields(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.integers(6, size=rows), generator.integers(6, size=rows)


def chosen(pipeline, options, splits, model: torch.nn.Module):
    context = Context(options, splits.spec, {}, torch.device("cpu"))
    ladder = fit_ladder(pipeline, model, splits, context)
    assert ladder is not None
    return ladder


class Constant(torch.nn.Module):
    """A model that was not trained: the same logit for all rows."""

    def forward(self, fields, events, ages, offsets):
        return torch.zeros(len(fields), 1)


class Knows(torch.nn.Module):
    """A model that knows the labels, which are a hidden function of the row's codes."""

    def __init__(self, logit_of: dict[tuple[int, ...], float]) -> None:
        super().__init__()
        self.logit_of = logit_of

    def forward(self, fields, events, ages, offsets):
        return torch.tensor([[self.logit_of[tuple(row)]] for row in fields[:, :2].tolist()])


def test_of_noise_the_counted_rates_predict(tmp_path: Path) -> None:
    """Codes of users and items tell nothing: rates of other folds do not hold a row's own label."""
    a, b = fields(4000)
    click = np.random.default_rng(1).random(4000) < 0.3
    pipeline, options, splits = opened_log(tmp_path, click, a, b)
    assert chosen(pipeline, options, splits, Constant()).chosen == "naive"


def test_what_the_fields_tell_together_the_simple_model_knows(tmp_path: Path) -> None:
    a, b = fields(4000)
    click = np.random.default_rng(1).random(4000) < np.where((a + b) % 2, 0.9, 0.1)
    pipeline, options, splits = opened_log(tmp_path, click, a, b)
    ladder = chosen(pipeline, options, splits, Constant())
    assert ladder.chosen == "simple"
    context = Context(options, splits.spec, {}, torch.device("cpu"))
    scores = RankingRungs().scores(ladder.models, splits.test, context)
    assert scores.score["simple"] > 0.85
    assert scores.score["naive"] < 0.6


def test_what_only_the_model_knows_the_model_predicts(tmp_path: Path) -> None:
    """The label is a random function of user and item, most pairs of which are new."""
    a, b = fields(4000)
    user, item = pairs(4000)
    click = (np.random.default_rng(7).random((300, 50)) < 0.4)[user, item]
    pipeline, options, splits = opened_log(tmp_path, click, a, b)
    logit_of = {
        tuple(row): 2.0 * float(label) - 1.0
        for part in (splits.train, splits.validation, splits.test)
        for batch in [part.__getitems__(range(len(part)))]
        for row, label in zip(batch["fields"][:, :2].tolist(), batch["labels"][:, 0], strict=True)
    }
    assert chosen(pipeline, options, splits, Knows(logit_of)).chosen == "model"


class TestRates:
    def test_the_naive_rung_is_the_baseline_of_the_report(self, tmp_path: Path) -> None:
        a, b = fields(1500)
        click = np.random.default_rng(1).random(1500) < 0.4
        _, _, splits = opened_log(tmp_path, click, a, b)
        batch = splits.test.__getitems__(range(len(splits.test)))
        model = _counted(splits.spec, count_in_folds(splits.train, splits.spec, 0))
        logits = model(*(batch[n] for n in ("fields", "events", "ages", "offsets")))
        rows, which = splits.test.rows, splits.test.which
        expected = rate_scores(splits.test.encoder, rows.user[which], rows.item[which], 0)
        assert logits.sigmoid()[:, 0].detach().numpy() == pytest.approx(expected, rel=1e-4)

    def test_codes_are_counted_by_fold(self, tmp_path: Path) -> None:
        a, b = fields(1500)
        click = np.random.default_rng(1).random(1500) < 0.4
        _, _, splits = opened_log(tmp_path, click, a, b)
        fold = np.arange(len(splits.train)) % FOLDS
        clicks, seen = count_codes(splits.train, fold, splits.spec)
        batch = splits.train.__getitems__(range(len(splits.train)))
        for code in (0, 5, 310, int(batch["fields"].max())):
            holds = (batch["fields"] == code).any(1).numpy()
            for part in range(FOLDS):
                rows = holds & (fold == part)
                assert seen[part, code, 0] == rows.sum()
                assert clicks[part, code, 0] == batch["labels"][rows, 0].sum()
        mean = clicks.sum((0, 1)) / seen.sum((0, 1))
        empty = smoothed_rates(clicks[0] * 0, seen[0] * 0)
        assert empty.shape == clicks[0].shape
        rates = smoothed_rates(clicks.sum(0), seen.sum(0))
        share = (clicks.sum(0) + 20 * mean) / (seen.sum(0) + 20)
        assert rates == pytest.approx(np.log(share / (1 - share)), rel=1e-4)


def test_trees_are_fitted_alike_twice(tmp_path: Path) -> None:
    a, b = fields(1000)
    click = np.random.default_rng(1).random(1000) < np.where((a + b) % 2, 0.9, 0.1)
    _, _, splits = opened_log(tmp_path, click, a, b)
    spec = splits.spec
    first, second = (
        fit_trees(splits.train, splits.validation, spec, 3, count_in_folds(splits.train, spec, 3))
        for _ in range(2)
    )
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_a_missing_library_of_the_system_is_one_line_before_the_training(monkeypatch) -> None:
    import builtins

    real = builtins.__import__

    def without(name: str, *rest: object, **named: object) -> object:
        if name == "lightgbm":
            raise OSError("libgomp.so.1: cannot open shared object file")
        return real(name, *rest, **named)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"LightGBM cannot be loaded .*apt install libgomp1"):
        check_trees()


def click_model(tasks: int = 2) -> SharedBottom:
    torch.manual_seed(0)
    layout = Layout([6], [1], sequences=0, tasks=tasks, ages=1)
    return SharedBottom(layout, width=4, bottom=(8,), towers=(4,)).eval()


def logits_of_codes(model: SharedBottom) -> np.ndarray:
    nothing = torch.zeros(0, dtype=torch.int64)
    with torch.no_grad():
        return model(torch.arange(6)[:, None], nothing, nothing, nothing).double().numpy()


class TestCalibration:
    def test_the_logits_of_one_task_are_scaled_and_shifted(self) -> None:
        model = click_model()
        before = logits_of_codes(model)
        model.towers.rescale(1, 0.25, -2.0)
        after = logits_of_codes(model)
        np.testing.assert_allclose(after[:, 0], before[:, 0])
        np.testing.assert_allclose(after[:, 1], 0.25 * before[:, 1] - 2, rtol=1e-5)

    def test_a_model_that_is_too_sure_gets_the_odds_that_labels_have(self) -> None:
        generator = np.random.default_rng(0)
        model, truth = click_model(1), generator.normal(size=(20_000, 1))
        labels = (generator.random((20_000, 1)) < 1 / (1 + np.exp(-truth))).astype(np.int8)
        labels[::7] = -1
        before = logits_of_codes(model)
        calibrate(model, 4 * truth + 1, labels)  # four times too sure, and shifted
        certainty = min((labels == 0).sum(), (labels == 1).sum())
        certainty = certainty / (certainty + 20)
        expected = before * 0.25**certainty - 0.25 * certainty
        np.testing.assert_allclose(logits_of_codes(model), expected, atol=0.03)

    def test_few_labels_change_little_and_logits_that_tell_nothing_stay(self) -> None:
        model = click_model(1)
        before = logits_of_codes(model)
        calibrate(model, np.array([[9.0], [-9.0]]), np.array([[0], [1]], np.int8))  # upside down
        np.testing.assert_array_equal(logits_of_codes(model), before)
        calibrate(model, np.array([[9.0], [-9.0]]), np.array([[1], [1]], np.int8))  # one label
        np.testing.assert_array_equal(logits_of_codes(model), before)
        calibrate(model, np.array([[1.0], [-1.0]]), np.array([[1], [0]], np.int8))
        slope = (logits_of_codes(model)[0] - logits_of_codes(model)[1]) / (before[0] - before[1])
        assert 1.01 < slope[0] < 1.2  # the fitted one is above 3, and counts 1 / 21


@pytest.mark.parametrize("kind", ["crossed", "factors"])
def test_additive_models_read_ages_and_those_of_older_runs_do_not(kind: str) -> None:
    spec = SimpleNamespace(layout=Layout([9, 7], [1, 1], 2, 1, 32))
    older, newer = (
        RankingRungs().empty("simple", facts, {}, spec)  # type: ignore[arg-type]
        for facts in ({"kind": kind}, {"kind": kind, "ages": True})
    )
    assert newer.state_dict().keys() - older.state_dict().keys() == {"recent_table.weight"}
