"""The verb `compare` with --vary: what it trains, on which rows, what it finds and stores, and how
it goes on. By the tiny task, with a ladder around it.
"""

import csv
import json
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy.stats import t as student
from torch import nn

from headwise.base.account import doubt, note
from headwise.base.errors import InputError
from headwise.pipelines import TASKS, load_task
from headwise.pipelines.engine.command_line import options_class, parse, run_verb
from headwise.pipelines.engine.compare_options import (
    ComparisonOptions,
    comparison_class,
    reference_of,
    settings_of,
)
from headwise.pipelines.engine.inference import shards
from headwise.pipelines.engine.ladder import Rung, Rungs, drawn_scores
from headwise.pipelines.engine.pipeline import Splits
from headwise.pipelines.engine.search_space import Choices, parse_settings
from headwise.pipelines.metrics.bootstrap import DRAWS, draw_weights
from headwise.tests.pipelines.engine.averages import Averages, AveragesOptions, Rows, call
from headwise.tests.pipelines.engine.small_forecast import SMALL

RATES = ["lr=0.05,0.3"]


class Fixed(nn.Module):
    """A vector that does not depend on a training."""

    def __init__(self, vector):
        super().__init__()
        self.weight = nn.Parameter(torch.as_tensor(vector, dtype=torch.float32))

    def forward(self, rows):
        return self.weight - rows


class Halfway(nn.Module):
    """The blend."""

    def __init__(self, model, simple):
        super().__init__()
        self.model, self.simple = model, simple

    def forward(self, rows):
        return (self.model(rows) + self.simple(rows)) / 2


class AverageRungs(Rungs):
    """Zero, the first row of the training part, the vector, and a blend."""

    def __init__(self, pipeline):
        self.pipeline = pipeline

    def answer_words(self, options, spec):
        return "mean"

    def model_words(self, options):
        return "vector"

    def prepare(self, splits, options):
        note("assumed", "the first row is typical")

    def simple(self, model, splits, options, device):
        return {
            "naive": Rung("zero", Fixed([0.0, 0.0])),
            "simple": Rung("first row", Fixed(splits.train.rows[0])),
        }

    def blend(self, model, simple, splits, options, device):
        return Rung("halfway", Halfway(model, simple))

    def empty(self, name, facts, models, spec):
        return (
            Halfway(models["model"], models["simple"]) if name == "blend" else Fixed(torch.zeros(2))
        )

    def scores(self, models, dataset, context):
        errors = {
            name: model(dataset.rows).double().square().sum(1).numpy()
            for name, model in models.items()
        }
        self.pipeline.scored.append((dataset.name, context.options.seed, errors["model"]))
        return drawn_scores(
            "distance",
            {name: float(error.mean()) for name, error in errors.items()},
            {
                name: lambda weights, error=error: weights @ error / weights.sum(1)
                for name, error in errors.items()
            },
            len(dataset),
        )


