"""Biases of a judge that compares two answers: for the place, against its own word, for length.

Shapes: N judgements of P pairs. A pair is complete if it was judged in both orders; only complete
pairs say anything about places, since else the better answers may stand first more often. Repeated
judgements of one order count as one, their mean. All intervals draw pairs with replacement.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from .bootstrap import DRAWS, UNDEFINED, Interval, bootstrap_intervals, interval_of_mean

RIDGE = 0.01  # of the squared coefficients: finite where lengths part the answers perfectly
STEPS, LONGEST_STEP, CLOSE = 60, 3.0, 1e-9  # of Newton's method


class Estimate(NamedTuple):
    """A figure with the ends of its 95 % interval (NaN where undefined), and how many pairs it is
    of.
    """

    value: float
    low: float
    high: float
    pairs: int


NOTHING = Estimate(float("nan"), *UNDEFINED, 0)


@dataclass(frozen=True)
class JudgedPairs:
    """The judgements of one judge, each array (N,).

    pair: any number of each pair. swapped: which of the two orders. preference: 1 for the answer
    shown first, -1 for the second, 0 for a tie. log_ratio: ln(length of the first / of the second),
    NaN if unknown. human: as preference, NaN if unknown. equal_content: whether both say the same.
    padded: 1 if the first is the second with sentences repeated, -1 the other way round, else 0.
    """

    pair: np.ndarray
    swapped: np.ndarray
    preference: np.ndarray
    log_ratio: np.ndarray
    human: np.ndarray
    equal_content: np.ndarray
    padded: np.ndarray

    def where(self, chosen: np.ndarray) -> JudgedPairs:
        """Some of the judgements; chosen: bool (N,)."""
        return JudgedPairs(**{name: values[chosen] for name, values in vars(self).items()})


class Orders(NamedTuple):
    """Complete pairs, (C,): the shares of judgements that prefer the first, tie and prefer the
    second, (C, 3) for each of the two orders.
    """

    plain: np.ndarray
    swapped: np.ndarray


def orders_of(judged: JudgedPairs) -> Orders:
    """What was said of each complete pair, in both orders."""
    if not len(judged.pair):
        return Orders(np.zeros((0, 3)), np.zeros((0, 3)))
    _, pair = np.unique(judged.pair, return_inverse=True)
    counts = np.zeros((2, int(pair.max()) + 1, 3))
    column = (1 - judged.preference).astype(np.int64)  # first, tie, second
    np.add.at(counts, (judged.swapped.astype(np.int64), pair, column), 1)
    complete = (counts.sum(2) > 0).all(0)
    shares = counts[:, complete] / counts[:, complete].sum(2, keepdims=True)
    return Orders(shares[0], shares[1])


def position_bias(orders: Orders, *, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """P(the answer shown first is preferred) - 1/2 over both orders of each pair; ties count half.

    0 without bias, 1/2 for a judge that always takes the first, -1/2 for the second. A judge that
    says the opposite in the other order has exactly 0, whatever it prefers.
    """
    both = orders.plain + orders.swapped
    return _mean((both[:, 0] - both[:, 2]) / 4, draws, seed)


def consistency(orders: Orders, *, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """P(judge(a, b) = -judge(b, a)): how often both orders name one winner, or tie both times."""
    return _mean((orders.plain * orders.swapped[:, ::-1]).sum(1), draws, seed)


def contradictions(orders: Orders) -> dict[str, float]:
    """Of all complete pairs, the shares that are inconsistent, by kind: the first is preferred both
    times, the second both times, a tie once.
    """
    first, tie, second = (orders.plain * orders.swapped).T
    one_tie = orders.plain[:, 1] + orders.swapped[:, 1] - 2 * tie
    named = {"first_both_times": first, "second_both_times": second, "tie_once": one_tie}
    return {name: float(share.mean()) if len(share) else np.nan for name, share in named.items()}


def _mean(values: np.ndarray, draws: int, seed: int) -> Estimate:
    if not len(values):
        return NOTHING
    ends = interval_of_mean(values, draws=draws, seed=seed) if len(values) > 1 else UNDEFINED
    return Estimate(float(values.mean()) + 0.0, *ends, len(values))


def length_slope(
    judged: JudgedPairs, *, draws: int = DRAWS, seed: int = 0
) -> tuple[Estimate, Estimate]:
    """The slope and the constant of P(first preferred) = sigmoid(constant + slope · log_ratio).

    A slope of 0: length does not matter. An answer that is twice as long has exp(slope · ln 2)
    times the odds. The constant is a preference for the first place at equal lengths. Ties count
    half. A penalty of RIDGE · (constant² + slope²) / 2 on the summed log loss keeps both finite
    where every longer answer wins. Undefined where all lengths are equal or unknown.
    """
    known = judged.where(np.isfinite(judged.log_ratio))
    if not len(known.pair) or not known.log_ratio.any():
        return NOTHING, NOTHING
    x, y = known.log_ratio, (known.preference + 1) / 2
    start = fit_logistic(x, y, np.ones((1, len(x))), np.zeros((1, 2)))
    pairs = len(np.unique(known.pair))

    def statistics(weights: np.ndarray) -> Mapping[str, np.ndarray]:
        constant, slope = fit_logistic(x, y, weights, np.repeat(start, len(weights), 0)).T
        return {"constant": constant, "slope": slope}

    intervals: Mapping[str, Interval] = {"constant": UNDEFINED, "slope": UNDEFINED}
    if pairs > 1:
        intervals = bootstrap_intervals(statistics, known.pair, draws=draws, seed=seed)
    constant, slope = (float(value) for value in start[0])
    return (
        Estimate(slope, *intervals["slope"], pairs),
        Estimate(constant, *intervals["constant"], pairs),
    )


def fit_logistic(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray, start: np.ndarray
) -> np.ndarray:
    """Constants and slopes (B, 2) of logistic regressions with a small penalty, by Newton's method.

    x, y: (N,), y from 0 to 1; weights: (B, N); start: (B, 2).
    """
    coefficients = start.copy()
    for _ in range(STEPS):
        predicted = 1 / (1 + np.exp(-(coefficients[:, :1] + coefficients[:, 1:] * x)))
        rest = weights * (predicted - y)
        spread = weights * predicted * (1 - predicted)
        slope = np.stack([rest.sum(1), rest @ x], 1) + RIDGE * coefficients
        a, b, c = spread.sum(1) + RIDGE, spread @ x, spread @ x**2 + RIDGE
        step = np.stack([c * slope[:, 0] - b * slope[:, 1], a * slope[:, 1] - b * slope[:, 0]], 1)
        step /= (a * c - b**2)[:, None]
        length = np.linalg.norm(step, axis=1, keepdims=True)
        step *= np.minimum(1, LONGEST_STEP / np.maximum(length, CLOSE))
        coefficients -= step
        if length.max(initial=0) < CLOSE:
            break
    return coefficients


def padding_gain(judged: JudgedPairs, *, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """P(the answer with repeated sentences is preferred) - 1/2; ties count half. Above 0 the judge
    rewards length without content.
    """
    padded = judged.where(judged.padded != 0)
    if not len(padded.pair):
        return NOTHING
    _, pair = np.unique(padded.pair, return_inverse=True)
    gain = padded.preference * padded.padded / 2
    # Each order has half of a pair's say, also where one of them was asked more often.
    by_order = [_by_pair(gain, pair, padded.swapped == swapped) for swapped in (False, True)]
    return _mean(np.nanmean(np.stack(by_order), axis=0), draws, seed)


def _by_pair(values: np.ndarray, pair: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Mean of the chosen values of each pair, NaN where there is none."""
    count = np.bincount(pair[chosen], minlength=int(pair.max()) + 1)
    total = np.bincount(pair[chosen], values[chosen], minlength=len(count))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


