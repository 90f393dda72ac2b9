"""Trials as data sets: of files, or generated as they are needed.

Shapes: N trials of a part; arrays as in `data.trials.coding`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from ...base.account import note
from ...base.errors import InputError, fail
from ...base.files import write_text
from ...data.formats.tables import list_files
from ...data.text_files import line_encoding, line_parts, read_lines
from ...data.trials.coding import CodedTrials, coded
from ...data.trials.evaluate import Outcome, evaluate
from ...data.trials.files import ReadTrial, read_trials, trial_line
from ...data.trials.generate import trial
from ...data.trials.kinds import AS_TRAINED, TrialKind, TrialSplit, split_kinds
from ...data.trials.trial import NODES, Trial
from ..engine.pipeline import Splits
from ..engine.spec import Spec
from ..engine.subsets import own_or_shares, take_groups
from ..engine.training.order import mix
from .options import ReasoningOptions, TrialOptions

SAMPLE = "generated-trials.jsonl"
SUFFIXES = (".jsonl", ".ndjson", ".json")
TRAIN, VALIDATION, FIRST_LEVEL = 0, 1, 2
"""Streams of the generator."""
PARTS = ("train", "validation", "test")


class InputFacts(TypedDict):
    """What the model was trained on, as the run's card says it."""

    trials: str
    split: str
    rules: str


@dataclass(frozen=True, kw_only=True)
class ReasoningSpec(Spec):
    """What a run says of its trials; its model reads new ones without it.

    parts      how many trials each part has
    levels     what the trials of the test part are like, in their order
    generated  whether the training part is generated
    """

    input: InputFacts
    parts: dict[str, int]
    levels: list[str]
    generated: bool


