"""Scores of several labels, each told by itself, with intervals by patient.

Shapes: N samples, F labels, R draws of a bootstrap. truth, known: bool (N, F), where known says of
which labels of a sample the truth is known; the others are in no score. probability: float (N, F);
thresholds: (F,). Undefined scores (a label that no sample has, or all have) are NaN."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .bootstrap import DRAWS, Interval, bootstrap_intervals
from .classification import LEAST_PROBABILITY
from .operating import weighted_scores

NAMES = ("auc", "auprc", "sensitivity", "specificity", "ppv", "npv", "log_loss", "brier")


@dataclass(frozen=True)
class LabelScores:
    """Scores by name with their 95 % intervals, of each label, and their means over the labels."""

    values: list[dict[str, float]]
    intervals: list[dict[str, Interval]]
    means: dict[str, float]
    mean_intervals: dict[str, Interval]

    @property
    def defined(self) -> int:
        """Number of labels that have an AUC, and so count in its mean."""
        return sum(not np.isnan(values["auc"]) for values in self.values)


def label_scores(
    truth: np.ndarray,
    known: np.ndarray,
    probability: np.ndarray,
    thresholds: np.ndarray,
    groups: np.ndarray,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> LabelScores:
    """The scores of `operating_scores`, log-loss in nats and Brier score (p - y)^2 of each label on
    the samples that know it, and their means over the labels that have them.

    groups: any values (N,), such as patients; entire groups are drawn with replacement, and a draw
    is the same for all labels. Raises ValueError for shapes that do not fit."""
    _check(truth, known, probability, thresholds)
    if np.shape(groups) != truth.shape[:1]:
        raise ValueError(f"label_scores: groups {np.shape(groups)} do not fit truth {truth.shape}")

    def of(weights: np.ndarray) -> dict[str, np.ndarray]:
        return _named(truth, known, probability.astype(np.float64), thresholds, weights)

    plain = {name: float(values[0]) for name, values in of(np.ones((1, len(truth)))).items()}
    ends = bootstrap_intervals(of, groups, draws=draws, seed=seed)
    labels = range(truth.shape[1])
    return LabelScores(
        [{name: plain[f"{k} {name}"] for name in NAMES} for k in labels],
        [{name: ends[f"{k} {name}"] for name in NAMES} for k in labels],
        {name: plain[name] for name in NAMES},
        {name: ends[name] for name in NAMES},
    )


def _named(
    truth: np.ndarray,
    known: np.ndarray,
    probability: np.ndarray,
    thresholds: np.ndarray,
    weights: np.ndarray,
) -> dict[str, np.ndarray]:
    """Scores for each row of weights (R, N): "3 auc" of the fourth label, "auc" the mean."""
    by_label = []
    for k in range(truth.shape[1]):
        rows = known[:, k]
        positive, score, weight = truth[rows, k], probability[rows, k], weights[:, rows]
        scores = weighted_scores(positive, score, float(thresholds[k]), weight)
        of_truth = np.where(positive, score, 1 - score).clip(LEAST_PROBABILITY, 1)
        total = weight.sum(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            scores["log_loss"] = weight @ -np.log(of_truth) / total
            scores["brier"] = weight @ np.square(score - positive) / total
        by_label.append(scores)
    named = {f"{k} {name}": row[name] for k, row in enumerate(by_label) for name in NAMES}
    for name in NAMES:
        values = np.stack([scores[name] for scores in by_label])
        defined = ~np.isnan(values)
        with np.errstate(invalid="ignore"):
            named[name] = np.where(defined, values, 0.0).sum(0) / defined.sum(0)
    return named


def _check(
    truth: np.ndarray, known: np.ndarray, probability: np.ndarray, thresholds: np.ndarray
) -> None:
    """Raise ValueError for shapes that do not fit, and probabilities that are not finite."""
    shapes = truth.shape, known.shape, probability.shape
    if truth.ndim != 2 or len(set(shapes)) > 1 or np.shape(thresholds) != truth.shape[1:]:
        raise ValueError(
            "label_scores: truth, known and probability are (N, F) and thresholds (F,), got "
            f"{', '.join(map(str, shapes))} and {np.shape(thresholds)}"
        )
    if truth.dtype != bool or known.dtype != bool:
        raise ValueError("label_scores: truth and known are bool")
    if not np.isfinite(probability).all():
        raise ValueError("label_scores: probabilities must be finite")