class Agreement(NamedTuple):
    """Agreement with people: the share of equal judgements, where a tie against a winner is half
    right; and Cohen's kappa of first, second and tie, 0 for chance, NaN where all say one thing.
    """

    share: Estimate
    kappa: float


def without_conflicts(judged: JudgedPairs) -> tuple[JudgedPairs, int]:
    """The judgements without the people's for pairs of which both answers are said to be the better
    by people, and how many such pairs there are: their column may not follow the order of the row.
    """
    if not len(judged.pair):
        return judged, 0
    _, pair = np.unique(judged.pair, return_inverse=True)
    human = judged.human * np.where(judged.swapped, -1, 1)
    for_one, for_other = (np.bincount(pair[human == side]) for side in (1, -1))
    both = np.flatnonzero(_padded(for_one, len(pair)) * _padded(for_other, len(pair)))
    conflicting = np.isin(pair, both)
    cleared = np.where(conflicting, np.nan, judged.human)
    return replace(judged, human=cleared), len(both)


def _padded(counts: np.ndarray, length: int) -> np.ndarray:
    return np.pad(counts, (0, length - len(counts)))


def human_agreement(judged: JudgedPairs, *, draws: int = DRAWS, seed: int = 0) -> Agreement:
    """How often single judgements are those of people."""
    known = judged.where(np.isfinite(judged.human))
    return _agreement(known.preference, known.human, known.pair, draws, seed)


def averaged_agreement(judged: JudgedPairs, *, draws: int = DRAWS, seed: int = 0) -> Agreement:
    """How often the judge agrees with people once both orders of a pair are averaged: what names no
    winner then is a tie. Of complete pairs with a human judgement.
    """
    known = judged.where(np.isfinite(judged.human))
    if not len(known.pair):
        return Agreement(NOTHING, np.nan)
    _, pair = np.unique(known.pair, return_inverse=True)
    sign = np.where(known.swapped, -1, 1)
    both = np.stack([known.preference, known.human]) * sign
    plain, swapped = (
        np.stack([_by_pair(values, pair, known.swapped == order) for values in both])
        for order in (False, True)
    )
    complete = np.isfinite(plain + swapped).all(0)
    judge, human = np.sign((plain + swapped)[:, complete])
    return _agreement(judge, human, np.flatnonzero(complete), draws, seed)


def _agreement(
    said: np.ndarray, human: np.ndarray, pair: np.ndarray, draws: int, seed: int
) -> Agreement:
    from sklearn.metrics import cohen_kappa_score

    if not len(said):
        return Agreement(NOTHING, np.nan)
    equal, pairs = 1 - np.abs(said - human) / 2, len(np.unique(pair))
    ends = interval_of_mean(equal, pair, draws=draws, seed=seed) if pairs > 1 else UNDEFINED
    several = len({*said.tolist(), *human.tolist()}) > 1
    kappa = float(cohen_kappa_score(said, human)) if several else np.nan
    return Agreement(Estimate(float(equal.mean()), *ends, pairs), kappa)
