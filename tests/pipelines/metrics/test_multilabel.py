"""Scores of several labels against scikit-learn and plain loops; labels that are not known."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, confusion_matrix, log_loss, roc_auc_score

from headwise.pipelines.metrics.bootstrap import draw_weights, percentile_interval
from headwise.pipelines.metrics.multilabel import NAMES, label_scores


@pytest.fixture
def case():
    """60 samples of 20 patients, four labels; the last one nobody has."""
    generator = np.random.default_rng(3)
    truth = generator.random((60, 4)) < (0.5, 0.3, 0.1, 0.0)
    known = generator.random((60, 4)) < 0.8
    probability = np.clip(generator.random((60, 4)) * 0.8 + 0.2 * truth, 0, 1).round(2)
    return truth & known, known, probability, np.array([0.5, 0.4, 0.6, 0.5]), np.arange(60) // 3


def plain_scores(truth, score, threshold):
    """By scikit-learn, of one label."""
    (clear, alarm), (missed, hit) = confusion_matrix(truth, score >= threshold, labels=[0, 1])
    return {
        "auc": roc_auc_score(truth, score),
        "auprc": average_precision_score(truth, score),
        "sensitivity": hit / (hit + missed),
        "specificity": clear / (clear + alarm),
        "ppv": hit / (hit + alarm),
        "npv": clear / (clear + missed),
        "log_loss": log_loss(truth, score, labels=[0, 1]),
        "brier": float(((score - truth) ** 2).mean()),
    }


def test_scores_are_scikit_learns_on_the_samples_that_are_known(case):
    truth, known, probability, thresholds, groups = case
    scores = label_scores(*case[:4], groups, draws=20)
    expected = [
        plain_scores(truth[known[:, k], k], probability[known[:, k], k], thresholds[k])
        for k in range(3)
    ]
    for k in range(3):
        for name in NAMES:
            assert scores.values[k][name] == pytest.approx(expected[k][name]), (k, name)
    for name in ("auc", "auprc", "sensitivity"):
        assert np.isnan(scores.values[3][name])
        assert scores.means[name] == pytest.approx(np.mean([row[name] for row in expected]))
    specificity = (probability[known[:, 3], 3] < thresholds[3]).mean()
    mean = np.mean([*(row["specificity"] for row in expected), specificity])
    assert scores.means["specificity"] == pytest.approx(mean)
    assert scores.defined == 3


def test_what_is_not_known_changes_no_score(case):
    truth, known, probability, thresholds, groups = case
    other = np.where(known, probability, 1 - probability)
    first = label_scores(truth, known, probability, thresholds, groups, draws=50)
    again = label_scores(truth | ~known, known, other, thresholds, groups, draws=50)
    np.testing.assert_equal(first.values, again.values)
    np.testing.assert_equal(first.mean_intervals, again.mean_intervals)


def test_intervals_are_those_of_patients_that_are_drawn(case):
    """The mean is over the labels that a draw has."""
    truth, known, probability, _, groups = case
    scores = label_scores(*case[:4], groups, draws=40, seed=5)
    areas = []
    for weights in draw_weights(groups, 40, 5):
        for row in weights:
            rows = np.repeat(np.arange(60), row.astype(int))
            drawn = []
            for k in range(4):
                places = rows[known[rows, k]]
                if len(set(truth[places, k])) == 2:
                    drawn.append(roc_auc_score(truth[places, k], probability[places, k]))
                else:
                    drawn.append(np.nan)
            areas.append(drawn)
    areas = np.array(areas)
    for k in range(3):
        expected = percentile_interval(areas[:, k])
        assert scores.intervals[k]["auc"] == pytest.approx(expected)
    assert scores.mean_intervals["auc"] == pytest.approx(percentile_interval(np.nanmean(areas, 1)))


def test_shapes_that_do_not_fit_are_refused(case):
    truth, known, probability, thresholds, groups = case
    for wrong in (
        (truth, known, probability[:, :2], thresholds, groups),
        (truth, known, probability, thresholds[:2], groups),
        (truth.astype(int), known, probability, thresholds, groups),
        (truth, known, probability * np.nan, thresholds, groups),
        (truth, known, probability, thresholds, groups[:4]),
    ):
        with pytest.raises(ValueError, match="label_scores"):
            label_scores(*wrong)