class TrialPart:
    """Trials in memory, with what the evaluator says of them.

    arrays: the trials as `coded` gives them, where they are known.
    """

    def __init__(self, trials: Sequence[ReadTrial], arrays: CodedTrials | None = None) -> None:
        self.trials = list(trials)
        self.rules, self.scenes, self.answers = arrays or coded([entry.trial for entry in trials])

    def __len__(self) -> int:
        return len(self.trials)

    @cached_property
    def outcomes(self) -> list[Outcome]:
        """What the evaluator gives for each trial."""
        return [evaluate(entry.trial.rule, entry.trial.scene) for entry in self.trials]

    @property
    def levels(self) -> list[str]:
        """What each trial is like: its level in the file, or else the depth of its rule."""
        depths = {nodes: depth for depth, nodes in NODES.items()}
        return [entry.level or f"depth {depths[len(entry.trial.rule)]}" for entry in self.trials]

    def take(self, rows: np.ndarray) -> TrialPart:
        """Some of the trials."""
        arrays = CodedTrials(self.rules[rows], self.scenes[rows], self.answers[rows])
        part = TrialPart([self.trials[row] for row in rows.tolist()], arrays)
        part.outcomes = [self.outcomes[row] for row in rows.tolist()]
        return part

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """A batch: "rules", "scenes" and "answers"."""
        places = np.asarray(indices, np.int64)
        rules, scenes = self.rules[places], self.scenes[places]
        return _batch(rules, scenes, self.answers[places])

    @staticmethod
    def collate(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`__getitems__` returns a complete batch."""
        return batch


def _batch(rules: np.ndarray, scenes: np.ndarray, answers: np.ndarray) -> dict[str, Tensor]:
    """Tensors without the columns that are padding in all rows."""
    nodes = max(1, int((rules[..., 0] > 0).sum(1).max(initial=1)))
    objects = max(1, int((scenes[..., 0] > 0).sum(1).max(initial=1)))
    return {
        "rules": torch.from_numpy(np.ascontiguousarray(rules[:, :nodes])),
        "scenes": torch.from_numpy(np.ascontiguousarray(scenes[:, :objects])),
        "answers": torch.from_numpy(answers),
    }


class FreshTrials:
    """Trials that are generated when they are asked for: the same index gives the same trial, and
    no two epochs share an index.

    kind: what they are like; count: trials of an epoch.
    """

    def __init__(self, kind: TrialKind, seed: int, count: int) -> None:
        self.kind, self.seed, self.count = kind, seed, count

    def __len__(self) -> int:
        return self.count

    def trial(self, index: int) -> Trial:
        """The trial of that number, which may be any from 0."""
        return trial(self.kind, self.seed, TRAIN, index)

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """A batch as of `TrialPart`."""
        return _batch(*coded([self.trial(int(index)) for index in indices]))

    collate = staticmethod(TrialPart.collate)

    def steps(self, batch_size: int) -> int:
        """Optimiser steps of an epoch."""
        return -(-self.count // batch_size)

    def batches(self, batch_size: int, *, seed: int, epoch: int) -> list[np.ndarray]:
        """Indices of the batches of an epoch: those that follow on the epoch before."""
        indices = np.arange(epoch * self.count, (epoch + 1) * self.count)
        return [indices[start : start + batch_size] for start in range(0, self.count, batch_size)]

    def part(self, count: int) -> TrialPart:
        """The first trials of the first epoch, in memory."""
        indices = range(min(count, self.count))
        return TrialPart([generated(self.trial(index)) for index in indices])


ReasoningPart = TrialPart | FreshTrials


def generated(trial: Trial, level: str = "") -> ReadTrial:
    """A generated trial as one of a file."""
    outcome = evaluate(trial.rule, trial.scene)
    return ReadTrial(
        trial, outcome.answer, outcome.well_posed, "", "", level, has_answer=True, published=False
    )


def kinds_of(options: TrialOptions) -> TrialSplit:
    """The kinds of trials that options ask for."""
    return split_kinds(
        options.split,
        options.rules,
        most=options.most_distractors,
        distractors=options.test_distractors,
        depth=options.test_depth,
    )


def seed_of(seed: int) -> int:
    """The seed of the generator."""
    return mix(seed, 7)


def generated_lines(
    options: TrialOptions, seed: int, *, with_train: bool, published: bool = False
) -> list[str]:
    """The trials of a split as lines of a file: part by part, level by level."""
    split, seed = kinds_of(options), seed_of(seed)
    groups = [("validation", AS_TRAINED, split.train, VALIDATION, options.validation_trials)]
    if with_train:
        groups.insert(0, ("train", AS_TRAINED, split.train, TRAIN, options.trials))
    for number, (level, kind) in enumerate(split.test.items()):
        groups.append(("test", level, kind, FIRST_LEVEL + number, options.test_trials))
    lines = []
    for part, level, kind, stream, count in groups:
        name = part if part != "test" else f"test-{stream - FIRST_LEVEL}"
        for index in range(count):
            new = trial(kind, seed, stream, index)
            lines.append(
                trial_line(new, id=f"{name}-{index}", part=part, level=level, published=published)
            )
    return lines


def write_trials(path: Path, lines: Sequence[str]) -> Path:
    """Write lines of trials."""
    write_text(path, "\n".join(lines) + "\n")
    return path


def read_files(path: str) -> list[ReadTrial]:
    """The trials of a file, a folder or a pattern. Raises InputError for what cannot be read."""
    trials: list[ReadTrial] = []
    for file in list_files(path, SUFFIXES):
        encoding = line_encoding(Path(file))
        for part in line_parts(Path(file), 1 << 30):
            lines = read_lines(Path(file), part, encoding)
            trials += read_trials(file, lines, part.start)
    if not trials:
        raise fail(path, "has no trials")
    note("read", "trials", count=len(trials))
    if wrong := sum(entry.trial.answer != entry.by_rule for entry in trials):
        note("values", "answers of the file are not those that the rules give", count=wrong)
    if unclear := sum(not entry.well_posed for entry in trials):
        what = "trials ask about several objects at once; the first by row and column counts"
        note("items", what, count=unclear)
    return trials


def open_splits(
    options: ReasoningOptions, spec: ReasoningSpec | None, as_test: bool
) -> Splits[ReasoningSpec, ReasoningPart]:
    """The three parts: of --data, the training part generated where the data has none. as_test: all
    of the data is the test part.
    """
    assert options.data is not None
    trials = read_files(options.data)
    if as_test and spec is not None:
        part = TrialPart(trials)
        return Splits(part, part, part, spec)
    names = [entry.part for entry in trials]
    makes_train = "train" not in names and "test" in names and "validation" in names
    if makes_train:
        _refuse_other_split(options, trials)
        parts = {
            name: TrialPart([entry for entry in trials if entry.part == name]) for name in PARTS[1:]
        }
        fresh = FreshTrials(kinds_of(options).train, seed_of(options.seed), options.trials)
        train = fresh if options.fresh else fresh.part(options.trials)
        if (used := sum(map(len, parts.values()))) < len(trials):
            note("left out", "trials of no part, as others are of a part", count=len(trials) - used)
        validation, test = parts["validation"], parts["test"]
        note("assumed", f"the training part is generated: --split {options.split}, {options.rules}")
    else:
        train, validation, test = _own_parts(options, trials)
    spec = spec or ReasoningSpec(
        input=InputFacts(
            trials="generated" if makes_train else Path(options.data).name,
            split=options.split,
            rules=options.rules,
        ),
        parts={"train": len(train), "validation": len(validation), "test": len(test)},
        levels=list(dict.fromkeys(test.levels)),
        generated=makes_train,
    )
    return Splits(train, validation, test, spec)


def _own_parts(options: ReasoningOptions, trials: Sequence[ReadTrial]) -> list[TrialPart]:
    """Parts that the data names, or shares of it; equal trials are in one part."""
    keys = {entry.trial[:2]: row for row, entry in enumerate(trials)}
    groups = np.array([keys[entry.trial[:2]] for entry in trials])
    generator = np.random.default_rng(mix(options.seed, 3))
    subsets = own_or_shares(
        options.data,
        [entry.part for entry in trials],
        lambda rows, share, _: take_groups(rows, groups[rows], share, generator),
        test_share=options.test_share,
        validation_share=options.validation_share,
        items="trials",
    )
    trained = {trials[row].trial[:2] for row in subsets.train.tolist()}
    for name, rows in (("validation", subsets.validation), ("test", subsets.test)):
        if copies := sum(trials[row].trial[:2] in trained for row in rows.tolist()):
            note("items", f"trials of the {name} part are in the training part, too", count=copies)
    return [TrialPart([trials[row] for row in rows.tolist()]) for rows in subsets]


def _refuse_other_split(options: ReasoningOptions, trials: Sequence[ReadTrial]) -> None:
    """The training part is generated for the test part of a file: both must be of one split."""
    levels = {entry.level for entry in trials if entry.part == "test"}
    expected = set(kinds_of(options).test)
    if unknown := sorted(levels - expected):
        raise InputError(
            f"{options.data}: its test part has trials of the level {unknown[0]!r}, and --split "
            f"{options.split} has {', '.join(sorted(expected))}; name the split of the file, or "
            "give a file with a training part"
        )


def level_rows(part: TrialPart) -> Mapping[str, np.ndarray]:
    """The rows of each level, in the order in which they come."""
    levels = np.array(part.levels)
    return {level: np.flatnonzero(levels == level) for level in dict.fromkeys(part.levels)}
