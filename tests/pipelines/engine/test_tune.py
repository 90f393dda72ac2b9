"""The search for options: what it finds, what it stores, how it goes on, what it never reads."""

import csv
import inspect
import json
from dataclasses import fields
from importlib import import_module
from types import SimpleNamespace

import pytest
import yaml

from headwise.base import extras
from headwise.base.account import doubt
from headwise.base.errors import InputError
from headwise.pipelines import TASKS, load_task
from headwise.pipelines.engine.command_line import options_class, parse, run_verb
from headwise.pipelines.engine.command_line.option_help import option_groups, option_texts
from headwise.pipelines.engine.pipeline import Splits
from headwise.pipelines.engine.search_space import Choices, Range, parse_space, reopens
from headwise.tests.pipelines.engine.averages import Averages, AveragesOptions, call

optuna = pytest.importorskip("optuna", reason="the extra `tune` is not installed")
trials_of = pytest.importorskip("headwise.pipelines.engine.experiments.trials")


class Unreadable:
    """A test part that nobody may look at."""

    def __getattribute__(self, name):
        raise AssertionError(f"the test part was asked for {name}")

    def __len__(self):
        raise AssertionError("the test part was counted")


class Guarded(Averages):
    """A task whose test part must not be read."""

    def open_data(self, options, spec=None, *, as_test=False):
        splits = super().open_data(options, spec, as_test=as_test)
        return Splits(splits.train, splits.validation, Unreadable(), splits.spec)


class Parabola(Guarded):
    """Its score is known: (momentum - 0.3)^2."""

    def validate(self, model, batches, options):
        score = (options.momentum - 0.3) ** 2
        return {"score": score, "distance": score}


class Slow(Parabola):
    """Some trials are bad from the first epoch."""

    def validate(self, model, batches, options):
        score = 10.0 * options.momentum
        return {"score": score, "distance": score}


def rows_of(output):
    with open(output / "trials.csv") as file:
        return list(csv.DictReader(file))


def test_the_best_of_a_known_function_is_found(tmp_path):
    tuned = call(Parabola(), "tune", output=tmp_path, trials=20, space=["momentum=0:0.9"], epochs=1)
    assert tuned.options.momentum == pytest.approx(0.3, abs=0.06)
    assert tuned.score == pytest.approx((tuned.options.momentum - 0.3) ** 2)
    rows = rows_of(tmp_path)
    assert len(rows) == 20
    assert min(float(row["val_score"]) for row in rows) == tuned.score
    assert (tmp_path / "trials.png").stat().st_size > 1000
    assert "| 20 |" in (tmp_path / "trials.md").read_text()


def test_the_values_of_the_task_are_the_first_trial(tmp_path):
    call(Parabola(), "tune", output=tmp_path, trials=1, momentum=0.5, space=["momentum=0:0.9"])
    assert [float(row["momentum"]) for row in rows_of(tmp_path)] == [0.5]


def test_a_search_goes_on_and_ends_as_the_unbroken_one(tmp_path, capfd):
    common = {"space": ["momentum=0:0.9", "lr=0.01:1"], "epochs": 1}
    call(Parabola(), "tune", output=tmp_path / "broken", trials=3, **common)
    call(Parabola(), "tune", output=tmp_path / "broken", trials=7, **common)
    assert "3 of 7 trials were done before" in capfd.readouterr().err
    call(Parabola(), "tune", output=tmp_path / "whole", trials=7, **common)
    broken, unbroken = rows_of(tmp_path / "broken"), rows_of(tmp_path / "whole")
    assert [row["trial"] for row in broken] == [str(number) for number in range(1, 8)]
    for name in ("momentum", "lr", "val_score", "state"):
        assert [row[name] for row in broken] == [row[name] for row in unbroken]
    assert len({row["lr"] for row in unbroken}) == 7, "each trial draws values of its own"
    task = Parabola()
    call(task, "tune", output=tmp_path / "broken", trials=7, **common)
    assert not task.losses(), "all trials were done before"


def test_a_trial_that_was_killed_is_done_again(tmp_path):
    class Killed(Parabola):
        def validate(self, model, batches, options):
            raise KeyboardInterrupt

    common = {"output": tmp_path, "trials": 2, "space": ["momentum=0:0.9"], "momentum": 0.7}
    with pytest.raises(KeyboardInterrupt):
        call(Killed(), "tune", **common)
    call(Parabola(), "tune", **common)
    assert [row["trial"] for row in rows_of(tmp_path)] == ["1", "2"]
    assert float(rows_of(tmp_path)[0]["momentum"]) == 0.7


def test_trials_that_are_worse_than_most_are_ended_early_and_marked(tmp_path):
    call(Slow(), "tune", output=tmp_path, trials=16, space=["momentum=0:0.9"], epochs=5)
    rows = rows_of(tmp_path)
    pruned = [row for row in rows if row["state"] == "pruned"]
    assert pruned
    assert all(float(row["epochs"]) < 5 for row in pruned)
    assert all(float(row["epochs"]) == 5 for row in rows if row["state"] == "done")
    best = min(float(row["val_score"]) for row in rows if row["state"] == "done")
    assert all(float(row["val_score"]) > best for row in pruned)


