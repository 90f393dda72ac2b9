"""Trainings of a setting with a seed: each as `train` does it, on parts that do not depend on the
seed, with all rungs of the ladder scored on the validation and the test part.
"""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, NamedTuple, cast

import numpy as np
import torch
from torch import nn

from ....base.account import Account, opened
from ....base.errors import InputError
from ..compare_options import Setting
from ..ladder import LadderScores
from ..options import RungName
from ..pipeline import AnyPipeline, Context, OptionsT, Splits, build
from ..runs.ladder_files import fit_ladder
from ..runs.loaded import pick_device
from ..runs.paths import homes_of
from ..search_space import data_options, reopening
from ..task import Task
from ..training.quick import completed, figures_on, fit
from .jobs import Record

MODEL: RungName = "model"
Scores = Mapping[RungName, float]


class SeededJob(NamedTuple):
    """A setting that is trained with a seed."""

    setting: Setting
    seed: int

    @property
    def name(self) -> str:
        """Name of its file, without the ending: readable, and another one for each setting."""
        text = self.setting.name
        words = re.sub(r"[^A-Za-z0-9._=+-]+", "-", text)[:80]
        return f"{words}-{hashlib.sha256(text.encode()).hexdigest()[:8]}-seed{self.seed}"


@dataclass(frozen=True)
class Seeded:
    """A training that is done, and how good each rung is.

    words: what a sentence calls each rung. validation, further: see `LadderScores`; test: with the
    draws over blocks of rows, none of a task without a ladder.
    """

    words: Mapping[RungName, str]
    chosen: RungName
    validation: Scores
    test: LadderScores
    facts: Mapping[str, float]
    """Epochs, best_epoch, validation_NAME of early stopping, weights of the model and seconds."""

    @property
    def stopped_by(self) -> float:
        """The validation score that early stopping goes by, that of the epoch which was kept."""
        return next(value for name, value in self.facts.items() if name.startswith("validation_"))

    def to_record(self) -> dict[str, object]:
        """As the file of a job holds it. Draws are texts: a file has thousands of them."""
        test = self.test
        return {
            "metric": test.metric,
            "larger_is_better": test.larger_is_better,
            "blocks": test.blocks,
            "chosen": self.chosen,
            "words": dict(self.words),
            "validation": dict(self.validation),
            "test": dict(test.score),
            "further": {name: dict(values) for name, values in test.further.items()},
            "facts": dict(self.facts),
            "draws": {
                rung: " ".join(map(repr, values.tolist())) for rung, values in test.draws.items()
            },
        }

    @classmethod
    def of(cls, record: Record) -> Seeded:
        """The training that a record holds, in which JSON has null for NaN."""
        further = cast(Mapping[str, Mapping[RungName, float | None]], record["further"])
        draws = cast(Mapping[RungName, str], record["draws"])
        test = LadderScores(
            str(record["metric"]),
            bool(record["larger_is_better"]),
            _numbers(record["test"]),
            {rung: np.array(text.split(), float) for rung, text in draws.items()},
            cast(int, record["blocks"]),
            {name: _numbers(values) for name, values in further.items()},
        )
        return cls(
            cast(Mapping[RungName, str], record["words"]),
            str(record["chosen"]),
            _numbers(record["validation"]),
            test,
            _numbers(record["facts"]),
        )


def _numbers(values: object) -> dict[str, float]:
    stored = cast(Mapping[str, float | None], values)
    return {name: math.nan if value is None else value for name, value in stored.items()}


def scored_rows(splits: Splits) -> dict[str, object]:
    """What two settings must share to be compared: how many samples each part that is scored has,
    and which items.
    """
    digest = hashlib.sha256()
    for part in ("validation", "test"):
        for member in splits.members.get(part, ()):
            digest.update(repr((part, *member)).encode())
    sizes = {part: len(splits.part(part)) for part in ("validation", "test")}
    return {**sizes, "items": digest.hexdigest()}


