"""Linear models of counted terms, fitted by scikit-learn: the strong simple model of texts.

Shapes: n texts, V terms, T numbers of the table beside a text, L outputs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import numpy as np
from scipy.sparse import csr_matrix, diags, hstack, vstack
from scipy.special import log_expit, log_softmax

from ...data.texts.labels import Goal
from ..engine.command_line.terminal import Progressbar

INVERSE_PENALTIES = (3.0, 10.0, 30.0)  # C of scikit-learn, for texts of length 1
PENALTIES = (0.3, 1.0, 3.0, 10.0)  # of ridge regression
TRIED = 24  # labels by which the penalty of all is chosen
TABLE_SCALE = 0.3  # of the numbers of the table beside texts of length 1
SOURCE_SHARE = 0.5  # of what sources have otherwise: the smaller, the more alike they are
PRIOR_TEXTS = 30  # texts that the scale of all sources counts as, for one of them
LEAST_SCALE = 0.05
FOLDS = 4
KINDS = {
    "class": ("logistic regression", "C"),
    "labels": ("logistic regression", "C"),
    "number": ("ridge regression", "penalty"),
}
MOST_STEPS = 300


class SourceFit(NamedTuple):
    """What each of K sources has otherwise than all: deviation (K V, L), table_deviation (K, T, L);
    scale and bias (K + 1, L), of which the last is of a source that is not known.
    """

    deviation: np.ndarray
    table_deviation: np.ndarray
    scale: np.ndarray
    bias: np.ndarray


class LinearFit(NamedTuple):
    """logits = counted · weight + table · table_weight + bias, and what sources have otherwise.

    weight (V, L), table_weight (T, L), bias (L,), float32; penalty: that was chosen; words: what it
    is; base: float32 (n, L), logits of the texts that it was fitted to by models that each of them
    had no part in; (0, L) before `with_base`; sources: None for one model of all texts.
    """

    weight: np.ndarray
    table_weight: np.ndarray
    bias: np.ndarray
    penalty: float
    words: str
    base: np.ndarray
    sources: SourceFit | None = None


class Rows(NamedTuple):
    """Texts to fit to: counted (n, V), table (n, T), truth: float32 (n, L), 0 and 1 of labels and
    classes; groups: (n,), what is not divided; source: int64 (n,), K for one that is not known;
    sources: K.
    """

    counted: csr_matrix
    table: np.ndarray
    truth: np.ndarray
    groups: np.ndarray
    source: np.ndarray
    sources: int

    def inputs(self, *, by_source: bool) -> csr_matrix:
        """Counted terms and the table beside each other, (n, V + T); by source, K times more of
        them, which are 0 for texts of other sources, (n, (1 + K) (V + T)).
        """
        own = self.counted
        if self.table.shape[1]:
            both = hstack([own, csr_matrix(self.table * TABLE_SCALE)])
            own = cast(csr_matrix, both.tocsr())
        if not by_source:
            return own
        parts = [
            diags((self.source == place) * SOURCE_SHARE) @ own for place in range(self.sources)
        ]
        return cast(csr_matrix, hstack([own, *parts]).tocsr())

    def taken(self, rows: np.ndarray) -> Rows:
        """Some of them."""
        return self._replace(
            counted=cast(csr_matrix, self.counted[rows]),
            table=self.table[rows],
            truth=self.truth[rows],
            groups=self.groups[rows],
            source=self.source[rows],
        )


def best_linear(
    train: Rows, validation: Rows, goal: Goal, *, of_sources: LinearFit | None = None
) -> LinearFit:
    """One model of all texts or, where it is better on the validation part, one in which sources
    differ. of_sources: such a one, where it is fitted already.
    """
    fitted = fit_linear(train, validation, goal, by_source=False)
    if train.sources < 2:
        return fitted
    other = of_sources or fit_linear(train, validation, goal, by_source=True)
    both = [
        losses(linear_logits(model, validation), validation.truth, goal).mean()
        for model in (fitted, other)
    ]
    return other if both[1] < both[0] else fitted


def fit_linear(
    train: Rows, validation: Rows, goal: Goal, *, by_source: bool, penalty: float | None = None
) -> LinearFit:
    """Logistic regression for each label, of classes, or ridge regression of a number.

    The penalty has the smallest loss on the validation part, tried on some labels where there are
    many. by_source: whether sources have weights of their own, drawn towards those of all; penalty:
    one that was chosen before.
    """
    work, scaling = _work(train, goal, by_source=by_source)
    if penalty is None:
        held = validation.inputs(by_source=by_source), _scaled(validation, scaling)
        penalty = _best_penalty(work, *held)
    weight, bias = work.fitted(penalty, "linear model")
    return _fit_of(train, weight, bias, penalty, goal, scaling if by_source else None)


def with_base(fitted: LinearFit, train: Rows, goal: Goal, *, seed: int) -> LinearFit:
    """A fit with its `base`. train: the texts that it was fitted to."""
    work, (scale, bias) = _work(train, goal, by_source=fitted.sources is not None)
    base = _cross_fitted(work, train.groups, fitted.penalty, seed)
    return fitted._replace(base=base * scale[train.source] + bias[train.source])


def refit_linear(fitted: LinearFit, parts: Sequence[Rows], goal: Goal) -> LinearFit:
    """The model once more, with the penalty that was chosen, of all parts together."""
    together = Rows(
        cast(csr_matrix, vstack([part.counted for part in parts]).tocsr()),
        np.concatenate([part.table for part in parts]),
        np.concatenate([part.truth for part in parts]),
        np.concatenate([part.groups for part in parts]),
        np.concatenate([part.source for part in parts]),
        parts[0].sources,
    )
    by_source, penalty = fitted.sources is not None, fitted.penalty
    return fit_linear(together, together, goal, by_source=by_source, penalty=penalty)


def _fit_of(
    train: Rows,
    weight: np.ndarray,
    bias: np.ndarray,
    penalty: float,
    goal: Goal,
    scaling: tuple[np.ndarray, np.ndarray] | None,
) -> LinearFit:
    """The fit of weights ((1 + K) (V + T), L), or (V + T, L) without sources."""
    terms, numbers = count_columns(train.counted), train.table.shape[1]
    size = terms + numbers
    kind, name = KINDS[goal]
    words = f"tf-idf of {terms:,} terms with {kind} ({name} {penalty:g})"
    sources = None
    if scaling is not None:
        words += f" and deviations of {train.sources} sources"
        parts = weight[size:].reshape(train.sources, size, -1) * SOURCE_SHARE
        sources = SourceFit(
            np.ascontiguousarray(parts[:, :terms].reshape(train.sources * terms, -1)),
            np.ascontiguousarray(parts[:, terms:] * TABLE_SCALE),
            scaling[0].astype(np.float32),
            scaling[1].astype(np.float32),
        )
    of_table = weight[terms:size] * TABLE_SCALE
    base = np.zeros((0, train.truth.shape[1]), np.float32)
    return LinearFit(weight[:terms], of_table, bias, penalty, words, base, sources)


def _scaling(train: Rows, goal: Goal, *, by_source: bool) -> tuple[np.ndarray, np.ndarray]:
    """Scale and bias of each source and of an unknown one, (K + 1, L): deviation and mean of a
    number, drawn towards 1 and 0 where a source has few texts; else 1 and 0.
    """
    shape = (train.sources + 1, train.truth.shape[1])
    scale, bias = np.ones(shape), np.zeros(shape)
    if goal == "number" and by_source:
        for place in range(train.sources):
            values = train.truth[train.source == place]
            certainty = len(values) / (len(values) + PRIOR_TEXTS)
            if len(values):
                scale[place] = 1 + certainty * (values.std(0) - 1)
                bias[place] = certainty * values.mean(0)
    return np.maximum(scale, LEAST_SCALE), bias


def _scaled(rows: Rows, scaling: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The truth without scale and bias of its source."""
    return (rows.truth - scaling[1][rows.source]) / scaling[0][rows.source]