def test_the_best_options_train_to_the_same_score(tmp_path, averages):
    sample = Averages().write_sample(tmp_path / "data")
    output = tmp_path / "search"
    tuned = call(Guarded(), "tune", data=str(sample), output=output, trials=4, epochs=4)
    assert tuned.config == output / "best.yaml"
    task = averages()
    options = parse(
        task.task, "train", [], config=tuned.config, values={"run": str(tmp_path / "run")}
    )
    assert options.lr == tuned.options.lr
    assert type(options) is AveragesOptions
    run = run_verb(task.task, "train", options)
    with open(run.path / "history.csv") as file:
        scores = [float(row["val_score"]) for row in csv.DictReader(file)]
    assert min(scores) == pytest.approx(tuned.score, rel=1e-9)
    assert yaml.safe_load(tuned.config.read_text())["data"] == str(sample)


@pytest.mark.parametrize("space", ["lr=0.01:1", "bias=0:1"])
def test_doubts_that_are_accepted_are_accepted_in_every_trial(tmp_path, space):
    class Doubtful(Guarded):
        def open_data(self, options, spec=None, *, as_test=False):
            doubt("copies", "rows.json", "a row is there twice")
            return super().open_data(options, spec, as_test=as_test)

    common = {"trials": 3, "epochs": 1, "space": [space]}
    with pytest.raises(InputError, match="--accept copies goes on"):
        call(Doubtful(), "tune", output=tmp_path / "refused", **common)
    call(Doubtful(), "tune", output=tmp_path / "taken", accept=["copies"], **common)
    assert [row["state"] for row in rows_of(tmp_path / "taken")] == ["done"] * 3
    (entry,) = json.loads((tmp_path / "taken" / "account.json").read_text())
    assert entry["topic"] == "accepted"


def test_data_is_read_once_unless_the_searched_options_change_it(tmp_path):
    class Counting(Guarded):
        reads = 0

        def open_data(self, options, spec=None, *, as_test=False):
            self.reads += 1
            return super().open_data(options, spec, as_test=as_test)

    for space, reads in (("lr=0.01:1", 1), ("bias=0:1", 4)):
        task = Counting()
        call(task, "tune", output=tmp_path / space[:2], trials=3, epochs=1, space=[space])
        assert task.reads == reads


def test_the_terminal_says_what_trains_the_best(tmp_path, capfd):
    call(Guarded(), "tune", output=tmp_path, trials=2, epochs=1)
    lines = capfd.readouterr().err.splitlines()
    assert lines[-1] == f"train the best: headwise averages train {tmp_path / 'best.yaml'}"
    assert lines[0].startswith("searched: lr=0.01:1:log batch_size=2,4,8 weight_decay=")
    assert json.loads((tmp_path / "account.json").read_text()) == []


def test_an_option_that_was_set_is_not_searched(tmp_path, capfd):
    call(Guarded(), "tune", output=tmp_path, trials=1, epochs=1, lr=0.05, batch_size=5)
    assert "searched: weight_decay=" in capfd.readouterr().err


def test_options_that_make_no_model_are_failed_trials(tmp_path):
    class Fragile(Parabola):
        def build_model(self, options, spec):
            if options.momentum == 0.5:
                raise ValueError("momentum cannot be 0.5")
            return super().build_model(options, spec)

    space = {"space": ["momentum=0.1,0.5"], "output": tmp_path, "epochs": 1}
    tuned = call(Fragile(), "tune", trials=6, **space)
    failed = [row for row in rows_of(tmp_path) if row["state"] == "failed"]
    assert failed
    assert all("momentum cannot be 0.5" in row["error"] for row in failed)
    assert tuned.options.momentum == 0.1
    only = {"space": ["momentum=0.5"], "output": tmp_path / "none", "epochs": 1}
    with pytest.raises(InputError, match=r"no trial could be trained: .*cannot be 0\.5"):
        call(Fragile(), "tune", trials=2, **only)


def test_another_space_or_other_options_need_another_folder(tmp_path):
    call(Parabola(), "tune", output=tmp_path, trials=1, epochs=1, space=["momentum=0:0.9"])
    for other in ({"space": ["momentum=0:0.5"]}, {"space": ["momentum=0:0.9"], "noise": 0.1}):
        with pytest.raises(InputError, match="other options or data"):
            call(Parabola(), "tune", output=tmp_path, trials=2, epochs=1, **other)


