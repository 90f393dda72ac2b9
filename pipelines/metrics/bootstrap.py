"""Percentile intervals by a bootstrap over groups, such as patients, speakers or scenes.

Samples of one group rise and fall together, so entire groups are drawn with replacement, as often
as there are groups. Shapes: N samples, G groups, R draws, B draws computed at once.

Two ways to draw, for two kinds of scores:

- `draw_weights`: how often each sample is drawn, by the multinomial distribution. For scores with a
  weighted form, which then compute many draws at once.
- `draw_places`: which groups are drawn, in order, by uniform whole numbers. For sums over blocks of
  a time series.

A draw in which a score is undefined is NaN and does not count; where more than half of the draws
are undefined, so is the interval (`percentile_interval`)."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np

DRAWS = 1000
ENDS = (0.025, 0.975)  # of a 95 % interval
BLOCK_NUMBERS = 1 << 22  # weights in memory at once

Groups = Sequence[object] | np.ndarray | int  # of each sample, (N,); or N, all samples independent
Interval = tuple[float, float]
UNDEFINED: Interval = (float("nan"), float("nan"))


def bootstrap_intervals(
    statistics: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    groups: Groups,
    *,
    draws: int = DRAWS,
    ends: tuple[float, float] = ENDS,
    seed: int = 0,
    block: int | None = None,
    centred: Collection[str] = (),
) -> dict[str, Interval]:
    """Intervals of several scores, (lower end, upper end) by name.

    statistics: maps weights (B, N) to scores (B,) by name. groups: (N,), any values that sort, or N
    where all samples are independent. ends: shares of the draws below the ends of the interval.
    block: draws computed at once; by default as many as keep the weights below 2^22 numbers.
    centred: shares whose draws lie to one side of the score: see `centred_interval`."""
    parts = [statistics(weights) for weights in draw_weights(groups, draws, seed, block)]
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    count = groups if isinstance(groups, int) else len(groups)
    scores = statistics(np.ones((1, count))) if centred else {}
    return {
        name: centred_interval(draw, float(scores[name][0]), ends)
        if name in centred
        else percentile_interval(draw, ends)
        for name, draw in values.items()
    }


def interval_of_mean(
    values: np.ndarray, groups: Groups | None = None, *, draws: int = DRAWS, seed: int = 0
) -> Interval:
    """Interval of the mean of values (N,), by default all independent.

    >>> interval_of_mean(np.array([1.0, 1.0, 1.0]), ["p1", "p1", "p2"])
    (1.0, 1.0)
    """
    groups = len(values) if groups is None else groups

    def mean(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {"mean": weights @ values / weights.sum(1)}

    return bootstrap_intervals(mean, groups, draws=draws, seed=seed)["mean"]


def percentile_interval(values: np.ndarray, ends: tuple[float, float] = ENDS) -> Interval:
    """The quantiles `ends` of the values (R,) of all draws; NaN values do not count.

    Both ends are NaN where more than half of the values are NaN, or there are no values."""
    defined = values[~np.isnan(values)]
    if not len(defined) or 2 * len(defined) < len(values):
        return UNDEFINED
    low, high = np.quantile(defined, ends)
    return float(low), float(high)


def centred_interval(
    values: np.ndarray, score: float, ends: tuple[float, float] = ENDS
) -> Interval:
    """As `percentile_interval`, of draws (R,) of a share that are moved until their mean is its
    score.

    For means over labels, many of them rare: copies of a text push up the ranks of its rare labels,
    and labels that a draw lacks do not count, so that draws lie above the score, nearly all of them
    where there are few texts.
    """
    low, high = percentile_interval(values, ends)
    if np.isnan(low):
        return UNDEFINED
    moved = np.clip(np.array([low, high]) + (score - np.nanmean(values)), 0.0, 1.0)
    return float(moved[0]), float(moved[1])


def draw_weights(
    groups: Groups, draws: int, seed: int, block: int | None = None
) -> Iterator[np.ndarray]:
    """How often each sample is drawn: float64 (B, N), block after block, R rows in all.

    The weights of a row sum to N where all groups have one size. The numbers do not depend on the
    size of the blocks."""
    if isinstance(groups, int):
        member, group_count, sample_count = None, groups, groups
    else:
        _, member = np.unique(np.asarray(groups), return_inverse=True)
        group_count, sample_count = int(member.max(initial=-1)) + 1, len(member)
    generator = np.random.default_rng(seed)
    chances = np.full(group_count, 1 / max(group_count, 1))
    step = block or max(1, BLOCK_NUMBERS // max(sample_count, 1))
    for start in range(0, draws, step):
        counts = generator.multinomial(group_count, chances, size=min(step, draws - start))
        yield (counts if member is None else counts[:, member]).astype(np.float64)


def draw_places(group_count: int, draws: int, seed: int) -> np.ndarray:
    """Places of the groups that are drawn: int64 (R, G) from 0 to G - 1, with replacement."""
    return np.random.default_rng(seed).integers(0, group_count, (draws, group_count))
