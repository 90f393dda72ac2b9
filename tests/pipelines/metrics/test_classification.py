"""Scores against scikit-learn and by hand; the bootstrap against a plain loop."""

import itertools

import numpy as np
import pytest
from sklearn import metrics

from headwise.pipelines.metrics.bootstrap import draw_weights
from headwise.pipelines.metrics.classification import (
    NAMES,
    bootstrap,
    reliability,
    scores,
    weighted_auc,
)


def sample(
    count: int, classes: int, seed: int = 0, *, ties: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    logits = rng.normal(size=(count, classes)) + 1.2 * np.eye(classes)[labels]
    logits = logits.round(0) if ties else logits
    probability = np.exp(logits)
    return labels, probability / probability.sum(1, keepdims=True)


def by_sklearn(labels: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    predicted, classes = probability.argmax(1), probability.shape[1]
    if classes == 2:
        auc = metrics.roc_auc_score(labels, probability[:, 1])
    else:
        auc = metrics.roc_auc_score(
            labels, probability, multi_class="ovr", average="macro", labels=range(classes)
        )
    top, edges = probability.max(1), np.linspace(0, 1, 11)
    error = 0.0
    for low, high in itertools.pairwise(edges):
        inside = (top > low) & (top <= high)
        if inside.any():
            error += inside.mean() * abs((predicted == labels)[inside].mean() - top[inside].mean())
    return {
        "auc": float(auc),
        "accuracy": metrics.accuracy_score(labels, predicted),
        "balanced_accuracy": metrics.balanced_accuracy_score(labels, predicted),
        "macro_f1": metrics.f1_score(labels, predicted, average="macro"),
        "log_loss": metrics.log_loss(labels, probability, labels=range(classes)),
        "brier": float(np.square(probability - np.eye(classes)[labels]).sum(1).mean()),
        "ece": error,
    }


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("ties", [False, True])
def test_scores_are_scikit_learns(classes: int, ties: bool) -> None:
    data = sample(300, classes, ties=ties)
    got, expected = scores(*data), by_sklearn(*data)
    assert tuple(got) == NAMES
    for name in NAMES:
        assert got[name] == pytest.approx(expected[name], abs=1e-12), name


def test_weighted_auc_is_scikit_learns() -> None:
    labels, probability = sample(120, 2, ties=True)
    weights = np.random.default_rng(1).integers(0, 4, (5, 120)).astype(float)
    got = weighted_auc(labels == 1, probability[:, 1], weights)
    for row, value in zip(weights, got, strict=True):
        assert value == pytest.approx(
            metrics.roc_auc_score(labels, probability[:, 1], sample_weight=row), abs=1e-12
        )


def test_calibration_by_hand() -> None:
    """Four samples at 0.95, three of them right; two at 0.6, both wrong: ECE = (4 * 0.20 + 2 * 0.6)
    / 6.
    """
    top = np.array([0.95, 0.95, 0.95, 0.95, 0.6, 0.6])
    labels = np.array([1, 1, 1, 0, 0, 0])
    probability = np.stack([1 - top, top], 1)
    assert scores(labels, probability)["ece"] == pytest.approx((4 * 0.2 + 2 * 0.6) / 6)
    result = reliability(labels, probability)
    assert result.count.tolist() == [0, 0, 0, 0, 0, 2, 0, 0, 0, 4]
    assert result.accuracy[[5, 9]].tolist() == [0.0, 0.75]
    np.testing.assert_allclose(result.confidence[[5, 9]], [0.6, 0.95])
    assert np.isnan(result.accuracy[0])


@pytest.mark.parametrize("classes", [2, 3])
def test_the_bootstrap_is_the_plain_loop_over_groups(classes: int) -> None:
    labels, probability = sample(60, classes, seed=3)
    groups = np.repeat([f"p{k}" for k in range(20)], 3)
    (counts,) = draw_weights(20, 40, seed=5)
    rows = {name: [] for name in NAMES}
    names = np.unique(groups)
    for row in counts:
        chosen = np.concatenate(
            [np.tile(np.flatnonzero(groups == names[g]), int(n)) for g, n in enumerate(row)]
        )
        for name, value in by_sklearn(labels[chosen], probability[chosen]).items():
            rows[name].append(value)
    got = bootstrap(labels, probability, groups, draws=40, seed=5)
    for name in NAMES:
        np.testing.assert_allclose(
            got[name], np.quantile(rows[name], [0.025, 0.975]), atol=1e-9, err_msg=name
        )


def test_blocks_of_draws_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, probability = sample(50, 3)
    at_once = bootstrap(labels, probability, np.arange(50), draws=30)
    monkeypatch.setattr("headwise.pipelines.metrics.bootstrap.BLOCK_NUMBERS", 100)
    for name, interval in bootstrap(labels, probability, np.arange(50), draws=30).items():
        assert interval == pytest.approx(at_once[name])


def test_an_interval_by_patient_is_wider_than_by_slide() -> None:
    """Ten slides of a patient that are alike say no more than one."""
    labels, probability = sample(30, 2, seed=2)
    labels, probability = np.repeat(labels, 10), np.repeat(probability, 10, 0)
    by_patient = bootstrap(labels, probability, np.repeat(np.arange(30), 10))["auc"]
    by_slide = bootstrap(labels, probability, np.arange(300))["auc"]
    assert by_patient[1] - by_patient[0] > 2 * (by_slide[1] - by_slide[0])


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Accuracy of a coin that is right 7 times of 10, 200 experiments of 80 samples."""
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        labels = rng.integers(0, 2, 80)
        called = np.where(rng.random(80) < 0.7, labels, 1 - labels)
        low, high = bootstrap(labels, np.eye(2)[called] * 0.8 + 0.1, np.arange(80), draws=300)[
            "accuracy"
        ]
        inside += low <= 0.7 <= high
    assert 0.89 <= inside / 200 <= 0.99


def test_what_one_class_cannot_tell_is_nan() -> None:
    _, probability = sample(10, 2)
    result = scores(np.ones(10, int), probability)
    assert np.isnan(result["auc"])
    assert result["balanced_accuracy"] == result["accuracy"]
    assert all(
        map(np.isnan, bootstrap(np.ones(10, int), probability, np.arange(10), draws=20)["auc"])
    )
    three = np.tile([0.2, 0.5, 0.3], (4, 1))
    assert scores(np.array([0, 1, 0, 1]), three)["auc"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("labels", "probability", "message"),
    [
        (np.zeros(3, int), np.ones((3, 1)), "C > 1"),
        (np.zeros(2, int), np.full((3, 2), 0.5), "labels"),
        (np.array([0, 2]), np.full((2, 2), 0.5), "from 0 to 1"),
        (np.array([0.0, 1.0]), np.full((2, 2), 0.5), "whole numbers"),
        (np.array([0, 1]), np.full((2, 2), np.nan), "finite"),
    ],
)
def test_mistakes_are_named(labels: np.ndarray, probability: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scores(labels, probability)
    with pytest.raises(ValueError, match="do not fit"):
        bootstrap(np.zeros(2, int), np.full((2, 2), 0.5), np.arange(3))