def count_columns(inputs: csr_matrix) -> int:
    """How many columns a sparse matrix has."""
    return cast("tuple[int, int]", inputs.shape)[1]


def linear_logits(fitted: LinearFit, rows: Rows) -> np.ndarray:
    """(n, L)."""
    logits = rows.counted @ fitted.weight + rows.table @ fitted.table_weight + fitted.bias
    if fitted.sources is None:
        return logits
    deviation, of_table, scale, bias = fitted.sources
    terms = count_columns(rows.counted)
    for place in range(rows.sources):
        member = np.flatnonzero(rows.source == place)
        words = deviation[place * terms : (place + 1) * terms]
        logits[member] += rows.counted[member] @ words + rows.table[member] @ of_table[place]
    return logits * scale[rows.source] + bias[rows.source]


def losses(logits: np.ndarray, truth: np.ndarray, goal: Goal) -> np.ndarray:
    """The loss of each text, (n,): log-loss of its class, the mean log-loss of its labels, or the
    squared error. logits, truth: (n, L).
    """
    if goal == "class":
        return -(log_softmax(logits, axis=1) * truth).sum(1)
    if goal == "labels":
        return -log_expit(np.where(truth > 0, logits, -logits)).mean(1)
    return np.square(logits - truth).mean(1)


class _Work(NamedTuple):
    """What a linear model is fitted to: inputs (n, C), truth (n, L)."""

    inputs: csr_matrix
    truth: np.ndarray
    goal: Goal

    def fitted(self, penalty: float, words: str) -> tuple[np.ndarray, np.ndarray]:
        """weight (C, L) and bias (L,)."""
        return _fitted(self.inputs, self.truth, self.goal, penalty, words)


