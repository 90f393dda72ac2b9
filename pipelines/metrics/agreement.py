"""How far raters agree, and how well they detect a signal, with intervals over tasks.

Answers are codes (T, R) of T tasks and R raters, -1 where a rater did not answer a task. Intervals
are percentiles of a bootstrap that draws tasks, since the answers to one task rise and fall
together.

Detection, for tasks that hold a signal or do not (two topics, or one): a hit is a signal that was
answered with "signal", a false alarm a task without it that was. With H = (hits + 0.5) /
(signals + 1) and F = (false alarms + 0.5) / (others + 1), which keeps rates of 0 and 1 finite
(Hautus 1995, the log-linear correction, always applied):

- d' = z(H) - z(F): how well the two are told apart, whatever a rater likes to answer;
- c = -(z(H) + z(F)) / 2: the bias; positive for raters who seldom answer "signal".

Sources: Krippendorff, Content Analysis (alpha); Fleiss 1971; Cohen 1960; Green and Swets 1966 (d').
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from .bootstrap import DRAWS, UNDEFINED, Groups, bootstrap_intervals


class Score(NamedTuple):
    """A score and its interval of 95 %; NaN where it is undefined."""

    value: float
    low: float
    high: float


def krippendorff_alpha(codes: np.ndarray) -> float:
    """Krippendorff's alpha for names (nominal), with missing answers: 1 - observed / expected
    disagreement.

    codes: (T, R), -1 for missing. Tasks with a single answer do not count. NaN where all answers
    that count are equal.
    """
    return float(_agreement(answer_counts(codes), _once(codes))["alpha"][0])


def fleiss_kappa(codes: np.ndarray) -> float:
    """Fleiss' kappa of codes (T, R): mean share of agreeing pairs, corrected by the shares of the
    answers.

    Equal to the published form where all tasks have as many answers; else each task counts once,
    and those with a single answer do not count.
    """
    return float(_agreement(answer_counts(codes), _once(codes))["fleiss_kappa"][0])


def pairwise_agreement(codes: np.ndarray) -> float:
    """Mean over tasks of the share of pairs of raters that gave the same answer; codes (T, R)."""
    return float(_agreement(answer_counts(codes), _once(codes))["pairwise_agreement"][0])


def cohen_kappa(first: np.ndarray, second: np.ndarray) -> float:
    """Cohen's kappa of two raters' codes (T,); tasks that one of them did not answer do not count.

    NaN where no task counts, or both gave one and the same answer to all.
    """
    both = (first >= 0) & (second >= 0)
    first, second = first[both], second[both]
    if not len(first):
        return float("nan")
    size = int(max(first.max(), second.max())) + 1
    expected = _shares(first, size) @ _shares(second, size)
    agreed = float((first == second).mean())
    return float("nan") if expected == 1 else float((agreed - expected) / (1 - expected))


def pair_kappas(codes: np.ndarray) -> np.ndarray:
    """Cohen's kappa of all pairs of raters: (R, R), symmetric, diagonal NaN; codes (T, R)."""
    raters = codes.shape[1]
    kappas = np.full((raters, raters), np.nan)
    for i in range(raters):
        for j in range(i + 1, raters):
            kappas[i, j] = kappas[j, i] = cohen_kappa(codes[:, i], codes[:, j])
    return kappas


def agreement_scores(codes: np.ndarray, *, draws: int = DRAWS, seed: int = 0) -> dict[str, Score]:
    """alpha, fleiss_kappa and pairwise_agreement of codes (T, R), with intervals over tasks."""
    counts = answer_counts(codes)
    values = _agreement(counts, _once(codes))
    intervals = (
        bootstrap_intervals(
            lambda weights: _agreement(counts, weights), len(codes), draws=draws, seed=seed
        )
        if len(codes)
        else dict.fromkeys(values, UNDEFINED)
    )
    return _scores(values, intervals)


