"""Scores of a classifier with intervals by patient, and its calibration.

Shapes: N samples, C classes, R draws of a bootstrap, B bins. labels: int (N,), probability: float
(N, C), rows summing to 1. All scores have a weighted form, so that a draw of the bootstrap is a row
of integer weights and many draws are computed at once. Undefined scores (one class only) are
NaN."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .bootstrap import DRAWS, Groups, Interval, bootstrap_intervals, interval_of_mean

NAMES = ("auc", "accuracy", "balanced_accuracy", "macro_f1", "log_loss", "brier", "ece")
LEAST_PROBABILITY = 1e-7  # smaller probabilities count as this in the log-loss


def scores(labels: np.ndarray, probability: np.ndarray, bins: int = 10) -> dict[str, float]:
    """All scores by name.

    auc: of class 1 where there are two, else the mean over classes of one against the rest;
    accuracy; balanced_accuracy: mean recall of the classes present; macro_f1: mean F1 of the
    classes present or predicted (micro-F1, which some repositories print as "F1", is the accuracy);
    log_loss in nats; brier: mean squared distance to the true corner, from 0 to 2; ece: expected
    calibration error of the predicted class, bins of equal width (Guo et al., arXiv 1706.04599).

    Raises ValueError for shapes that do not fit.
    """
    results = _weighted(*_checked(labels, probability), np.ones((1, len(labels))), bins)
    return {name: float(values[0]) for name, values in results.items()}


def scores_with_intervals(
    labels: np.ndarray, probability: np.ndarray, groups: np.ndarray, seed: int
) -> dict[str, Any]:
    """All scores by name, and under "intervals" their 95 % intervals by name, [low, high]; see
    `bootstrap` for groups and errors.
    """
    intervals = bootstrap(labels, probability, groups, seed=seed)
    return {
        **scores(labels, probability),
        "intervals": {name: list(ends) for name, ends in intervals.items()},
    }


def bootstrap(
    labels: np.ndarray,
    probability: np.ndarray,
    groups: np.ndarray,
    *,
    draws: int = DRAWS,
    level: float = 0.95,
    seed: int = 0,
    bins: int = 10,
) -> dict[str, Interval]:
    """Percentile intervals of all scores, entire groups (patients) drawn with replacement.

    groups: any values (N,). Undefined scores: see `bootstrap.percentile_interval`. Raises
    ValueError for shapes that do not fit."""
    labels, probability = _checked(labels, probability)
    if np.shape(groups) != labels.shape:
        raise ValueError(f"bootstrap: groups {np.shape(groups)} do not fit labels {labels.shape}")
    return bootstrap_intervals(
        lambda weights: _weighted(labels, probability, weights, bins),
        groups,
        draws=draws,
        ends=((1 - level) / 2, (1 + level) / 2),
        seed=seed,
    )


@dataclass(frozen=True)
class Reliability:
    """How confident a model was and how often it was right, bin by bin; NaN for empty bins."""

    confidence: np.ndarray  # (B,)
    accuracy: np.ndarray  # (B,)
    count: np.ndarray  # int (B,)


def reliability(labels: np.ndarray, probability: np.ndarray, bins: int = 10) -> Reliability:
    """The reliability diagram of the predicted class, by bins of equal width of its probability."""
    labels, probability = _checked(labels, probability)
    top, right, place = _top(labels, probability, bins)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(place, top, bins) / count
        accuracy = np.bincount(place, right, bins) / count
    return Reliability(confidence, accuracy, count)


def weighted_auc(positive: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve for each row of weights (R, N) -> (R,), ties counting half.

    positive: bool (N,); score: (N,), higher = more positive. One sort serves all rows.
    """
    order = np.argsort(score, kind="stable")
    positive, weights = positive[order], weights[:, order]
    starts = np.flatnonzero(np.r_[True, np.diff(score[order]) != 0])
    if not len(order):
        return np.full(len(weights), np.nan)
    up = np.add.reduceat(np.where(positive, weights, 0.0), starts, axis=1)
    down = np.add.reduceat(np.where(positive, 0.0, weights), starts, axis=1)
    below = down.cumsum(1) - down
    with np.errstate(divide="ignore", invalid="ignore"):
        return (up * (below + down / 2)).sum(1) / (up.sum(1) * down.sum(1))


