"""Trials of a search: which there are, the next one, and training it.

They are stored by Optuna as lines of JSON (its journal), which several processes may write to.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, cast

import torch
from torch import nn

from ....base.account import opened
from ....base.errors import InputError, one_line
from ..command_line.checks import options_of_a_preset
from ..command_line.parsing import preset_options
from ..options import TrainOptions
from ..pipeline import AnyPipeline, OptionsT, Splits
from ..runs.loaded import pick_device
from ..search_space import Space, Value, declared_space, reopens, shared_space
from ..task import Task
from ..training.order import mix
from ..training.quick import completed, fit
from ..training.storage import MemoryStorage, Progress

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

_JOURNAL = "journal.jsonl"
_LEAST_TRIALS = 4  # whole trainings before others are ended early
_LEAST_EPOCHS = 2  # epochs, after those of the warm-up, before a training is ended early


@dataclass(frozen=True)
class Tried:
    """A trial that is over. score: None where it failed; of a pruned one, that of its last epoch.

    state: done, pruned (ended early, since it was worse than most at that epoch) or failed.
    """

    state: str
    values: Mapping[str, Value]
    score: float | None
    facts: Mapping[str, float]
    error: str | None


class Pruned(Exception):
    """The trial is worse than most others at this epoch."""


def open_study(home: Path, seed: int, warmup: int = 0) -> Study:
    """The study in a folder, a new one where there is none.

    seed: of the values that it asks for next. warmup: epochs whose scores say nothing yet. Raises
    InputError where its file cannot be read.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = str(home / _JOURNAL)
    try:
        return optuna.create_study(
            storage=JournalStorage(JournalFileBackend(path, JournalFileOpenLock(path))),
            sampler=optuna.samplers.TPESampler(seed=seed),
            pruner=optuna.pruners.MedianPruner(_LEAST_TRIALS, warmup + _LEAST_EPOCHS),
            study_name="tune",
            direction="minimize",
            load_if_exists=True,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: is no journal of trials ({one_line(error)[:100]}); choose another --output"
        ) from None


def take_up(study: Study, defaults: Mapping[str, Value]) -> None:
    """Let a new study begin with the task's own values, and one that was killed with the trials
    that were under way.
    """
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    if not trials:
        study.enqueue_trial(dict(defaults))
    for trial in trials:
        if trial.state == TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(dict(trial.params))


def tried(study: Study) -> list[Tried]:
    """The trials that are over, in their order; those that were killed do not count."""
    return [row for trial in study.get_trials(deepcopy=False) if (row := _tried(trial)) is not None]


def _tried(trial: FrozenTrial) -> Tried | None:
    states = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed"}
    state = states.get(trial.state.name)
    error = trial.user_attrs.get("error")
    if state is None or (state == "failed" and error is None):
        return None
    score = None
    if state == "done":
        score = trial.value
    elif state == "pruned" and trial.intermediate_values:
        score = trial.intermediate_values[max(trial.intermediate_values)]
    return Tried(state, trial.params, score, trial.user_attrs.get("facts", {}), error)


def default_space(task: Task, options: TrainOptions) -> Space:
    """What is searched without --space: options of training, and those that the task declares, but
    no option that was set by the user and none that the chosen model does not read.
    """
    space = {**shared_space(options), **declared_space(task.options)}
    defaults = {name: field.default for name, field in task.options.__dataclass_fields__.items()}
    return {
        name: searched
        for name, searched in space.items()
        if getattr(options, name) == defaults[name]
        and any(
            _fits(task, replace(options, **{name: value}))
            for value in searched.samples()
            if value != defaults[name]
        )
    }


def _fits(task: Task, options: TrainOptions) -> bool:
    try:
        check_options(task, options)
    except InputError:
        return False
    return True


