"""Linear models of counted terms, fitted by scikit-learn: the strong simple model of texts.

Shapes: n texts, V terms, T numbers of the table beside a text, L outputs.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, cast

import numpy as np
from scipy.sparse import csr_matrix, hstack, vstack
from scipy.special import log_expit, log_softmax

from ...data.texts.labels import Goal
from ..engine.command_line.terminal import Progressbar

INVERSE_PENALTIES = (3.0, 10.0, 30.0)  # C of scikit-learn, for texts of length 1
PENALTIES = (0.3, 1.0, 3.0, 10.0)  # of ridge regression
TRIED = 24  # labels by which the penalty of all is chosen
TABLE_SCALE = 0.3  # of the numbers of the table beside texts of length 1
FOLDS = 4
KINDS = {
    "class": ("logistic regression", "C"),
    "labels": ("logistic regression", "C"),
    "number": ("ridge regression", "penalty"),
}
MOST_STEPS = 300


class LinearFit(NamedTuple):
    """logits = counted · weight + table · table_weight + bias.

    weight (V, L), table_weight (T, L), bias (L,), float32; penalty: that was chosen; words: what it
    is; base: float32 (n, L), logits of the texts that it was fitted to by models that each of them
    had no part in; (0, L) where they were not asked for.
    """

    weight: np.ndarray
    table_weight: np.ndarray
    bias: np.ndarray
    penalty: float
    words: str
    base: np.ndarray


class Rows(NamedTuple):
    """Texts to fit to: counted (n, V), table (n, T), truth: float32 (n, L), 0 and 1 of labels and
    classes; groups: (n,), what is not divided.
    """

    counted: csr_matrix
    table: np.ndarray
    truth: np.ndarray
    groups: np.ndarray

    @property
    def inputs(self) -> csr_matrix:
        """Counted terms and the table beside each other, (n, V + T)."""
        if not self.table.shape[1]:
            return self.counted
        both = hstack([self.counted, csr_matrix(self.table * TABLE_SCALE)])
        return cast(csr_matrix, both.tocsr())

    def taken(self, rows: np.ndarray) -> Rows:
        """Some of them."""
        counted = cast(csr_matrix, self.counted[rows])
        return Rows(counted, self.table[rows], self.truth[rows], self.groups[rows])


def fit_linear(
    train: Rows,
    validation: Rows,
    goal: Goal,
    *,
    seed: int,
    folds: bool,
    penalty: float | None = None,
) -> LinearFit:
    """Logistic regression for each label, of classes, or ridge regression of a number.

    The penalty has the smallest loss on the validation part, tried on some labels where there are
    many. folds: whether `base` is wanted; penalty: one that was chosen before.
    """
    if penalty is None:
        penalty = _best_penalty(train, validation, goal)
    weight, bias = _fitted(train.inputs, train.truth, goal, penalty, "linear model")
    base = np.zeros((0, train.truth.shape[1]), np.float32)
    if folds:
        base = _cross_fitted(train, goal, penalty, seed)
    terms = count_columns(train.counted)
    kind, name = KINDS[goal]
    words = f"tf-idf of {terms:,} terms with {kind} ({name} {penalty:g})"
    return LinearFit(weight[:terms], weight[terms:] * TABLE_SCALE, bias, penalty, words, base)


def refit_linear(fitted: LinearFit, parts: Sequence[Rows], goal: Goal) -> LinearFit:
    """The model once more, with the penalty that was chosen, of all parts together."""
    together = Rows(
        cast(csr_matrix, vstack([part.counted for part in parts]).tocsr()),
        np.concatenate([part.table for part in parts]),
        np.concatenate([part.truth for part in parts]),
        np.concatenate([part.groups for part in parts]),
    )
    return fit_linear(together, together, goal, seed=0, folds=False, penalty=fitted.penalty)


def count_columns(inputs: csr_matrix) -> int:
    """How many columns a sparse matrix has."""
    return cast("tuple[int, int]", inputs.shape)[1]


def linear_logits(fitted: LinearFit, rows: Rows) -> np.ndarray:
    """(n, L)."""
    return rows.counted @ fitted.weight + rows.table @ fitted.table_weight + fitted.bias


def losses(logits: np.ndarray, truth: np.ndarray, goal: Goal) -> np.ndarray:
    """The loss of each text, (n,): log-loss of its class, the mean log-loss of its labels, or the
    squared error. logits, truth: (n, L).
    """
    if goal == "class":
        return -(log_softmax(logits, axis=1) * truth).sum(1)
    if goal == "labels":
        return -log_expit(np.where(truth > 0, logits, -logits)).mean(1)
    return np.square(logits - truth).mean(1)


def _best_penalty(train: Rows, validation: Rows, goal: Goal) -> float:
    tried = np.arange(train.truth.shape[1])
    if goal == "labels" and len(tried) > TRIED:
        by_count = np.argsort(-train.truth.sum(0), kind="stable")
        tried = by_count[np.linspace(0, len(tried) - 1, TRIED).astype(int)]
    totals = {}
    for penalty in PENALTIES if goal == "number" else INVERSE_PENALTIES:
        weight, bias = _fitted(
            train.inputs, train.truth[:, tried], goal, penalty, f"penalty {penalty:g}"
        )
        logits = validation.inputs @ weight + bias
        totals[penalty] = float(losses(logits, validation.truth[:, tried], goal).mean())
    return min(totals, key=lambda penalty: totals[penalty])


def _cross_fitted(train: Rows, goal: Goal, penalty: float, seed: int) -> np.ndarray:
    """Logits (n, L) of each text by a model of the other folds; groups are not divided."""
    names, codes = np.unique(train.groups, return_inverse=True)
    folds = min(FOLDS, len(names))
    fold_of = np.random.default_rng(seed).permutation(len(names))[codes] % folds
    inputs, base = train.inputs, np.zeros(train.truth.shape, np.float32)
    for fold in range(folds):
        others, held = fold_of != fold, fold_of == fold
        words = f"fold {fold + 1} of {folds}"
        weight, bias = _fitted(inputs[others], train.truth[others], goal, penalty, words)
        base[held] = inputs[held] @ weight + bias
    return base


def _fitted(
    inputs: csr_matrix, truth: np.ndarray, goal: Goal, penalty: float, words: str
) -> tuple[np.ndarray, np.ndarray]:
    """weight (V + T, L) and bias (L,), float32."""
    fit: Callable[[int], tuple[np.ndarray, float]]
    if goal == "class":
        return _fitted_classes(inputs, truth, penalty)
    fit = _ridge(inputs, truth, penalty) if goal == "number" else _logistic(inputs, truth, penalty)
    outputs = range(truth.shape[1])
    weight = np.zeros((count_columns(inputs), len(outputs)), np.float32)
    bias = np.zeros(len(outputs), np.float32)
    bar = Progressbar(total=len(outputs), unit="label", desc=words)
    with warnings.catch_warnings(), bar, ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        warnings.simplefilter("ignore")  # where the solver stops early
        for k, (column, shift) in zip(outputs, threads.map(fit, outputs), strict=True):
            weight[:, k], bias[k] = column, shift
            bar.update(1)
    return weight, bias


def _logistic(
    inputs: csr_matrix, truth: np.ndarray, penalty: float
) -> Callable[[int], tuple[np.ndarray, float]]:
    from sklearn.linear_model import LogisticRegression

    def fit(k: int) -> tuple[np.ndarray, float]:
        having = truth[:, k] > 0
        if having.all() or not having.any():
            share = (having.sum() + 1) / (len(having) + 2)
            return np.zeros(count_columns(inputs)), float(np.log(share / (1 - share)))
        model = LogisticRegression(C=penalty, solver="liblinear", tol=1e-3, max_iter=MOST_STEPS)
        model.fit(inputs, having)
        return model.coef_[0], float(np.ravel(model.intercept_)[0])

    return fit


def _ridge(
    inputs: csr_matrix, truth: np.ndarray, penalty: float
) -> Callable[[int], tuple[np.ndarray, float]]:
    from sklearn.linear_model import Ridge

    def fit(k: int) -> tuple[np.ndarray, float]:
        model = Ridge(alpha=penalty, solver="sparse_cg", tol=1e-5).fit(inputs, truth[:, k])
        return model.coef_, float(model.intercept_)

    return fit


def _fitted_classes(
    inputs: csr_matrix, truth: np.ndarray, penalty: float
) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.linear_model import LogisticRegression

    labels = truth.argmax(1)
    present = np.unique(labels)
    weight = np.zeros((count_columns(inputs), truth.shape[1]), np.float32)
    # A class without a text here is as unlikely as one that has a single one.
    bias = np.full(truth.shape[1], -np.log(len(labels) + 1.0), np.float32)
    if len(present) < 2:
        bias[present] = 0.0
        return weight, bias
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where the solver stops early
        model = LogisticRegression(C=penalty, max_iter=MOST_STEPS, tol=1e-4).fit(inputs, labels)
    if len(present) == 2:
        weight[:, present] = np.stack([-model.coef_[0], model.coef_[0]], 1) / 2
        bias[present] = np.array([-0.5, 0.5]) * model.intercept_[0]
    else:
        weight[:, present], bias[present] = model.coef_.T, model.intercept_
    return weight, bias