def _weighted(
    labels: np.ndarray, probability: np.ndarray, weights: np.ndarray, bins: int
) -> dict[str, np.ndarray]:
    """Every score for each row of weights (R, N)."""
    classes = probability.shape[1]
    total = weights.sum(1)
    predicted = probability.argmax(1)
    pair = np.zeros((len(labels), classes * classes))
    pair[np.arange(len(labels)), labels * classes + predicted] = 1.0
    confusion = (weights @ pair).reshape(-1, classes, classes)  # true by predicted
    hits, true, called = confusion.diagonal(axis1=1, axis2=2), confusion.sum(2), confusion.sum(1)
    corners = np.eye(classes)[labels]
    top, right, place = _top(labels, probability, bins)
    gap = np.zeros((len(labels), bins))
    gap[np.arange(len(labels)), place] = right - top
    with np.errstate(divide="ignore", invalid="ignore"):
        recall, f1 = hits / true, 2 * hits / (true + called)
        if classes == 2:
            auc = weighted_auc(labels == 1, probability[:, 1], weights)
        else:
            by_class = [
                weighted_auc(labels == c, probability[:, c], weights) for c in range(classes)
            ]
            auc = _mean(np.stack(by_class, 1))
        true_probability = np.clip(
            probability[np.arange(len(labels)), labels], LEAST_PROBABILITY, 1.0
        )
        return {
            "auc": auc,
            "accuracy": hits.sum(1) / total,
            "balanced_accuracy": _mean(recall),
            "macro_f1": _mean(f1),
            "log_loss": weights @ -np.log(true_probability) / total,
            "brier": weights @ np.square(probability - corners).sum(1) / total,
            "ece": np.abs(weights @ gap).sum(1) / total,
        }


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over classes; classes without a value do not count."""
    defined = ~np.isnan(values)
    return np.where(defined, values, 0.0).sum(1) / defined.sum(1)


def _top(
    labels: np.ndarray, probability: np.ndarray, bins: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probability of the predicted class, whether it is right, and its bin; a bin holds its upper
    edge.
    """
    top = probability.max(1)
    right = (probability.argmax(1) == labels).astype(np.float64)
    return top, right, equal_width_bins(top, bins)


def equal_width_bins(probability: np.ndarray, bins: int) -> np.ndarray:
    """Place, from 0 to bins - 1, of the bin that holds each probability; a bin holds its upper
    edge."""
    return np.clip(np.ceil(probability * bins).astype(np.int64) - 1, 0, bins - 1)


def _checked(labels: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, probability = np.asarray(labels), np.asarray(probability, dtype=np.float64)
    if probability.ndim != 2 or probability.shape[1] < 2 or labels.shape != probability.shape[:1]:
        raise ValueError(
            "scores: labels (N,) and probability (N, C), C > 1, got "
            f"{labels.shape}, {probability.shape}"
        )
    if labels.dtype.kind not in "iu" or (
        len(labels) and not 0 <= labels.min() <= labels.max() < probability.shape[1]
    ):
        raise ValueError(
            f"scores: labels must be whole numbers from 0 to {probability.shape[1] - 1}"
        )
    if not np.isfinite(probability).all():
        raise ValueError("scores: probabilities must be finite")
    return labels, probability


class PairedDifference(NamedTuple):
    """By how much the first is more accurate, the 95 % interval with groups drawn anew, on how many
    samples one of the two alone is right, and the exact p of McNemar's test (1947), which takes
    samples as independent.
    """

    gain: float
    interval: Interval
    first_alone: int
    second_alone: int
    p: float


def paired_accuracy(
    first_right: np.ndarray, second_right: np.ndarray, groups: Groups, *, seed: int = 0
) -> PairedDifference:
    """first_right, second_right: bool (N,); groups: of each sample.

    >>> right = np.array([True, True, True, False])
    >>> paired_accuracy(right, ~right, 4).p
    0.625
    """
    from scipy.stats import binomtest

    first_alone = int((first_right & ~second_right).sum())
    second_alone = int((second_right & ~first_right).sum())
    differing = first_alone + second_alone
    p = float(binomtest(first_alone, differing).pvalue) if differing else 1.0
    gains = first_right.astype(float) - second_right
    interval = interval_of_mean(gains, groups, seed=seed)
    return PairedDifference(float(gains.mean()), interval, first_alone, second_alone, p)