def check_options(task: Task, options: TrainOptions) -> None:
    """The task's check of its options, as while the command line is read."""
    preset: Mapping[str, object] = {}
    if options.preset is not None:
        preset = preset_options(task, options.preset, getattr(options, "horizon", None))
    with options_of_a_preset(preset):
        task.check(options)


@dataclass(frozen=True)
class Trainings(Generic[OptionsT]):
    """What trains the trials, in this process or in others."""

    task: Task
    options: OptionsT
    """The values that all trials share; data names a path."""
    space: Space
    home: Path
    until: float | None
    """When no further trial begins, in seconds since the epoch."""

    def start(self) -> Callable[[int], Tried | None]:
        """The function that trains the trial of a number; None where the time is over."""
        pipeline = self.task.load()
        return self.start_with(pipeline, self._open(pipeline, self.options))

    def start_with(self, pipeline: AnyPipeline, splits: Splits) -> Callable[[int], Tried | None]:
        """As `start`, where the data is open."""
        again = reopens(self.space, self.task.options)

        def work(number: int) -> Tried | None:
            if self.until is not None and time.time() >= self.until:
                return None
            return self._try(pipeline, None if again else splits, number)

        return work

    def _open(self, pipeline: AnyPipeline, options: OptionsT) -> Splits:
        with opened(options.accept):
            return pipeline.open_data(options)

    def _try(self, pipeline: AnyPipeline, splits: Splits | None, number: int) -> Tried | None:
        """The next trial of the study. Its values follow from seed, number and the trials before,
        so that a search that was stopped goes on as the unbroken one.
        """
        from optuna.trial import TrialState

        seed = mix(self.options.seed, number, 5) % 2**32  # Optuna takes 32 bits
        study = open_study(self.home, seed, self.options.warmup)
        trial = study.ask()
        started, score, state = time.monotonic(), None, TrialState.FAIL
        facts: dict[str, float] = {}
        storage = _Reporting(trial, pipeline.monitor, self.options)
        try:
            values = {name: searched.suggest(trial, name) for name, searched in self.space.items()}
            model, facts = self._fit(pipeline, splits, values, storage)
            facts["weights"] = sum(weight.numel() for weight in model.parameters())
            score, state = facts.pop(f"validation_{pipeline.monitor}"), TrialState.COMPLETE
        except Pruned:
            facts, state = {"epochs": float(storage.epochs)}, TrialState.PRUNED
        except (InputError, torch.OutOfMemoryError) as error:
            trial.set_user_attr("error", one_line(error)[:300])
        trial.set_user_attr("facts", {**facts, "seconds": time.monotonic() - started})
        return _tried(study.tell(trial, score, state))

    def _fit(
        self,
        pipeline: AnyPipeline,
        splits: Splits | None,
        values: Mapping[str, Value],
        storage: MemoryStorage,
    ) -> tuple[nn.Module, dict[str, float]]:
        """Train with these values; the test part is not touched."""
        options = cast(OptionsT, replace(self.options, **values))
        check_options(self.task, options)
        parts = splits or self._open(pipeline, options)
        model, facts = fit(
            pipeline,
            options,
            parts.train,
            parts.spec,
            pick_device(options.accelerator),
            validation=parts.validation,
            storage=storage,
        )
        if f"validation_{pipeline.monitor}" not in facts:  # nothing was trained
            completed(pipeline, model, parts, options, facts)
        return model, facts


class _Reporting(MemoryStorage):
    """Tells Optuna the score of every epoch, and ends the training where Optuna says so."""

    def __init__(self, trial: Trial, monitor: str, options: TrainOptions) -> None:
        super().__init__()
        self.trial, self.name, self.options, self.epochs = trial, f"val_{monitor}", options, 0

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
        super().save(model, optimizer, progress)
        self.epochs = progress.epoch
        score = progress.history[-1][self.name]
        if not math.isfinite(score):
            return
        self.trial.report(score, progress.epoch)
        if progress.epoch < self.options.epochs and self.trial.should_prune():
            raise Pruned