class Laddered(Averages):
    """The tiny task with a ladder, whose seed decides which rows are in which part."""

    sizes = (20, 12, 10)

    def __init__(self, fails_at=None):
        super().__init__()
        self.trained, self.scored, self.reads, self.fails_at = [], [], [], fails_at

    def open_data(self, options, spec=None, *, as_test=False):
        self.reads.append((options.seed, options.bias))
        rows = np.random.default_rng(options.seed).normal(size=(sum(self.sizes), 2))
        ends = np.cumsum(self.sizes)[:-1]
        parts = np.split(rows.astype(np.float32), ends)
        sets = [Rows(name, part, []) for name, part in zip(("train", "validation", "test"), parts)]
        return Splits(*sets, spec or super().open_data(options).spec)

    def begin_epoch(self, model, optimizer, options, epoch):
        if epoch == 0:
            if len(self.trained) == self.fails_at:
                raise KeyboardInterrupt
            self.trained.append((options.seed, options.lr))

    def rungs(self, spec):
        return AverageRungs(self)


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Pictures take longer than these trainings: they are made and not drawn."""
    module = "headwise.pipelines.engine.experiments.settings"
    monkeypatch.setattr(f"{module}.save_png", lambda figure, path: path.write_text("undrawn"))


def compared(pipeline, tmp_path, **values):
    """The verb with a noise that lets seeds differ."""
    common = {"noise": 0.3, "accelerator": "cpu", "epochs": 2, "vary": RATES, "seeds": 2}
    return call(pipeline, "compare", output=tmp_path, **{**common, **values})


def rows_of(output, name="comparison.csv"):
    with open(output / name) as file:
        return list(csv.DictReader(file))


def without_seconds(output):
    rows = rows_of(output) + rows_of(output, "trainings.csv")
    return [{name: text for name, text in row.items() if name != "seconds"} for row in rows]


def test_every_setting_is_trained_with_every_seed_on_the_parts_of_the_first_seed(tmp_path):
    pipeline = Laddered()
    result = compared(pipeline, tmp_path, seed=7, seeds=3)
    assert sorted(pipeline.trained) == [(s, lr) for s in (7, 8, 9) for lr in (0.05, 0.3)]
    assert pipeline.reads == [(7, 0.0)], "the data is read once, and split by the first seed"
    assert len(result.trainings) == 3 * 2 * 4, "seeds, settings, rungs"
    assert (tmp_path / "comparison.png").exists()
    assert len(list((tmp_path / "trainings").glob("*.json"))) == 6
    (noted,) = json.loads((tmp_path / "account.json").read_text())
    assert noted["what"] == "the first row is typical", "what the trainings note, once"


def test_rungs_that_no_setting_changes_are_one_row_and_blends_stay_beside_their_setting(tmp_path):
    table = compared(Laddered(), tmp_path).table
    assert table.select("setting", "rung").rows() == [
        ("lr=0.3", "model"),
        ("lr=0.05", "model"),
        ("all settings", "naive"),
        ("all settings", "simple"),
        *((setting, "blend") for setting in table["setting"][4:]),
    ]
    assert set(table["setting"][4:]) == {"lr=0.05", "lr=0.3"}


def test_means_gains_and_intervals_are_those_of_the_rows(tmp_path):
    pipeline = Laddered()
    compared(pipeline, tmp_path, seeds=3)
    errors = {"lr=0.05": [], "lr=0.3": []}
    on_test = [error for part, _, error in pipeline.scored if part == "test"]
    for place, error in enumerate(on_test):
        errors[list(errors)[place % 2]].append(error)
    by_row = {name: np.stack(values) for name, values in errors.items()}
    weights = np.concatenate(list(draw_weights(10, DRAWS, seed=0)))
    differences = (by_row["lr=0.05"] - by_row["lr=0.3"]).mean(0)
    drawn = (weights * differences).sum(1) / 10
    row = next(r for r in rows_of(tmp_path) if (r["setting"], r["rung"]) == ("lr=0.3", "model"))
    assert float(row["distance"]) == pytest.approx(by_row["lr=0.3"].mean())
    assert float(row["distance_sd"]) == pytest.approx(by_row["lr=0.3"].mean(1).std(ddof=1))
    assert float(row["gain"]) == pytest.approx(differences.mean()), "above 0: better"
    ends = float(row["gain_blocks_low"]), float(row["gain_blocks_high"])
    assert ends == pytest.approx(tuple(np.quantile(drawn, (0.025, 0.975))))
    gains = by_row["lr=0.05"].mean(1) - by_row["lr=0.3"].mean(1)
    assert (float(row["gain_seeds_low"]), float(row["gain_seeds_high"])) == pytest.approx(
        student.interval(0.95, 2, gains.mean(), gains.std(ddof=1) / np.sqrt(3))
    )
    alone = (weights * by_row["lr=0.3"].mean(0)).sum(1) / 10
    assert (float(row["interval_low"]), float(row["interval_high"])) == pytest.approx(
        tuple(np.quantile(alone, (0.025, 0.975)))
    )
    reference = next(r for r in rows_of(tmp_path) if r["setting"] == "lr=0.05")
    assert reference["gain_blocks_low"] == reference["gain_seeds_low"] == ""


def test_the_best_options_train_to_the_same_scores(tmp_path, monkeypatch):
    data = Averages().write_sample(tmp_path / "data")
    output = tmp_path / "compared"
    result = compared(Laddered(), output, data=str(data), seed=11)
    assert result.config == output / "best.yaml"
    assert yaml.safe_load(result.config.read_text())["lr"] == 0.3
    task = Laddered()
    monkeypatch.setattr(shards, "load_task", lambda name: task.task)
    values = {"run": str(tmp_path / "run")}
    options = parse(task.task, "train", [], config=result.config, values=values)
    assert options == type(options)(**{**vars(result.options), "run": values["run"]})
    run = run_verb(task.task, "train", options)
    rungs = json.loads((run.path / "metrics.json").read_text())["ladder"]["rungs"]
    stored = json.loads((run.path / "ladder.json").read_text())["rungs"]
    trainings = {
        row["rung"]: row
        for row in rows_of(output, "trainings.csv")
        if (row["setting"], row["seed"]) == ("lr=0.3", "11")
    }
    assert trainings.keys() == rungs.keys() == {"naive", "simple", "model", "blend"}
    for rung, row in trainings.items():
        assert float(row["distance"]) == rungs[rung]["distance"]
        assert float(row["validation_distance"]) == stored[rung]["validation"]


def test_a_comparison_that_was_killed_goes_on_and_ends_as_the_unbroken_one(tmp_path, capfd):
    with pytest.raises(KeyboardInterrupt):
        compared(Laddered(fails_at=3), tmp_path / "broken")
    again = Laddered()
    compared(again, tmp_path / "broken")
    assert "3 of 4 trainings were done before" in capfd.readouterr().err
    assert len(again.trained) == 1
    compared(Laddered(), tmp_path / "unbroken")
    assert without_seconds(tmp_path / "broken") == without_seconds(tmp_path / "unbroken")


def test_more_seeds_and_values_train_only_what_is_new(tmp_path):
    compared(Laddered(), tmp_path)
    pipeline = Laddered()
    compared(pipeline, tmp_path, seeds=3, vary=["lr=0.05,0.3,0.1"])
    third = [(2023, lr) for lr in (0.05, 0.1, 0.3)]
    assert sorted(pipeline.trained) == [(2021, 0.1), (2022, 0.1), *third]


@pytest.mark.parametrize("other", [{"noise": 0.1}, {"epochs": 3}, {"seed": 2022}])
def test_other_options_and_another_split_need_another_folder(tmp_path, other):
    compared(Laddered(), tmp_path, seeds=2)
    with pytest.raises(InputError, match="other options or data"):
        compared(Laddered(), tmp_path, seeds=2, **other)


def test_settings_that_are_scored_on_other_rows_are_refused(tmp_path):
    class Shrinking(Laddered):
        def open_data(self, options, spec=None, *, as_test=False):
            self.sizes = (20, 12, 9) if options.bias else (20, 12, 10)
            return super().open_data(options, spec, as_test=as_test)

    with pytest.raises(InputError, match=r"bias=1.0: is scored on other rows .*9 test"):
        compared(Shrinking(), tmp_path, vary=["bias=0,1"])


def test_options_that_make_no_model_are_one_line_before_any_training(tmp_path):
    class Fragile(Laddered):
        def build_model(self, options, spec):
            if options.momentum == 0.5:
                raise ValueError("momentum cannot be 0.5")
            return super().build_model(options, spec)

    pipeline = Fragile()
    with pytest.raises(InputError, match=r"^momentum=0.5: .* make no model: momentum cannot be"):
        compared(pipeline, tmp_path, vary=["momentum=0,0.5"])
    assert not pipeline.trained


def test_data_is_read_once_for_each_value_of_an_option_of_the_data(tmp_path):
    pipeline = Laddered()
    compared(pipeline, tmp_path, vary=["bias=0,1", "lr=0.1,0.2"], seeds=2)
    assert pipeline.reads == [(2021, 0.0), (2021, 1.0)]
    assert len(pipeline.trained) == 8


def test_without_a_ladder_settings_are_compared_by_pairs_of_seeds(tmp_path, capfd):
    class Plain(Averages):
        def validate(self, model, batches, options):
            return {**super().validate(model, batches, options), "further": options.lr}

    result = compared(Plain(), tmp_path, seeds=3)
    (best, other) = result.table.rows(named=True)
    assert {best["setting"], other["setting"]} == {"lr=0.05", "lr=0.3"}
    assert best["validation_score"] < other["validation_score"]
    by_seed = {
        setting: result.trainings.filter(setting=setting).sort("seed")["score"].to_numpy()
        for setting in ("lr=0.05", "lr=0.3")
    }
    gains = by_seed["lr=0.05"] - by_seed["lr=0.3"]
    row = result.table.filter(setting="lr=0.3").row(0, named=True)
    assert row["gain"] == pytest.approx(gains.mean())
    assert (row["gain_seeds_low"], row["gain_seeds_high"]) == pytest.approx(
        student.interval(0.95, 2, gains.mean(), gains.std(ddof=1) / np.sqrt(3))
    )
    assert row["gain_blocks_low"] is None
    assert row["further"] == pytest.approx(0.3)
    page = (tmp_path / "comparison.md").read_text()
    assert "There is no interval over blocks: no blocks of rows." in page
    assert "beyond doubt" not in page
    assert "95 % over seeds" in capfd.readouterr().err


def test_the_test_score_without_a_ladder_is_that_of_the_test_part(tmp_path):
    weights = []

    class Kept(Averages):
        def validate(self, model, batches, options):
            weights.append(model.weight.detach().clone() if hasattr(model, "weight") else None)
            return super().validate(model, batches, options)

    pipeline = Kept()
    result = compared(pipeline, tmp_path, seeds=1, vary=(), epochs=1)
    data = json.loads((tmp_path / "sample" / "rows.json").read_text())
    vector = weights[-1].numpy()
    expected = np.square(vector - np.array(data["test"])).sum(1).mean()
    assert result.table["score"][0] == pytest.approx(expected, rel=1e-6)
    expected = np.square(vector - np.array(data["validation"])).sum(1).mean()
    assert result.table["validation_score"][0] == pytest.approx(expected, rel=1e-6)
    assert result.table["setting"].to_list() == ["as given"]


def test_doubts_that_are_accepted_are_accepted_in_every_training(tmp_path):
    class Doubtful(Laddered):
        def open_data(self, options, spec=None, *, as_test=False):
            doubt("copies", "rows.json", "a row is there twice")
            return super().open_data(options, spec, as_test=as_test)

    with pytest.raises(InputError, match="--accept copies goes on"):
        compared(Doubtful(), tmp_path / "refused", vary=["bias=0,1"])
    compared(Doubtful(), tmp_path / "taken", accept=["copies"], vary=["bias=0,1"])
    entries = json.loads((tmp_path / "taken" / "account.json").read_text())
    assert [entry["topic"] for entry in entries] == ["assumed", "accepted"]


def test_data_without_a_validation_part_is_one_line(tmp_path):
    class Without(Laddered):
        sizes = (20, 0, 10)

    with pytest.raises(InputError, match="compare: the data has no validation part"):
        compared(Without(), tmp_path)


def test_the_terminal_says_what_was_found_and_what_trains_the_best(tmp_path, capfd):
    compared(Laddered(), tmp_path, against=["lr=0.3"])
    lines = capfd.readouterr().err.splitlines()
    assert lines[-1] == f"train the best: headwise averages train {tmp_path / 'best.yaml'}"
    assert any(line.startswith("best on the validation part: lr=0.3") for line in lines)
    assert "lr=0.05 is worse than lr=0.3 beyond doubt" in lines
    assert any(line.startswith("lr=0.05, seed 2021: distance ") for line in lines)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["momentm=0,1"], "no option 'momentm'; did you mean momentum?"),
        (["momentum"], "should be name=value,value"),
        (["momentum=0:1"], "a range names no values; write them as momentum=value,value"),
        (["batch_size=2,four"], "'four' should be a whole number"),
        (["extra=maybe"], "should be on or off"),
        (["lr=0.1,1e-1"], "names a value twice"),
        (["lr=0.1", "lr=0.2"], "lr is there twice"),
        (["seed=1,2"], "trained with the same seeds, see --seeds"),
        (["run=a,b"], "run is the same for all settings"),
        (["accept=copies"], "accept is the same for all settings"),
        (["lr=-1,1"], "lr=-1.0: --lr -1.0: must be a positive number"),
    ],
)
def test_wrong_words_are_one_line_before_anything_is_read(tmp_path, words, message):
    with pytest.raises(InputError, match=message.replace("?", r"\?")) as error:
        call(Laddered(), "compare", output=tmp_path / "none", vary=words)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "none").exists()


def test_options_that_only_another_verb_reads_are_refused(tmp_path):
    for values in ({"run": "x"}, {"keep": 3}, {"seeds": 0}, {"processes": 0}):
        with pytest.raises(InputError, match=f"--{next(iter(values))}"):
            call(Laddered(), "compare", output=tmp_path / "none", **values)
    with pytest.raises(InputError, match="compare: trains in 32 bits on one device"):
        call(Laddered(), "compare", output=tmp_path / "none", devices=2)


def test_settings_are_the_combinations_in_the_order_of_the_words():
    settings = settings_of(["lr=0.1,0.2", "extra=on,off"], AveragesOptions)
    names = [setting.name for setting in settings]
    assert names == [f"lr={lr} extra={extra}" for lr in (0.1, 0.2) for extra in ("on", "off")]
    assert settings[1].of(AveragesOptions()).extra is False
    assert settings[2].of(AveragesOptions()).lr == 0.2
    close = settings_of(["lr=0.1,0.100001"], AveragesOptions)
    assert len({setting.name for setting in close}) == 2


def test_the_reference_is_the_setting_that_the_words_fit():
    settings = settings_of(["lr=0.1,0.2", "extra=on,off"], AveragesOptions)
    assert reference_of((), settings, AveragesOptions) is settings[0]
    words = ["extra=off", "lr=2e-1"]
    assert reference_of(words, settings, AveragesOptions) is settings[3]
    for words, message in (
        (["lr=0.2"], "fits 2 settings: lr=0.2 extra=on; lr=0.2 extra=off"),
        (["lr=0.3"], "is none of the settings: lr=0.1"),
        (["bias=0"], "is none of the settings"),
        (["lr=x"], "--against lr=x: 'x' should be a number"),
    ):
        with pytest.raises(InputError, match=message):
            reference_of(words, settings, AveragesOptions)


def test_epochs_and_what_leaves_the_rows_as_they_are_may_be_varied():
    words = ["epochs=1,2", "lookback=24,48", "max_steps=none,5"]
    assert parse_settings(words, load_task("forecast").options) == {
        "epochs": Choices((1, 2)),
        "lookback": Choices((24, 48)),
        "max_steps": Choices((None, 5)),
    }
    assert parse_settings(["balanced=on,off"], load_task("medical").options)
    for task, word in (("forecast", "horizon=1,2"), ("medical", "test_share=0.1,0.2")):
        with pytest.raises(InputError, match="is the same for all settings"):
            parse_settings([word], load_task(task).options)


def test_a_word_that_is_repeated_adds_to_the_first():
    task = load_task("forecast")
    words = ["--vary", "lr=1e-3,1e-4", "--output", "x", "--vary=layers=1,2", "width=8", "--lr", "1"]
    options = parse(task, "compare", words)
    assert options.vary == ("lr=1e-3,1e-4", "layers=1,2", "width=8")
    assert (options.output, options.lr) == ("x", 1.0)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_compares_settings_of_its_training(name):
    task = load_task(name)
    # A task whose default method has no steps trains by another one.
    learns = {"method": "lychee"} if name == "longcontext" else {}
    words = ["--output", "x", "--vary", "lr=1e-3,1e-4", "--seeds", "2"]
    options = parse(task, "compare", words, values=learns)
    assert isinstance(options, ComparisonOptions)
    assert isinstance(options, task.options)
    values = {"output": "x", "vary": ["lr=1"], **learns}
    assert parse(task, "compare", [], values=values).vary == ("lr=1",)
    kind = comparison_class(task.options)
    own = {"output", "vary", "seeds", "against", "processes"}
    assert {f.name for f in fields(kind)} == own | {f.name for f in fields(task.options)}
    # Without --vary, a verb of this name that the task has stays what it was.
    assert options_class(task, "compare") is (
        task.verbs["compare"].options if "compare" in task.verbs else kind
    )
    assert callable(import_module(f"headwise.pipelines.{name}").compare)


def test_what_is_varied_may_stand_in_a_file(tmp_path):
    config = tmp_path / "compare.yaml"
    config.write_text("output: x\nvary: [lr=1e-3]\n")
    assert isinstance(parse(load_task("reid"), "compare", [], config=config), ComparisonOptions)


def test_options_that_only_some_settings_read_are_checked_setting_by_setting():
    task = load_task("wsi")
    words = ["--output", "x", "--vary", "model=mean,acmil", "--branches", "3"]
    with pytest.raises(InputError, match=r"^model=mean: --branches: is read by acmil"):
        parse(task, "compare", words)
    given = parse(task, "compare", [*words[:3], "model=acmil", "--branches", "3"])
    assert given.branches == 3


@pytest.mark.slow
def test_processes_give_what_one_gives(tmp_path):
    from headwise import pipelines

    data = load_task("forecast").load().write_sample(tmp_path)
    values = {**SMALL, "data": str(data), "vary": ["lr=1e-3,1e-2"], "seeds": 1}
    for processes in (1, 2):
        output = str(tmp_path / f"by{processes}")
        pipelines.forecast.compare(output=output, processes=processes, **values)
    assert without_seconds(Path(tmp_path / "by1")) == without_seconds(Path(tmp_path / "by2"))
