"""Weights of two models' logits, for each label as far as its texts allow.

Shapes: N texts, L outputs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import expit

from ...data.texts.labels import Goal

PRIOR_TEXTS = 30.0  # positive texts that the common weights of all labels count as
STEPS = 30  # of Newton's method
RIDGE = 1e-3
SHARES = np.linspace(0, 1, 21)


class Weights(NamedTuple):
    """values: (3, L): of the model's logits, of the simple model's, and what is added; words: how
    they were found.
    """

    values: np.ndarray
    words: str


def fit_weights(model: np.ndarray, simple: np.ndarray, truth: np.ndarray, goal: Goal) -> Weights:
    """Weights with which the sum of two logits (N, L) fits the truth (N, L) best.

    Of labels: by logistic regression of all labels together, and then of each label, drawn towards
    the common weights by the number of its texts. Of classes and a number: one share for all.
    """
    if goal != "labels":
        share = _best_share(model, simple, truth, goal)
        values = np.tile([[share], [1 - share], [0.0]], (1, truth.shape[1]))
        return Weights(values, f"{share:.0%} of the model")
    common = _common(model, simple, truth)
    by_label = np.stack(
        [
            _newton(model[:, [k]], simple[:, [k]], truth[:, [k]], common, PRIOR_TEXTS)
            for k in range(truth.shape[1])
        ]
    )
    of_model, of_simple, _ = by_label.mean(0)
    words = f"on average {of_model:.2f} of the model and {of_simple:.2f} of tf-idf"
    return Weights(by_label.T, words)


def _best_share(model: np.ndarray, simple: np.ndarray, truth: np.ndarray, goal: Goal) -> float:
    from .linear import losses

    totals = [losses(s * model + (1 - s) * simple, truth, goal).mean() for s in SHARES]
    return float(SHARES[int(np.argmin(totals))])


def _common(model: np.ndarray, simple: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Weights of all labels together."""
    return _newton(model, simple, truth, np.array([0.5, 0.5, 0.0]), 0.0)


def _newton(
    model: np.ndarray, simple: np.ndarray, truth: np.ndarray, prior: np.ndarray, texts: float
) -> np.ndarray:
    """(a, b, c) with the smallest log-loss of a model + b simple + c, drawn towards `prior` as if
    it had been seen on `texts` texts with the label; a and b are at least 0.
    """
    x = np.stack([model.ravel(), simple.ravel(), np.ones(model.size)], 1)
    y = truth.ravel()
    start = expit(x @ prior)
    # How certain so many texts would make the prior: their share of the information in these.
    information = (x * (start * (1 - start))[:, None]).T @ x
    positive = max(float(y.sum()), 1.0)
    pull = information * texts / positive + RIDGE * np.eye(3)
    weights = prior.copy()
    for _ in range(STEPS):
        p = expit(x @ weights)
        gradient = x.T @ (p - y) + pull @ (weights - prior)
        hessian = (x * (p * (1 - p))[:, None]).T @ x + pull
        step = np.linalg.solve(hessian, gradient)
        weights = weights - step
        if np.abs(step).max() < 1e-6:
            break
    if not np.isfinite(weights).all() or weights.min(initial=0.0, where=[True, True, False]) < 0:
        return prior
    return weights
