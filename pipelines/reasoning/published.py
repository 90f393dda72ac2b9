"""Files in the published form, beside trials that the generator of `--rules official` makes.

Trials with the same operators are generated, and the kinds of answers are compared by a chi-square
test. Trials of one cause differ in it by chance alone: a small p says that they differ in more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import numpy as np
import polars as pl

from ...data.trials.files import ReadTrial
from ...data.trials.generate import random_trial
from ...data.trials.kinds import TrialKind
from ...data.trials.trial import KINDS, Trial, kind_of_answer
from ..engine.spec import JsonValue
from .data import TrialPart

LEAST = 50
"""Trials that a comparison needs."""
USUAL = (10, 20, 30, 40)


@dataclass(frozen=True)
class PublishedFacts:
    """What is known of a file in the published form.

    agree: answers that the rules give; kinds, new_kinds: numbers of the kinds of answers in the
    file, and of as many generated trials; p: of the chi-square test; objects, new_objects: mean
    objects of a scene.
    """

    trials: int
    agree: int
    kinds: Sequence[int]
    new_kinds: Sequence[int]
    p: float
    objects: float
    new_objects: float

    def to_json(self) -> dict[str, JsonValue]:
        """As `metrics.json` holds it."""
        return {
            "trials": self.trials,
            "answers_by_rule": self.agree,
            "kinds": dict(zip(KINDS, self.kinds, strict=True)),
            "generated_kinds": dict(zip(KINDS, self.new_kinds, strict=True)),
            "p": self.p,
            "objects": self.objects,
            "generated_objects": self.new_objects,
        }

    def table(self) -> pl.DataFrame:
        """Kinds of answers and objects of both."""
        return pl.DataFrame(
            {
                "what": [*(f"answers: {kind}" for kind in KINDS), "mean objects of a scene"],
                "this file": [*map(float, self.kinds), self.objects],
                "generated": [*map(float, self.new_kinds), self.new_objects],
            }
        )

    @property
    def sentence(self) -> str:
        """Both findings in words."""
        return (
            f"The rules give {self.agree:,} of {self.trials:,} answers of the file; its kinds of "
            f"answers beside generated ones: chi-square p = {self.p:.2f}"
        )


def published_facts(part: TrialPart, seed: int) -> PublishedFacts | None:
    """What is known of the trials of a part that are in the published form; None for fewer than 50
    of them.
    """
    from scipy.stats import chi2_contingency

    trials = [entry for entry in part.trials if entry.published]
    if len(trials) < LEAST:
        return None
    new = alike(trials, seed)
    kinds = [_kinds([entry.trial for entry in trials]), _kinds(new)]
    filled = np.array(kinds)[:, np.sum(kinds, 0) > 0]
    tested = chi2_contingency(filled) if filled.shape[1] > 1 else None
    p = 1.0 if tested is None else float(tested.pvalue)  # pyright: ignore[reportAttributeAccessIssue]
    sizes = [len(entry.trial.scene) for entry in trials], [len(entry.scene) for entry in new]
    return PublishedFacts(
        len(trials),
        sum(entry.trial.answer == entry.by_rule for entry in trials),
        kinds[0],
        kinds[1],
        p,
        float(np.mean(sizes[0])),
        float(np.mean(sizes[1])),
    )


def _kinds(trials: Sequence[Trial]) -> list[int]:
    numbers = [kind_of_answer(trial.answer) for trial in trials]
    return np.bincount(numbers, minlength=len(KINDS)).tolist()


def alike(trials: Sequence[ReadTrial], seed: int) -> list[Trial]:
    """Trials of `--rules official` with the operators of others and about as many objects that
    nothing asks about.
    """
    kind, trials_alike = TrialKind("official"), []
    numbers = _distractors(trials)
    for index, entry in enumerate(trials):
        count = numbers[index]
        random = Random((seed << 64) | index)
        count = int(random.random() * 6) if count is None else count
        of_trial = replace(kind, fewest=count, most=count)
        operators = [node.operator for node in entry.trial.rule]
        trials_alike.append(random_trial(of_trial, random, operators))
    return trials_alike


def _distractors(trials: Sequence[ReadTrial]) -> list[int | None]:
    """The number of objects that nothing asks about, of each trial; None for any from 0 to 5.

    Trials of one level have one number, the nearest of those that the published data sets have.
    """
    levels: dict[tuple[str, int], list[int]] = {}
    for entry in trials:
        asked = {
            thing
            for thing in entry.trial.scene
            for node in entry.trial.rule
            for colour, letter in node.selectors
            if colour in (0, thing.colour) and letter in (0, thing.letter)
        }
        key = (entry.level, len(entry.trial.rule))
        levels.setdefault(key, []).append(len(entry.trial.scene) - len(asked))
    numbers: dict[tuple[str, int], int | None] = {}
    for key, others in levels.items():
        mean = float(np.mean(others))
        nearest = min(USUAL, key=lambda number: abs(number - mean))
        numbers[key] = None if max(others) <= 5 else nearest
    return [numbers[entry.level, len(entry.trial.rule)] for entry in trials]
