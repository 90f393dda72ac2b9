"""Linear models of counted terms against scikit-learn, and what their folds see."""

import threading
import time

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix, hstack
from sklearn.linear_model import LogisticRegression, Ridge

from headwise.models.text.linear import LinearTexts
from headwise.models.text.sources import SourceLinearTexts
from headwise.pipelines.text import linear
from headwise.pipelines.text.coding import padded_rows
from headwise.pipelines.text.linear import (
    Rows,
    best_linear,
    fit_linear,
    linear_logits,
    losses,
    refit_linear,
    with_base,
)
from headwise.pipelines.text.network import set_linear

TERMS, NUMBERS = 12, 2


def rows_of(goal: str, count: int = 160, *, sources: int = 2, seed: int = 0) -> Rows:
    """Texts whose outputs follow a linear model with some noise; groups of two."""
    generator = np.random.default_rng(seed)
    counted = csr_matrix(
        generator.random((count, TERMS)) * (generator.random((count, TERMS)) < 0.4), dtype="float32"
    )
    table = generator.normal(size=(count, NUMBERS)).astype(np.float32)
    weight = np.random.default_rng(1).normal(size=(TERMS + NUMBERS, 3)) * 3
    score = hstack([counted, table]) @ weight + generator.normal(size=(count, 3)) * 0.3
    source = np.arange(count) % (sources + 1)
    truth = {
        "class": np.eye(3)[score.argmax(1)],
        "labels": (score > 0.5).astype(float),
        "number": (score - score.mean(0))[:, :1] / score[:, 0].std(),
    }[goal]
    return Rows(counted, table, truth.astype(np.float32), np.arange(count) // 2, source, sources)


GOALS = ["class", "labels", "number"]


def fit(goal, train, validation, *, folds=False, **how):
    fitted = fit_linear(train, validation, goal, **{"by_source": False, **how})
    return with_base(fitted, train, goal, seed=0) if folds else fitted


def by_scikit_learn(train: Rows, goal: str, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """weight (V + T, L) and bias (L,), of terms beside the table, which is scaled."""
    inputs = hstack([train.counted, train.table * linear.TABLE_SCALE]).tocsr()
    if goal == "number":
        model = Ridge(alpha=penalty, solver="sparse_cg", tol=1e-5).fit(inputs, train.truth[:, 0])
        return model.coef_[:, None], np.array([model.intercept_])
    if goal == "class":
        model = LogisticRegression(C=penalty, max_iter=300, tol=1e-4)
        model.fit(inputs, train.truth.argmax(1))
        return model.coef_.T, model.intercept_
    models = [
        LogisticRegression(C=penalty, solver="liblinear", tol=1e-3, max_iter=300).fit(inputs, y)
        for y in train.truth.T
    ]
    return np.stack([m.coef_[0] for m in models], 1), np.array([m.intercept_[0] for m in models])


@pytest.mark.parametrize("goal", GOALS)
def test_the_model_is_that_of_scikit_learn(goal):
    train = rows_of(goal)
    fitted = fit(goal, train, train, penalty=3.0)
    weight, bias = by_scikit_learn(train, goal, 3.0)
    np.testing.assert_allclose(fitted.weight, weight[:TERMS], rtol=1e-3, atol=1e-3)
    expected = weight[TERMS:] * linear.TABLE_SCALE
    np.testing.assert_allclose(fitted.table_weight, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(fitted.bias, bias, rtol=1e-3, atol=1e-3)
    assert fitted.weight.dtype == fitted.bias.dtype == np.float32


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("by_source", [False, True])
def test_the_torch_model_gives_the_logits_of_the_fit(goal, by_source):
    train, other = rows_of(goal), rows_of(goal, 40, seed=5)
    fitted = fit(goal, train, train, penalty=3.0, by_source=by_source)
    sizes = TERMS, train.truth.shape[1], NUMBERS
    model = SourceLinearTexts(*sizes, sources=2) if by_source else LinearTexts(*sizes)
    set_linear(model, fitted)
    features, amounts = padded_rows(other.counted)
    tokens = np.zeros((40, 1), np.int64)
    inputs = (tokens, tokens > 0, features, amounts, other.table, other.source)
    logits = model(*map(torch.from_numpy, inputs)).numpy()
    np.testing.assert_allclose(logits, linear_logits(fitted, other), atol=1e-5)


@pytest.mark.parametrize("goal", GOALS)
def test_the_penalty_is_the_best_on_the_validation_part(goal):
    train, validation = rows_of(goal, 60), rows_of(goal, 80, seed=3)
    fitted = fit(goal, train, validation)
    penalties = linear.PENALTIES if goal == "number" else linear.INVERSE_PENALTIES
    totals = {
        penalty: losses(
            linear_logits(fit(goal, train, validation, penalty=penalty), validation),
            validation.truth,
            goal,
        ).mean()
        for penalty in penalties
    }
    assert fitted.penalty == min(totals, key=lambda penalty: totals[penalty])
    assert f"{fitted.penalty:g})" in fitted.words


@pytest.mark.parametrize("goal", GOALS)
def test_each_text_gets_logits_of_a_model_of_other_groups_alone(goal):
    """Whatever a group says in the training changes nothing of its own logits."""
    train = rows_of(goal)
    first = fit(goal, train, train, penalty=3.0, folds=True).base
    for group in (0, 17):
        truth = train.truth.copy()
        member = train.groups == group
        truth[member] = truth[member][:, ::-1] if goal != "number" else truth[member] + 9
        if goal == "labels":
            truth[member] = 1 - train.truth[member]
        other = fit(goal, train._replace(truth=truth), train, penalty=3.0, folds=True).base
        np.testing.assert_allclose(other[member], first[member], atol=1e-6)
        assert np.abs(other - first)[~member].max() > 1e-4
    inside = linear_logits(fit(goal, train, train, penalty=3.0), train)
    assert losses(first, train.truth, goal).mean() > losses(inside, train.truth, goal).mean()


def test_all_groups_are_in_a_fold():
    train = rows_of("labels")
    base = fit("labels", train, train, penalty=3.0, folds=True).base
    assert base.shape == train.truth.shape
    assert (base != 0).any(1).all()
    assert fit("labels", train, train, penalty=3.0).base.shape == (0, 3)


@pytest.mark.parametrize("goal", GOALS)
def test_texts_of_one_group_have_logits_that_know_nothing(goal):
    train = rows_of(goal)._replace(groups=np.zeros(160, np.int64))
    base = fit(goal, train, train, penalty=3.0, folds=True).base
    assert np.isfinite(base).all()
    assert (base == base[0]).all()


@pytest.mark.parametrize("goal", ["labels", "class"])
def test_a_label_of_no_text_or_of_all_has_a_share_and_no_words(goal):
    train = rows_of(goal)
    truth = train.truth.copy()
    if goal == "class":
        truth = np.eye(3, dtype=np.float32)[truth.argmax(1) % 2]
    else:
        truth[:, 1], truth[:, 2] = 1, 0
    fitted = fit(goal, train._replace(truth=truth), train._replace(truth=truth), penalty=3.0)
    assert not fitted.weight[:, 2].any()
    assert fitted.bias[2] == pytest.approx(-np.log(161), abs=0.01)
    if goal == "labels":
        assert fitted.bias[1] == pytest.approx(np.log(161), abs=0.01)
    logits = linear_logits(fitted, train)
    assert (logits[:, 2] < logits[:, 0]).mean() > 0.5


def test_two_classes_are_as_probable_as_by_one_logistic_regression():
    train = rows_of("class")
    truth = np.eye(2, dtype=np.float32)[train.truth.argmax(1) % 2]
    train = train._replace(truth=truth)
    fitted = fit("class", train, train, penalty=3.0)
    inputs = hstack([train.counted, train.table * linear.TABLE_SCALE]).tocsr()
    model = LogisticRegression(C=3.0, max_iter=300, tol=1e-4).fit(inputs, truth.argmax(1))
    logits = linear_logits(fitted, train)
    np.testing.assert_allclose(
        logits[:, 1] - logits[:, 0], model.decision_function(inputs), atol=1e-3
    )


def test_a_refit_has_the_texts_of_both_parts_and_the_penalty():
    train, validation = rows_of("labels"), rows_of("labels", 80, seed=3)
    fitted = fit("labels", train, validation)
    again = refit_linear(fitted, (train, validation), "labels")
    assert again.penalty == fitted.penalty
    both = Rows(
        csr_matrix(np.concatenate([train.counted.toarray(), validation.counted.toarray()])),
        np.concatenate([train.table, validation.table]),
        np.concatenate([train.truth, validation.truth]),
        np.arange(240),
        np.concatenate([train.source, validation.source]),
        2,
    )
    weight, bias = by_scikit_learn(both, "labels", fitted.penalty)
    np.testing.assert_allclose(again.weight, weight[:TERMS], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(again.bias, bias, rtol=1e-3, atol=1e-3)


def test_sources_differ_where_the_validation_part_says_so():
    alike, validation = rows_of("number", 300), rows_of("number", 120, seed=3)
    assert best_linear(alike, validation, "number").sources is None

    def turned(rows: Rows) -> Rows:
        sign = np.where(rows.source == 1, -1, 1)[:, None]
        return rows._replace(truth=(rows.truth * sign).astype(np.float32))

    fitted = best_linear(turned(alike), turned(validation), "number")
    fitted = with_base(fitted, turned(alike), "number", seed=0)
    assert fitted.sources is not None
    assert fitted.base.shape == alike.truth.shape
    assert "deviations of 2 sources" in fitted.words


def test_a_source_that_is_not_known_has_what_all_share():
    train = rows_of("number", 300)
    fitted = fit("number", train, train, penalty=1.0, by_source=True)
    unknown = train._replace(source=np.full(300, 2))
    shared = fitted._replace(sources=None)
    np.testing.assert_allclose(
        linear_logits(fitted, unknown), linear_logits(shared, train), atol=1e-6
    )


def test_losses_are_those_of_their_formulas():
    logits = np.array([[2.0, -1.0], [0.0, 3.0]])
    truth = np.array([[1.0, 0.0], [1.0, 0.0]])
    p = 1 / (1 + np.exp(-logits))
    labels = -(truth * np.log(p) + (1 - truth) * np.log(1 - p)).mean(1)
    np.testing.assert_allclose(losses(logits, truth, "labels"), labels)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(losses(logits, truth, "class"), -np.log(shares[:, 0]))
    np.testing.assert_allclose(losses(logits, truth, "number"), ((logits - truth) ** 2).mean(1))
    assert np.isfinite(losses(np.array([[900.0, -900.0]]), truth[:1], "labels")).all()


def test_labels_are_fitted_one_after_the_other(monkeypatch):
    """liblinear is not safe in threads: two fits at once gave other weights in a call of five."""
    from sklearn.linear_model import LogisticRegression

    plain, lock, running = LogisticRegression.fit, threading.Lock(), []

    def alone(model, *values):
        assert lock.acquire(blocking=False), "two fits at once"
        try:
            running.append(1)
            time.sleep(0.01)
            return plain(model, *values)
        finally:
            lock.release()

    monkeypatch.setattr(LogisticRegression, "fit", alone)
    train = rows_of("labels")
    fit("labels", train, train, penalty=3.0)
    assert len(running) == train.truth.shape[1]
