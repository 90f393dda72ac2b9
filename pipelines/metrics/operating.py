"""Scores of one class against the rest at an operating point, with intervals by patient;
temperature.

Shapes: N samples, R draws of a bootstrap, K classes. All scores have a weighted form, so that a
draw is a row of integer weights and many draws are computed at once. Undefined scores are NaN."""

from __future__ import annotations

import numpy as np

from .bootstrap import DRAWS, Interval, bootstrap_intervals
from .classification import weighted_auc

INVERSE_PENALTY = 100.0  # C of scikit-learn: classes that a score tells apart have no other end
NAMES = ("auc", "auprc", "sensitivity", "specificity", "ppv", "npv")


def operating_scores(positive: np.ndarray, score: np.ndarray, threshold: float) -> dict[str, float]:
    """auc, auprc (average precision), and sensitivity, specificity, positive and negative
    predictive value where score >= threshold counts as positive.

    positive: bool (N,); score: (N,). Raises ValueError where shapes do not fit.
    """
    results = weighted_scores(positive, score, threshold, np.ones((1, len(positive))))
    return {name: float(values[0]) for name, values in results.items()}


def operating_bootstrap(
    positive: np.ndarray,
    score: np.ndarray,
    threshold: float,
    groups: np.ndarray,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Interval]:
    """95 % percentile intervals of `operating_scores`, entire groups (patients) drawn with
    replacement. Undefined scores: see `bootstrap.percentile_interval`."""
    return bootstrap_intervals(
        lambda weights: weighted_scores(positive, score, threshold, weights),
        groups,
        draws=draws,
        seed=seed,
    )


def choose_threshold(
    positive: np.ndarray, score: np.ndarray, sensitivity: float | None = None
) -> float:
    """The operating point: of the thresholds with at least this sensitivity the one with the
    highest specificity or, by default, the one with the highest balanced accuracy (Youden's J).

    It lies midway between two scores. It is 0.5 unless both classes occur.
    """
    if positive.all() or not positive.any():
        return 0.5
    values = np.unique(score)
    cuts = np.concatenate([[values[0]], (values[1:] + values[:-1]) / 2])
    hit = (score[positive][None] >= cuts[:, None]).mean(1)
    alarm = (score[~positive][None] >= cuts[:, None]).mean(1)
    if sensitivity is None:
        return float(cuts[np.argmax(hit - alarm)])
    return float(cuts[np.flatnonzero(hit >= sensitivity)[-1]])


def fit_temperature(labels: np.ndarray, logits: np.ndarray) -> float:
    """The temperature T, from 0.05 to 20, for which softmax(logits / T) has the smallest log-loss
    (Guo et al., arXiv 1706.04599).

    The true class counts as 1 - 1 / (N + 2), as Platt (1999) has it for two classes: N samples that
    are all right are no proof that the next one is, and T would fall to its bound.

    labels: int (N,); logits: (N, K). Without samples, or with one class, it is 1.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    count, classes = logits.shape
    if not count or classes < 2:
        return 1.0
    doubt = 1 / (count + 2)
    target = np.full((count, classes), doubt / (classes - 1))
    target[np.arange(count), labels] = 1 - doubt
    fit = minimize_scalar(
        lambda t: -(target * log_softmax(logits / np.exp(t), axis=1)).sum(1).mean(),
        bounds=np.log([0.05, 20.0]),
        method="bounded",
    )
    return float(np.exp(fit.x))  # pyright: ignore[reportAttributeAccessIssue]


def fit_logistic(score: np.ndarray, positive: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of the log-odds of the positive class by logistic regression on one score
    (Platt, 1999); where one class is all there is, its smoothed log-odds with a slope of 0.

    score: (N,); positive: bool (N,).
    """
    from sklearn.linear_model import LogisticRegression

    if positive.all() or not positive.any():
        share = (positive.sum() + 1) / (len(positive) + 2)
        return 0.0, float(np.log(share / (1 - share)))
    fitted = LogisticRegression(C=INVERSE_PENALTY, tol=1e-8, max_iter=1000)
    fitted.fit(score.astype(np.float64)[:, None], positive)
    return float(np.ravel(fitted.coef_)[0]), float(np.ravel(fitted.intercept_)[0])


def weighted_scores(
    positive: np.ndarray, score: np.ndarray, threshold: float, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """The scores of `operating_scores` for each row of weights (R, N), each (R,). Raises ValueError
    where shapes do not fit.
    """
    positive, score = np.asarray(positive, bool), np.asarray(score, np.float64)
    if positive.ndim != 1 or positive.shape != score.shape:
        raise ValueError(
            f"operating_scores: positive and score are (N,), got {positive.shape} and {score.shape}"
        )
    called = score >= threshold
    hit, missed, alarm, clear = (
        weights @ kind.astype(np.float64)
        for kind in (positive & called, positive & ~called, ~positive & called, ~positive & ~called)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "auc": weighted_auc(positive, score, weights),
            "auprc": average_precision(positive, score, weights),
            "sensitivity": hit / (hit + missed),
            "specificity": clear / (clear + alarm),
            "ppv": hit / (hit + alarm),
            "npv": clear / (clear + missed),
        }


def average_precision(positive: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum of precision times the rise of recall, from strict to lenient thresholds, for each row of
    weights (R, N): (R,); samples of equal score enter together. NaN without a positive sample.

    positive: bool (N,); score: (N,)."""
    if not len(score):
        return np.full(len(weights), np.nan)
    order = np.argsort(-score, kind="stable")
    positive, weights = positive[order], weights[:, order]
    last = np.flatnonzero(np.r_[np.diff(score[order]) != 0, True])
    hits = np.cumsum(weights * positive, 1)[:, last]
    totals = np.cumsum(weights, 1)[:, last]
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(totals > 0, hits / totals, 0.0)
        return (precision * np.diff(hits, axis=1, prepend=0)).sum(1) / hits[:, -1]
