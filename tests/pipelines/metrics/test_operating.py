"""Scores at an operating point against scikit-learn; thresholds and temperatures against a plain
search.
"""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from headwise.pipelines.metrics.operating import (
    choose_threshold,
    fit_temperature,
    operating_bootstrap,
    operating_scores,
)


def sample(count=60, seed=0, steps=7):
    generator = np.random.default_rng(seed)
    positive = generator.random(count) < 0.4
    return positive, np.round(generator.random(count) * steps + positive) / (steps + 1)


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_scikit_learns(seed) -> None:
    positive, score = sample(seed=seed)
    result = operating_scores(positive, score, 0.5)
    assert result["auc"] == pytest.approx(roc_auc_score(positive, score))
    assert result["auprc"] == pytest.approx(average_precision_score(positive, score))
    called = score >= 0.5
    assert result["sensitivity"] == pytest.approx(called[positive].mean())
    assert result["specificity"] == pytest.approx((~called[~positive]).mean())
    assert result["ppv"] == pytest.approx(positive[called].mean())
    assert result["npv"] == pytest.approx((~positive[~called]).mean())


def test_undefined_scores_are_nan() -> None:
    result = operating_scores(np.zeros(3, bool), np.array([0.1, 0.2, 0.3]), 0.5)
    assert np.isnan([result["auc"], result["auprc"], result["sensitivity"], result["ppv"]]).all()
    assert result["specificity"] == 1
    with pytest.raises(ValueError, match=r"are \(N,\)"):
        operating_scores(np.zeros(3, bool), np.zeros(4), 0.5)


def test_intervals_draw_whole_patients() -> None:
    positive, score = sample(200)
    alone = operating_bootstrap(positive, score, 0.5, np.arange(200))
    assert all(low < high for low, high in alone.values())
    fewer = operating_bootstrap(positive, score, 0.5, np.arange(200) // 20)
    point = operating_scores(positive, score, 0.5)
    assert all(low <= point[name] <= high for name, (low, high) in alone.items())
    # One patient: every draw is the data itself.
    single = operating_bootstrap(positive, score, 0.5, np.zeros(200))
    assert all(
        low == pytest.approx(high) == pytest.approx(point[name])
        for name, (low, high) in single.items()
    )
    assert fewer != alone


@pytest.mark.parametrize("seed", range(5))
def test_the_threshold_is_the_best_of_all(seed) -> None:
    positive, score = sample(seed=seed)

    def at(cut):
        return (score[positive] >= cut).mean(), (score[~positive] < cut).mean()

    tried = np.linspace(-0.01, 1.01, 2000)
    hit, clear = at(choose_threshold(positive, score))
    assert hit + clear == pytest.approx(max(sum(at(cut)) for cut in tried))
    hit, clear = at(choose_threshold(positive, score, 0.9))
    assert hit >= 0.9
    assert clear == pytest.approx(
        max(specificity for sensitivity, specificity in map(at, tried) if sensitivity >= 0.9)
    )
    assert choose_threshold(np.ones(3, bool), np.zeros(3)) == 0.5


def test_the_temperature_is_found() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(4000, 3))
    chance = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (chance.cumsum(1) > generator.random((4000, 1))).argmax(1)
    assert fit_temperature(labels, 3 * logits) == pytest.approx(3, rel=0.1)
    assert fit_temperature(labels[:0], logits[:0]) == 1


def test_samples_that_are_all_right_are_no_proof_that_the_next_one_is() -> None:
    """The mean probability of the true class of N of them is that of the rule of succession."""
    for count in (3, 30, 300):
        labels = np.arange(count) % 3
        logits = np.where(np.eye(3)[labels] > 0, 4.0, 0.0)
        chance = np.exp(logits / fit_temperature(labels, logits))
        right = (chance / chance.sum(1, keepdims=True))[np.arange(count), labels]
        assert right == pytest.approx((count + 1) / (count + 2), abs=1e-4)