def _work(
    train: Rows, goal: Goal, *, by_source: bool
) -> tuple[_Work, tuple[np.ndarray, np.ndarray]]:
    """What is fitted, and scale and bias of each source."""
    scaling = _scaling(train, goal, by_source=by_source)
    return _Work(train.inputs(by_source=by_source), _scaled(train, scaling), goal), scaling


def _best_penalty(work: _Work, held: csr_matrix, truth: np.ndarray) -> float:
    tried = np.arange(work.truth.shape[1])
    if work.goal == "labels" and len(tried) > TRIED:
        by_count = np.argsort(-work.truth.sum(0), kind="stable")
        tried = by_count[np.linspace(0, len(tried) - 1, TRIED).astype(int)]
    some, totals = work._replace(truth=work.truth[:, tried]), {}
    for penalty in PENALTIES if work.goal == "number" else INVERSE_PENALTIES:
        weight, bias = some.fitted(penalty, f"penalty {penalty:g}")
        logits = held @ weight + bias
        totals[penalty] = float(losses(logits, truth[:, tried], work.goal).mean())
    return min(totals, key=lambda penalty: totals[penalty])


def _cross_fitted(work: _Work, groups: np.ndarray, penalty: float, seed: int) -> np.ndarray:
    """Logits (n, L) of each text by a model of the other folds; groups are not divided."""
    names, codes = np.unique(groups, return_inverse=True)
    folds = min(FOLDS, len(names))
    fold_of = np.random.default_rng(seed).permutation(len(names))[codes] % folds
    base = np.zeros(work.truth.shape, np.float32)
    for fold in range(folds):
        others, held = fold_of != fold, fold_of == fold
        part = _Work(cast(csr_matrix, work.inputs[others]), work.truth[others], work.goal)
        weight, bias = part.fitted(penalty, f"fold {fold + 1} of {folds}")
        base[held] = work.inputs[held] @ weight + bias
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
    # One after the other: liblinear in several threads at once gives other weights now and then.
    with warnings.catch_warnings(), bar:
        warnings.simplefilter("ignore")  # where the solver stops early
        for k in outputs:
            weight[:, k], bias[k] = fit(k)
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
        if not len(truth):  # all texts are of one group: no other has a part in a fold
            return np.zeros(count_columns(inputs)), 0.0
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
