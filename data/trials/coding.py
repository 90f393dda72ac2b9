"""Trials as arrays.

Shapes: B trials, R nodes of the longest rule, O objects of the fullest scene (1 at least).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .trial import Trial

NODE_NUMBERS, OBJECT_NUMBERS = 5, 4


class CodedTrials(NamedTuple):
    """Trials in arrays that are padded with 0 at the end.

    rules: int64 (B, R, 5), of each node its operator, colour and letter of its first object, colour
    and letter of its second; scenes: int64 (B, O, 4), of each object its colour, letter, row and
    column; answers: int64 (B,). Colours, letters and operators are counted from 1.
    """

    rules: np.ndarray
    scenes: np.ndarray
    answers: np.ndarray


def coded(trials: Sequence[Trial]) -> CodedTrials:
    """Trials in arrays."""
    nodes = max((len(trial.rule) for trial in trials), default=1)
    objects = max((len(trial.scene) for trial in trials), default=0)
    rules = np.zeros((len(trials), nodes, NODE_NUMBERS), np.int64)
    scenes = np.zeros((len(trials), max(1, objects), OBJECT_NUMBERS), np.int64)
    for row, trial in enumerate(trials):
        numbers = []
        for operator, selectors in trial.rule:
            both = [number for selector in selectors for number in selector]
            numbers.append([operator, *both, *([0] * (NODE_NUMBERS - 1 - len(both)))])
        rules[row, : len(numbers)] = numbers
        if trial.scene:
            scenes[row, : len(trial.scene)] = [(c, k, y, x) for y, x, c, k in trial.scene]
    answers = np.array([trial.answer for trial in trials], np.int64)
    return CodedTrials(rules, scenes, answers)