@dataclass(frozen=True)
class SeededTrainings(Generic[OptionsT]):
    """What trains the settings, in this process or in others."""

    task: Task
    options: OptionsT
    """The options as given; data names a path, and the seed is that of the parts."""
    varied: Sequence[str]
    """The options in which settings differ."""
    rows: Mapping[str, object] = field(default_factory=dict)
    """The rows of the first setting, see `scored_rows`; all others must have the same."""
    parts: dict[tuple[object, ...], Splits] = field(default_factory=dict)
    """The data that was opened last."""

    def opened(self, pipeline: AnyPipeline, setting: Setting) -> Splits:
        """The data as a setting reads it."""
        again = reopening(self.varied, self.task.options)
        key = tuple(setting.changes[name] for name in again)
        if key not in self.parts:
            self.parts.clear()  # before the next ones are read: two may not fit into memory
            self.parts[key] = pipeline.open_data(setting.of(self.options))
        return self.parts[key]

    def check_models(self, pipeline: AnyPipeline, settings: Sequence[Setting]) -> None:
        """Build the model of each setting that reads the data as the first one does, so that
        options which make no model are an error before hours of training.
        """
        of_data = data_options(self.task.options)
        splits = self.opened(pipeline, settings[0])
        for setting in settings:
            if of_data.isdisjoint(setting.changes):
                try:
                    build(pipeline, setting.of(self.options), splits.spec)
                except InputError as error:
                    raise InputError(f"{setting.name}: {error}") from None

    def __call__(self, job: SeededJob) -> Record:
        """Train a setting with a seed; gives the record of its file."""
        pipeline = self.task.load()
        options = job.setting.of(self.options)
        with opened(options.accept, homes_of(options)) as account:
            splits = self.opened(pipeline, job.setting)
            if self.rows and (rows := scored_rows(splits)) != self.rows:
                counts = ", ".join(f"{rows[part]} {part}" for part in ("validation", "test"))
                raise InputError(
                    f"{job.setting.name}: is scored on other rows ({counts}) than the first "
                    "setting; such settings cannot be compared"
                )
            return self._train(pipeline, job, splits, account)

    def _train(
        self, pipeline: AnyPipeline, job: SeededJob, splits: Splits, account: Account
    ) -> Record:
        options = replace(job.setting.of(self.options), seed=job.seed)
        device, started = pick_device(options.accelerator), time.monotonic()
        try:
            if (rungs := pipeline.rungs(splits.spec)) is not None:
                # What could not be fitted after the training is an error now.
                rungs.prepare(splits, options)
            model, facts = fit(
                pipeline, options, splits.train, splits.spec, device, validation=splits.validation
            )
            facts["weights"] = float(sum(weight.numel() for weight in model.parameters()))
            done = self._scored(pipeline, model, splits, options, facts)
        except InputError as error:
            raise InputError(f"{job.setting.name}, seed {job.seed}: {error}") from None
        facts["seconds"] = time.monotonic() - started
        record = {"setting": job.setting.name, "seed": job.seed, **done.to_record()}
        return {**record, "account": account.to_json()}

    def _scored(
        self,
        pipeline: AnyPipeline,
        model: nn.Module,
        splits: Splits,
        options: OptionsT,
        facts: dict[str, float],
    ) -> Seeded:
        device = pick_device(options.accelerator)
        context = Context(options, splits.spec, {}, device)
        completed(pipeline, model, splits, options, facts)
        ladder = fit_ladder(pipeline, model, splits, context)
        rungs = pipeline.rungs(splits.spec)
        if ladder is None or rungs is None:
            # No ladder: what stops the training early scores the model, and there are no draws.
            figures = figures_on(pipeline, model, splits.test, options, device)
            monitor = pipeline.monitor
            further = {n: {MODEL: value} for n, value in figures.items() if n != monitor}
            test = LadderScores(monitor, False, {MODEL: figures[monitor]}, {}, 0, further)
            validation = {MODEL: facts[f"validation_{monitor}"]}
            return Seeded({MODEL: self.task.name}, MODEL, validation, test, facts)
        with torch.no_grad():
            test = rungs.scores(ladder.models, splits.test, context)
        stored = ladder.facts["rungs"]
        return Seeded(
            {rung: entry["short"] for rung, entry in stored.items()},
            ladder.chosen,
            {
                rung: math.nan if entry["validation"] is None else entry["validation"]
                for rung, entry in stored.items()
            },
            test,
            facts,
        )
