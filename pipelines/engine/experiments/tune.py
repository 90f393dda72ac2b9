"""The verb `tune`: a search for better options by their validation score."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from ....base.account import opened
from ....base.errors import InputError
from ....base.extras import check_extra
from ....base.files import write_json, write_text
from ...figures.search import SearchPoint, search_figure
from ...figures.style import save_png
from ..accounts import publish
from ..command_line.terminal import Progressbar, say
from ..options import FREE_ON_RESUME, TrainOptions
from ..pipeline import AnyPipeline
from ..processes import map_jobs
from ..runs.paths import as_typed, homes_of, with_absolute_paths
from ..runs.run_directory import dump_options
from ..search_space import Choices, Range, Space, parse_space, written
from ..tune_options import TuneOptions, training_options
from .jobs import check_plain, claimed, fingerprint_of, is_done
from .table import table_lines
from .trials import Trainings, Tried, default_space, open_study, take_up, tried

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What may differ between two calls that fill one folder.
_FREE = FREE_ON_RESUME | {"accelerator", "data", "preset"}


@dataclass(frozen=True)
class Tuned:
    """A search. options: the best ones; score: their validation score, smaller is better; trials:
    one row per training, as in trials.csv; config: the file that trains the best.
    """

    options: TrainOptions
    score: float
    trials: pl.DataFrame
    config: Path


def tune(pipeline: AnyPipeline, options: TuneOptions) -> Tuned:
    """Search for options with a better validation score; writes best.yaml, trials.csv, trials.md,
    trials.png, account.json and trials/ (the journal).

    options: an instance of the class that `tune_options` gives. Raises InputError where optuna is
    missing, where the data has no validation part, and where no trial could be trained.
    """
    check_extra("tune", "tune")
    plain = training_options(options, pipeline.task.options)
    check_plain(plain, "tune")
    absolute = with_absolute_paths(plain)
    try:
        with claimed(Path(options.output), inside="trials") as home:
            return _tune(pipeline, absolute, options, home)
    except InputError as error:
        raise as_typed(error, plain, absolute) from error


def _tune(pipeline: AnyPipeline, trained: TrainOptions, options: TuneOptions, home: Path) -> Tuned:
    output, task = Path(options.output), pipeline.task
    space = parse_space(options.space, task.options) or default_space(task, trained)
    if not space:
        raise InputError("tune: all options are set; say with --space what is searched")
    located = trained
    if trained.data is None:
        (output / "sample").mkdir(exist_ok=True)
        sample = pipeline.write_sample_for(trained, output / "sample")
        located = replace(trained, data=str(sample.resolve()))
    with opened(trained.accept, homes_of(located)) as account:
        splits = pipeline.open_data(located)
        publish(account, output / "account.json")
    if not len(splits.validation):
        raise InputError("tune: the data has no validation part, which options are chosen by")
    shown = {name: searched.words() for name, searched in space.items()}
    say("searched: " + " ".join(f"{name}={words}" for name, words in shown.items()))
    facts = {"spec": splits.spec.to_json(), "space": shown}
    fingerprint = fingerprint_of(trained, facts, _FREE)
    if not is_done(home / "search.json", fingerprint):
        write_json(home / "search.json", {"fingerprint": fingerprint, "space": shown})
    trainings = Trainings(task, located, space, home, _until(options))
    start = trainings.start
    if options.processes == 1:  # other processes read the data themselves
        start = partial(trainings.start_with, pipeline, splits)
    _train_all(trainings, start, options, pipeline.monitor)
    return _finish(pipeline, trained, space, output, tried(open_study(home, 0)))


def _until(options: TuneOptions) -> float | None:
    return None if options.timeout is None else time.time() + options.timeout


def _train_all(
    trainings: Trainings[TrainOptions],
    start: Callable[[], Callable[[int], Tried | None]],
    options: TuneOptions,
    monitor: str,
) -> None:
    """Do the trials that are left, with a line for each."""
    study = open_study(trainings.home, 0)
    values = {name: getattr(trainings.options, name) for name in trainings.space}
    defaults = {name: value for name, value in values.items() if trainings.space[name].holds(value)}
    take_up(study, defaults)
    before = len(tried(study))
    if before:
        say(f"{before} of {options.trials} trials were done before")
    numbers = range(before, options.trials)
    with Progressbar(total=len(numbers), unit="trial", desc="tune") as bar:
        for number, trial in zip(numbers, map_jobs(start, numbers, options.processes)):
            if trial is None:
                say(f"--timeout: stopped before trial {number + 1}")
                break
            say(f"trial {number + 1}/{options.trials}: {_words(trial, monitor)}")
            bar.update()


def _words(trial: Tried, monitor: str) -> str:
    """A trial on one line."""
    values = " ".join(f"{name}={written(value)}" for name, value in trial.values.items())
    if trial.state == "failed":
        return f"failed ({trial.error})  {values}"
    score = "" if trial.score is None else f"val_{monitor} {trial.score:.4f}"
    early = "" if trial.state == "done" else f"  pruned in epoch {trial.facts['epochs']:.0f}"
    return f"{score}{early}  {values}"


def _finish(
    pipeline: AnyPipeline, trained: TrainOptions, space: Space, output: Path, trials: list[Tried]
) -> Tuned:
    """Write the tables, the picture and the best options."""
    monitor = f"val_{pipeline.monitor}"
    table = trial_table(trials, list(space), monitor)
    write_text(output / "trials.csv", table.write_csv())
    finished = [trial for trial in trials if trial.state == "done" and trial.score is not None]
    if not finished:
        reason = next((trial.error for trial in trials if trial.error), "--timeout was too short")
        raise InputError(f"tune: no trial could be trained: {reason}")
    best = min(finished, key=lambda trial: trial.score)  # pyright: ignore
    assert best.score is not None
    chosen = replace(trained, run=None, resume=False, **best.values)
    config = output / "best.yaml"
    write_text(config, dump_options(chosen))
    number = trials.index(best) + 1
    write_text(output / "trials.md", _markdown(table, number, monitor, pipeline.task.name, config))
    save_png(_figure(trials, best, space, monitor), output / "trials.png")
    say(f"best: trial {number} of {len(trials)}: {_words(best, pipeline.monitor)}")
    say(f"table {output / 'trials.md'}")
    say(f"train the best: headwise {pipeline.task.name} train {config}")
    return Tuned(chosen, best.score, table, config)


def _figure(trials: list[Tried], best: Tried, space: Space, monitor: str) -> Figure:
    choices = {
        name: [written(value) for value in searched.values]
        for name, searched in space.items()
        if isinstance(searched, Choices)
    }
    logs = [name for name, s in space.items() if isinstance(s, Range) and s.log]
    points = []
    for trial in trials:
        values = {
            name: written(value) if name in choices else value
            for name, value in trial.values.items()
        }
        points.append(SearchPoint(values, trial.score, trial.state, trial is best))
    by_name = {name: choices.get(name) for name in space}
    return search_figure(points, monitor, by_name, logs)


def trial_table(trials: list[Tried], names: list[str], monitor: str) -> pl.DataFrame:
    """One row per trial: state, score, epochs, seconds and the value of each option."""
    rows = [
        {
            "trial": number,
            "state": trial.state,
            monitor: trial.score,
            "epochs": trial.facts.get("epochs"),
            "best_epoch": trial.facts.get("best_epoch"),
            "weights": trial.facts.get("weights"),
            "seconds": trial.facts.get("seconds"),
            **{name: trial.values.get(name) for name in names},
            "error": trial.error,
        }
        for number, trial in enumerate(trials, 1)
    ]
    return pl.DataFrame(rows, infer_schema_length=None, strict=False)


def _markdown(table: pl.DataFrame, best: int, monitor: str, task: str, config: Path) -> str:
    """The page of a search: the trials, the best ones first."""
    ranked = table.sort(
        pl.col("state").replace_strict({"done": 0, "pruned": 1, "failed": 2}), monitor
    )
    rows = [
        [
            "" if value is None else f"{value:.0f}" if name == "seconds" else written(value)
            for name, value in row.items()
        ]
        for row in ranked.iter_rows(named=True)
    ]
    lines = [
        f"# Search for options of {task}",
        "",
        f"{len(table)} trainings, the best ones first; trial {best} has the lowest {monitor}, on "
        "the validation part. A pruned one was ended early, since it was worse than most at that "
        "epoch; its score is that of its last epoch. The test part was not read.",
        "",
        f"`headwise {task} train {config}` trains the best.",
        "",
        *table_lines(table.columns, rows),
    ]
    return "\n".join(lines) + "\n"