def test_no_trial_begins_after_the_timeout(tmp_path, monkeypatch):
    times = iter([0.0, 1.0, 100.0])  # of the beginning and of each trial
    clock = SimpleNamespace(time=lambda: next(times), monotonic=lambda: 0.0)
    for module in ("tune", "trials"):
        monkeypatch.setattr(f"headwise.pipelines.engine.experiments.{module}.time", clock)
    call(
        Parabola(),
        "tune",
        output=tmp_path,
        trials=9,
        epochs=1,
        timeout=50,
        space=["momentum=0:0.9"],
    )
    assert len(rows_of(tmp_path)) == 1


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("momentm=0:1", "did you mean momentum"),
        ("momentum", "should be name=low:high"),
        ("momentum=", "should be name=low:high"),
        ("momentum=1:0", "first number must be smaller"),
        ("momentum=a:1", "'a' should be a number"),
        ("momentum=0:inf", "'inf' should be a number"),
        ("momentum=0:1:log", "must begin above 0"),
        ("momentum=0.1:1:cubic", "log or linear"),
        ("batch_size=1.5:4", "'1.5' should be a whole number"),
        ("batch_size=8,8", "names a value twice"),
        ("extra=maybe", "should be on or off"),
        ("seed=1,2", "seed is the same for all trials"),
        ("epochs=1:5", "epochs is the same for all trials"),
        ("accept=copies", "accept is the same"),
    ],
)
def test_a_wrong_word_of_the_space_is_one_line(word, message):
    with pytest.raises(InputError, match=message) as error:
        call(Averages(), "tune", output="nowhere", space=[word])
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="there twice"):
        parse_space(["lr=1e-4:1e-2", "lr=1,2"], AveragesOptions)


def test_words_of_the_space_become_values_of_the_options():
    words = ["lr=1e-4:1e-2", "batch-size=2:8", "extra=on,off", "clip=none,1.5", "warmup=0:20"]
    assert parse_space(words, AveragesOptions) == {
        "lr": Range(1e-4, 1e-2, log=True),
        "batch_size": Range(2, 8),
        "extra": Choices((True, False)),
        "clip": Choices((None, 1.5)),
        "warmup": Range(0, 20),
    }
    options = load_task("forecast").options
    assert parse_space(["ffn=mlp,glu", "attention=star"], options) == {
        "ffn": Choices(("mlp", "glu")),
        "attention": Choices(("star",)),
    }
    with pytest.raises(InputError, match="should be one of mlp, glu, moe"):
        parse_space(["ffn=mpl"], options)
    with pytest.raises(InputError, match="is a list of values"):
        parse_space(["levels=0.5,0.9"], options)
    with pytest.raises(InputError, match="horizon is the same for all trials"):
        parse_space(["horizon=24,48"], options)


def test_data_is_read_again_only_where_the_space_asks_for_it():
    options = load_task("forecast").options
    assert not reopens(parse_space(["lr=1e-4:1e-2", "width=64,128"], options), options)
    assert reopens(parse_space(["lookback=48,96"], options), options)


# Options by which a task trains whose default method has no steps.
LEARNS = {"longcontext": {"method": "lychee"}}


@pytest.mark.parametrize("name", TASKS)
def test_what_a_task_searches_are_options_that_it_takes(name):
    task = load_task(name)
    options = task.options(**LEARNS.get(name, {}))
    space = trials_of.default_space(task, options)
    assert {*task.options.SEARCH, "lr", "batch_size", "weight_decay"} == space.keys()
    for option, searched in space.items():
        own = getattr(options, option)
        assert searched.holds(own), option
        again = parse_space([f"{option}={searched.words()}"], task.options)[option]
        assert all(again.holds(value) or isinstance(value, float) for value in searched.samples())


@pytest.mark.parametrize("name", TASKS)
def test_the_options_of_tune_are_those_of_training_and_documented(name):
    task = load_task(name)
    options = options_class(task, "tune")
    names = [field.name for field in fields(options)]
    assert {*names} == {
        *(field.name for field in fields(task.options)),
        *("output", "trials", "space", "timeout", "processes"),
    }
    assert [option for option, text in option_texts(options).items() if not text] == []
    grouped = [option for members in option_groups(options).values() for option in members]
    assert sorted(grouped) == sorted(names)
    verb = import_module(f"headwise.pipelines.{name}").tune
    assert "space" in inspect.signature(verb).parameters


def test_options_that_the_model_does_not_read_are_not_searched():
    task = load_task("wsi")
    space = trials_of.default_space(task, task.options(model="mean"))
    assert "branches" not in space
    assert "dropout" in space


def test_the_space_is_checked_before_anything_is_read(headwise):
    code, lines = headwise("forecast", "tune", "--output", "nowhere", "--space", "widht=1,2")
    assert (code, lines) == (
        2,
        ["headwise: --space widht=1,2: no option 'widht'; did you mean width?"],
    )


def test_a_missing_optuna_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(extras, "_is_installed", lambda module: False)
    with pytest.raises(InputError, match=r"tune needs the package optuna; pip install .*tune\]"):
        call(Averages(), "tune", output=tmp_path / "search")
    assert not (tmp_path / "search").exists()


def test_a_damaged_journal_is_one_line(tmp_path):
    common = {"output": tmp_path, "epochs": 1, "space": ["momentum=0:0.9"]}
    call(Parabola(), "tune", trials=1, **common)
    (journal,) = (tmp_path / "trials").glob("journal*")
    journal.write_text("no json\n" * 3)
    with pytest.raises(InputError, match="no journal of trials"):
        call(Parabola(), "tune", trials=2, **common)
