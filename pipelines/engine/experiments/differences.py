"""The table of settings that were trained with several seeds: means, paired differences to a
reference, their intervals, and what they show in words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from ..ladder import LEAST_BLOCKS, RUNGS, LadderScores
from ..options import RungName
from .seeded import MODEL, Seeded
from .table import t_interval, with_deviation

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
    rows.sort(key=lambda row: (order.index(row.rung), _last_if_nan(sign * row.validation.mean())))
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
    itself = name == reference
    return Row(
        setting,
        rung,
        among[0].words[rung],
        np.array([done.validation[rung] for done in among]),
        test,
        joined.interval(name) if joined else None,
        by_seed,
        joined.gain_interval(name, reference) if joined and not itself else None,
        within if math.isfinite(within[0]) and not itself else None,
        sum(done.chosen == rung for done in among),
        len(among),
        float(np.mean([done.facts["seconds"] for done in among])),
        {
            title: np.array([done.test.further[title][rung] for done in among])
            for title, values in among[0].test.further.items()
            if rung in values
        },
        itself,
    )


def finding(row: Row, compared: Compared) -> str:
    """In words: whether a row is better than the reference.

    Beyond doubt: the interval over blocks of rows excludes 0, and the difference has the same sign
    with every seed. Without such an interval the pairs of equal seeds say how it is on these rows,
    and nothing says how it is on others.
    """
    base, seeds = compared.reference, len(compared.seeds)
    pair = f"{row.name} and {base.name}"
    if not math.isfinite(row.gain):
        return f"{pair} cannot be compared: a score is not finite"
    if not row.by_seed.any():
        return f"{pair} are level: their scores are the same"
    word = "better" if row.gain > 0 else "worse"
    head = f"{row.name} is {word} than {base.name}"
    if row.gain_interval is not None:
        if _holds_zero(row.gain_interval):
            return f"{pair} are level: the interval of the difference holds 0"
        if not (np.sign(row.by_seed) == np.sign(row.gain)).all():
            return f"{head} on average, but not with every seed"
        return f"{head} beyond doubt" + ("" if seeds > 1 else ", with this one seed")
    if row.seed_interval is None:
        return f"{pair} cannot be told apart: one seed, and {_few(compared)}"
    if _holds_zero(row.seed_interval):
        return f"{pair} are level: the interval over {seeds} seeds holds 0"
    return f"{head} on these rows, whatever the seed; how it is on others is open: {_few(compared)}"


def findings_of(compared: Compared) -> list[str]:
    """What each setting, each rung that all settings share and the blend of the best setting show
    beside the reference.
    """
    return [
        finding(row, compared)
        for row in compared.rows
        if not row.reference and (row.rung == MODEL or row.setting in (ALL, compared.best.setting))
    ]


def best_words(compared: Compared) -> str:
    """Which setting is the best, and what predicts after its trainings."""
    best, chosen = compared.best, compared.chosen[compared.best.setting]
    text = f"best on the validation part: {best.name}"
    others = [row for row in compared.rows if row.rung != MODEL and row.rung in chosen]
    names = {row.rung: row.words for row in others if row.setting in (ALL, best.setting)}
    counts = [
        f"{words} in {chosen.count(rung)} of {len(chosen)} trainings"
        for rung, words in names.items()
    ]
    return f"{text}; its ladder predicts with {', '.join(counts)}" if counts else text


def _few(compared: Compared) -> str:
    if compared.blocks is None:
        return "settings with other blocks of rows"
    if compared.blocks == 0:
        return "no blocks of rows"
    return f"{compared.blocks} separate blocks of rows"


def _holds_zero(interval: Interval) -> bool:
    return interval[0] <= 0 <= interval[1]


def comparison_table(compared: Compared) -> pl.DataFrame:
    """All that is known of each row, as numbers."""
    metric = compared.metric
    rows = []
    for row in compared.rows:
        cells: dict[str, object] = {
            "setting": row.setting,
            "rung": row.rung,
            "what": row.words,
            "seeds": len(row.test),
            **_spread(f"validation_{metric}", row.validation),
            **_spread(metric, row.test),
            **_ends("interval", row.interval),
            "gain": row.gain,
            **_ends("gain_blocks", row.gain_interval),
            **_ends("gain_seeds", row.seed_interval),
            "better_seeds": int((row.by_seed > 0).sum()),
            "chosen": row.chosen,
            "trainings": row.trainings,
            "seconds": row.seconds,
        }
        for title, values in row.further.items():
            cells |= _spread(title, values)
        rows.append(cells)
    return pl.DataFrame(rows, infer_schema_length=None)


def _spread(name: str, values: np.ndarray) -> dict[str, float | None]:
    deviation = float(values.std(ddof=1)) if len(values) > 1 else None
    return {name: float(values.mean()), f"{name}_sd": deviation}


def _ends(name: str, interval: Interval | None) -> dict[str, float | None]:
    low, high = interval or (None, None)
    return {f"{name}_low": low, f"{name}_high": high}


def training_table(trainings: Mapping[str, Sequence[Seeded]], seeds: Sequence[int]) -> pl.DataFrame:
    """One row for each setting, seed and rung: scores on both parts, epochs and seconds."""
    rows = []
    for setting, among in trainings.items():
        for seed, done in zip(seeds, among, strict=True):
            for rung, score in done.test.score.items():
                further = {title: by.get(rung) for title, by in done.test.further.items()}
                rows.append(
                    {
                        "setting": setting,
                        "seed": seed,
                        "rung": rung,
                        "chosen": rung == done.chosen,
                        f"validation_{done.test.metric}": done.validation[rung],
                        done.test.metric: score,
                        **further,
                        **done.facts,
                    }
                )
    return pl.DataFrame(rows, infer_schema_length=None)


def written_rows(compared: Compared) -> list[list[str]]:
    """Cells of each row for the page and, the first five, for the terminal; see `header`."""
    lines, over_blocks = [], compared.over_blocks
    for row in compared.rows:
        spreads = [_spread("x", values) for values in (row.validation, row.test)]
        lines.append(
            [
                row.name,
                # A rung without any chance in it has no deviation.
                *(with_deviation(cells["x"], cells["x_sd"] or None) for cells in spreads),
                "reference" if row.reference else f"{row.gain:+.4f}",
                _span(row.gain_interval if over_blocks else row.seed_interval, sign=True),
                *([_span(row.seed_interval, sign=True)] if over_blocks else []),
                "" if row.reference else f"{int((row.by_seed > 0).sum())} of {len(row.test)}",
                f"{row.chosen} of {row.trainings}",
                _span(row.interval),
            ]
        )
    return lines


def header(compared: Compared) -> list[str]:
    """What the cells of `written_rows` are."""
    metric = compared.metric
    return [
        "setting",
        f"{metric}, validation",
        f"{metric}, test",
        "gain",
        *(["95 % over blocks", "95 % over seeds"] if compared.over_blocks else ["95 % over seeds"]),
        "seeds better",
        "chosen",
        f"95 % interval of {metric}",
    ]


def _span(interval: Interval | None, *, sign: bool = False) -> str:
    if interval is None:
        return ""
    low, high = (f"{end:+.4f}" if sign else f"{end:.4f}" for end in interval)
    return f"{low} to {high}"


def explanation(compared: Compared, options: Sequence[str]) -> str:
    """What the columns mean, for the page. options: those that were varied."""
    metric, count = compared.metric, len(compared.seeds)
    better = "larger" if compared.larger_is_better else "smaller"
    seeds = f"{count} seeds ({compared.seeds[0]} to {compared.seeds[-1]})"
    what = f"Settings of {', '.join(options)}" if options else "The options as they were given"
    text = (
        f"{what}, {seeds if count > 1 else f'seed {compared.seeds[0]}'}, all on the same rows; "
        f"{metric}, {better} is better: mean ± deviation over the seeds. Settings stand in the "
        "order of their validation scores, by which the best is chosen; the test part only says "
        f"how good it is. Gain: how much better than {compared.reference.name} on the test part. "
    )
    if compared.over_blocks:
        text += f"Over blocks: both on the same draws of {compared.blocks} blocks of rows. "
    else:
        text += f"There is no interval over blocks: {_few(compared)}. "
    if count > 1:
        text += "Over seeds: Student's t of the pairs of equal seeds, on these rows. "
    text += "Chosen: trainings whose ladder would predict with it. "
    if sum(row.rung == MODEL for row in compared.rows) > 2:
        text += (
            "Each interval is for one comparison; of many settings that are level, one in twenty "
            "looks different."
        )
    return text.strip()
