"""The table of settings that were trained with several seeds: means, paired differences to a
reference, their intervals, and what they show in words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..ladder import LEAST_BLOCKS, RUNGS, LadderScores
from ..options import RungName
from .seeded import MODEL, Seeded
from .table import t_interval

Interval = tuple[float, float]
ALL = "all settings"


@dataclass(frozen=True)
class Row:
    """A rung of a setting over its seeds, or one that all settings share (setting `ALL`).

    validation, test: (S,) by seed; interval: of the mean over seeds on the test part, over blocks
    of rows; gain, by_seed (S,): how much better it is than the reference on the test part, seed by
    seed; gain_interval: of the mean, from the same draws of blocks for both; seed_interval: of the
    mean, from pairs of equal seeds. Intervals hold 95 %; None where too little is known.
    """

    setting: str
    rung: RungName
    words: str
    validation: np.ndarray
    test: np.ndarray
    interval: Interval | None
    by_seed: np.ndarray
    gain_interval: Interval | None
    seed_interval: Interval | None
    chosen: int
    """Trainings whose ladder chose this rung, of `trainings`."""
    trainings: int
    stopped_by: float
    """Mean score that stops the trainings early, smaller is better: where the metric is the same
    for two settings, such as a share of wrong words after a short training, this is not."""
    seconds: float
    further: Mapping[str, np.ndarray]
    reference: bool

    @property
    def gain(self) -> float:
        """Mean over the seeds."""
        return float(self.by_seed.mean())

    @property
    def name(self) -> str:
        """What the table and the picture call it."""
        return self.setting if self.rung == MODEL else f"{self.words} ({self.setting})"


@dataclass(frozen=True)
class Compared:
    """What was compared. rows: the settings from the best on the validation part to the worst, then
    the rungs below the model, then blends.
    """

    metric: str
    larger_is_better: bool
    seeds: Sequence[int]
    blocks: int | None
    """Blocks of rows behind the intervals; None where settings have other ones."""
    rows: Sequence[Row]
    chosen: Mapping[str, Sequence[RungName]]
    """By setting, the rung that predicts after each of its trainings."""

    @property
    def over_blocks(self) -> bool:
        """Whether there are intervals over blocks of rows."""
        return self.blocks is not None and self.blocks >= LEAST_BLOCKS

    @property
    def best(self) -> Row:
        """The setting that is best on the validation part."""
        return self.rows[0]

    @property
    def reference(self) -> Row:
        """The row that all others are compared with."""
        return next(row for row in self.rows if row.reference)


def compare_trainings(
    trainings: Mapping[str, Sequence[Seeded]], seeds: Sequence[int], reference: str
) -> Compared:
    """The table of trainings.

    trainings: by setting, in the order of the seeds. reference: the setting whose model the other
    rows are compared with.
    """
    first = trainings[reference][0].test
    counts = {done.test.blocks for among in trainings.values() for done in among}
    means = {
        (setting, rung): among
        for setting, among in trainings.items()
        for rung in RUNGS
        if all(rung in done.test.score for done in among)
    }
    joined = _joined(means, first) if len(counts) == 1 else None
    base, repeated = trainings[reference], _repeated(trainings)
    shared = {rung for _, rung in repeated}
    rows = [
        _row(setting, rung, among, base, joined, f"{reference}\n{MODEL}")
        for (setting, rung), among in means.items()
        if (setting, rung) not in repeated
    ]
    chosen = {setting: [done.chosen for done in among] for setting, among in trainings.items()}
    rows = [_of_all(row, chosen) if row.rung in shared else row for row in rows]
    sign = -1 if first.larger_is_better else 1
    order = [MODEL, *(rung for rung in RUNGS if rung != MODEL)]
    rows.sort(
        key=lambda row: (
            order.index(row.rung),
            _last_if_nan(sign * row.validation.mean()),
            row.stopped_by,
        )
    )
    return Compared(
        first.metric,
        first.larger_is_better,
        list(seeds),
        counts.pop() if len(counts) == 1 else None,
        rows,
        chosen,
    )


def _of_all(row: Row, chosen: Mapping[str, Sequence[RungName]]) -> Row:
    """The row of a rung that all settings share."""
    among = [rung for rungs in chosen.values() for rung in rungs]
    return replace(row, setting=ALL, chosen=among.count(row.rung), trainings=len(among))


def _last_if_nan(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _repeated(trainings: Mapping[str, Sequence[Seeded]]) -> set[tuple[str, RungName]]:
    """Rungs of settings after the first that are as in the first, seed by seed: what is below the
    model often knows nothing of its options.
    """
    base, *others = trainings.values()
    among = [rung for rung in RUNGS if rung != MODEL and rung in base[0].test.score]
    same = {
        rung: all(
            _same(done, of_first, rung)
            for seeds in others
            for done, of_first in zip(seeds, base, strict=True)
        )
        for rung in among
    }
    return {(setting, rung) for setting in list(trainings)[1:] for rung in among if same[rung]}


def _same(one: Seeded, other: Seeded, rung: RungName) -> bool:
    """Whether a rung has the same scores in two trainings, on both parts."""
    return one.validation.get(rung) == other.validation.get(rung) and (
        one.test.score.get(rung) == other.test.score.get(rung)
    )


def _joined(
    rows: Mapping[tuple[str, RungName], Sequence[Seeded]], like: LadderScores
) -> LadderScores | None:
    """The means over the seeds of all rows as one set of scores, whose draws share their blocks;
    None where there are no draws.
    """
    if not like.draws:
        return None
    names = {key: "\n".join(key) for key in rows}
    return LadderScores(
        like.metric,
        like.larger_is_better,
        {names[key]: _mean_score(among, key[1]) for key, among in rows.items()},
        {
            names[key]: np.mean([done.test.draws[key[1]] for done in among], axis=0)
            for key, among in rows.items()
        },
        like.blocks,
    )


def _mean_score(among: Sequence[Seeded], rung: RungName) -> float:
    return float(np.mean([done.test.score[rung] for done in among]))


def _row(
    setting: str,
    rung: RungName,
    among: Sequence[Seeded],
    base: Sequence[Seeded],
    joined: LadderScores | None,
    reference: str,
) -> Row:
    test = np.array([done.test.score[rung] for done in among])
    of_reference = np.array([done.test.score[MODEL] for done in base])
    sign = 1 if among[0].test.larger_is_better else -1
    name = f"{setting}\n{rung}"
    by_seed = sign * (test - of_reference)
    within = t_interval(by_seed)
    itself, alone = name == reference, _joined({(setting, rung): among}, among[0].test)
    return Row(
        setting,
        rung,
        among[0].words[rung],
        np.array([done.validation[rung] for done in among]),
        test,
        alone.interval(name) if alone else None,
        by_seed,
        joined.gain_interval(name, reference) if joined and not itself else None,
        within if math.isfinite(within[0]) and not itself else None,
        sum(done.chosen == rung for done in among),
        len(among),
        float(np.mean([done.stopped_by for done in among])),
        float(np.mean([done.facts["seconds"] for done in among])),
        {
            title: np.array([done.test.further[title][rung] for done in among])
            for title, values in among[0].test.further.items()
            if rung in values
        },
        itself,
    )
