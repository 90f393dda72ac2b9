"""A comparison of settings in words and tables: which is the best, what is certain, all figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from .differences import ALL, Compared, Interval, Row
from .seeded import MODEL, Seeded
from .table import with_deviation


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
    if deviation is not None and (values == values[0]).all():
        deviation = 0.0  # without the rounding of the mean
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
    rounded = (round(end, 4) + 0.0 for end in interval)  # no minus before 0
    low, high = (f"{end:+.4f}" if sign else f"{end:.4f}" for end in rounded)
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