def detection_scores(
    signal: np.ndarray,
    answered: np.ndarray,
    tasks: Groups | None = None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Score]:
    """How well answers tell tasks with a signal from those without.

    signal, answered: bool (N,), whether the task holds it and whether the rater answered so. tasks:
    (N,) which task an answer belongs to, for the intervals; by default all are independent. Gives
    hit_rate, false_alarm_rate, accuracy, f1 (of the signal), macro_f1 (mean with that of its
    absence), d_prime and criterion, see the module.
    """
    signal, answered = np.asarray(signal, bool), np.asarray(answered, bool)
    if signal.shape != answered.shape or signal.ndim != 1:
        raise ValueError(f"signal {signal.shape} and answered {answered.shape} must be (N,)")
    values = _detection(signal, answered, np.ones((1, len(signal))))
    if not len(signal):
        return _scores(values, dict.fromkeys(values, UNDEFINED))
    intervals = bootstrap_intervals(
        lambda weights: _detection(signal, answered, weights),
        len(signal) if tasks is None else tasks,
        draws=draws,
        seed=seed,
    )
    return _scores(values, intervals)


def answer_counts(codes: np.ndarray) -> np.ndarray:
    """How often each answer was given to each task: float64 (T, V) of codes (T, R).

    Raises ValueError for codes of another shape or below -1.
    """
    if codes.ndim != 2 or (codes.size and codes.min() < -1):
        raise ValueError(f"codes must be (tasks, raters), -1 for missing, got {codes.shape}")
    size = int(codes.max(initial=-1)) + 1
    return (
        np.stack([(codes == value).sum(1) for value in range(size)], 1).astype(float)
        if (size)
        else np.zeros((len(codes), 0))
    )


def _agreement(counts: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Scores (B,) of counts (T, V) where tasks are drawn as often as weights (B, T) say."""
    answers = counts.sum(1)
    paired = answers >= 2
    counts, answers, weights = counts[paired], answers[paired], weights[:, paired]
    # Ordered pairs of unequal answers to one task, each task weighted by 1 / (answers - 1).
    unequal = weights @ ((answers**2 - (counts**2).sum(1)) / (answers - 1))
    agreeing = ((counts**2).sum(1) - answers) / (answers * (answers - 1))
    totals = weights @ counts
    everything = totals.sum(1)
    squares = (totals**2).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = (everything**2 - squares) / (everything - 1)
        alpha = np.where(expected > 0, 1 - unequal / expected, np.nan)
        mean = weights @ agreeing / weights.sum(1)
        chance = squares / everything**2
        kappa = np.where(chance < 1, (mean - chance) / (1 - chance), np.nan)
    return {"alpha": alpha, "fleiss_kappa": kappa, "pairwise_agreement": mean}


def _detection(
    signal: np.ndarray, answered: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Scores (B,) where answers (N,) count as often as weights (B, N) say."""
    hits, false_alarms = weights @ (signal & answered), weights @ (~signal & answered)
    signals, others = weights @ signal, weights @ ~signal
    misses, rejections = signals - hits, others - false_alarms
    with np.errstate(divide="ignore", invalid="ignore"):
        both = (signals > 0) & (others > 0)
        z_hit = ndtri((hits + 0.5) / (signals + 1))
        z_false = ndtri((false_alarms + 0.5) / (others + 1))
        wrong = misses + false_alarms
        f1 = 2 * hits / (2 * hits + wrong)
        f1_absent = 2 * rejections / (2 * rejections + wrong)
        return {
            "hit_rate": hits / signals,
            "false_alarm_rate": false_alarms / others,
            "accuracy": (hits + rejections) / (signals + others),
            "f1": f1,
            "macro_f1": (f1 + f1_absent) / 2,
            "d_prime": np.where(both, z_hit - z_false, np.nan),
            "criterion": np.where(both, -(z_hit + z_false) / 2, np.nan),
        }


def _scores(
    values: Mapping[str, np.ndarray], intervals: Mapping[str, tuple[float, float]]
) -> dict[str, Score]:
    return {name: Score(float(value[0]), *intervals[name]) for name, value in values.items()}


def _once(codes: np.ndarray) -> np.ndarray:
    return np.ones((1, len(codes)))


def _shares(codes: np.ndarray, size: int) -> np.ndarray:
    return np.bincount(codes, minlength=size) / len(codes)
