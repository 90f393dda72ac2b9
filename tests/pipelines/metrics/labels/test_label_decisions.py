"""Scores of labels that are given against scikit-learn and plain loops."""

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from headwise.pipelines.metrics.bootstrap import draw_weights
from headwise.pipelines.metrics.labels import decisions


def case(seed=0):
    """The last label nobody has or is given, the one before is given and nobody has it; the first
    text has none and is given none."""
    generator = np.random.default_rng(seed)
    truth = generator.random((50, 6)) < (0.5, 0.3, 0.2, 0.1, 0.0, 0.0)
    logits = generator.normal(size=(50, 6)) + 2 * truth
    logits[:, -1] = -9
    truth[0], logits[0] = False, -9
    return truth, logits


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_scikit_learns_where_something_occurs_or_is_given(seed):
    truth, logits = case(seed)
    called = decisions.given_labels(logits, np.linspace(0.2, 1.2, 6))
    scores = decisions.decision_scores(truth, called)
    labels, texts = (truth | called).any(0), (truth | called).any(1)
    for average, rows, columns in (
        ("micro", slice(None), slice(None)),
        ("macro", slice(None), labels),
        ("samples", texts, slice(None)),
    ):
        expected = precision_recall_fscore_support(
            truth[rows][:, columns], called[rows][:, columns], average=average, zero_division=0
        )
        prefix = "sample" if average == "samples" else average
        names = (f"{prefix}_{name}" for name in ("precision", "recall", "f1"))
        assert [scores[name] for name in names] == pytest.approx(expected[:3])
    assert scores["exact_match"] == (truth == called).all(1).mean()
    by_label = decisions.label_decisions(truth, called)
    expected = precision_recall_fscore_support(truth, called, average=None, zero_division=0)
    np.testing.assert_allclose(by_label.f1[labels], expected[2][labels])
    assert np.isnan(by_label.precision[~labels]).all()


def test_a_draw_is_worth_what_its_texts_repeated_are_worth():
    truth, logits = case()
    called = logits >= 0.5
    weights = next(draw_weights(np.arange(50) // 4, 5, 0))
    values = decisions.weighted_decisions(truth, called, weights)
    for draw, row in enumerate(weights):
        rows = np.repeat(np.arange(50), row.astype(int))
        plain = decisions.decision_scores(truth[rows], called[rows])
        assert {name: value[draw] for name, value in values.items()} == pytest.approx(plain)
    intervals = decisions.decision_bootstrap(truth, called, np.arange(50) // 4, draws=50)
    scores = decisions.decision_scores(truth, called)
    for name in ("micro_f1", "macro_precision", "macro_recall", "macro_f1"):
        assert intervals[name][0] < scores[name] < intervals[name][1], name


def test_thresholds_are_not_rounded_to_the_type_of_the_logits():
    logits = np.array([[0.1]], np.float32)
    above = np.nextafter(float(logits[0, 0]), 1)
    assert np.float32(above) == logits[0, 0]
    assert not decisions.given_labels(logits, above).any()


def test_a_tree_holds_ancestors_that_are_no_labels():
    tree, parents = decisions.label_tree(["a::b::c", "d", "a::x", "a"])
    assert tree == ["a::b::c", "d", "a::x", "a", "a::b"]
    assert parents.tolist() == [4, -1, 3, -1, 3]
    labels = np.eye(4, dtype=bool)
    expected = [{0, 3, 4}, {1}, {2, 3}, {3}]
    for row, places in zip(decisions.with_ancestors(labels, parents), expected, strict=True):
        assert set(np.flatnonzero(row)) == places


def test_hierarchical_scores_are_those_of_sets_of_ancestors():
    generator = np.random.default_rng(1)
    parents = np.array([4, 4, 5, 5, 6, 6, -1])  # two levels above the labels
    truth, called = generator.random((2, 30, 4)) < 0.3

    def up(row):
        places = set(np.flatnonzero(row))
        for _ in range(3):
            places |= {int(parents[k]) for k in places if parents[k] >= 0}
        return places

    true, given = [up(row) for row in truth], [up(row) for row in called]
    both = sum(len(a & b) for a, b in zip(true, given, strict=True))
    precision, recall = both / sum(map(len, given)), both / sum(map(len, true))
    scores = decisions.hierarchical_scores(truth, called, parents)
    assert scores["hierarchical_precision"] == pytest.approx(precision)
    assert scores["hierarchical_recall"] == pytest.approx(recall)
    assert scores["hierarchical_f1"] == pytest.approx(2 / (1 / precision + 1 / recall))


def test_trees_that_are_none_are_refused():
    labels = np.zeros((2, 3), bool)
    for parents in ([1, 2, 0], [3, -1, -1], [-2, -1, -1], [-1, -1], [0.0, -1, -1]):
        with pytest.raises(ValueError, match="with_ancestors"):
            decisions.with_ancestors(labels, np.array(parents))
    with pytest.raises(ValueError, match="twice"):
        decisions.label_tree(["a", "a"])


def test_buckets_are_thirds_that_never_divide_equal_counts():
    counts = np.array([1, 2, 2, 2, 50, 60, 70, 800, 900])
    buckets = decisions.frequency_buckets(counts)
    assert buckets.edges == (2, 60)
    assert [buckets.columns(name).tolist() for name in decisions.BUCKETS] == [
        [0, 1, 2, 3], [4, 5], [6, 7, 8]
    ]  # fmt: skip
    set_by_hand = decisions.frequency_buckets(counts, (1, 799))
    assert set_by_hand.bucket.tolist() == [0, 1, 1, 1, 1, 1, 1, 2, 2]
    with pytest.raises(ValueError, match="fall"):
        decisions.frequency_buckets(counts, (5, 4))


def plain_error(truth, probability, bins):
    """Expected calibration error of flat arrays."""
    total = 0.0
    for k in range(bins):
        inside = (probability > k / bins) & (probability <= (k + 1) / bins)
        if k == 0:
            inside |= probability == 0
        if inside.any():
            total += inside.sum() * abs(truth[inside].mean() - probability[inside].mean())
    return total / len(truth)


def test_calibration_errors_are_those_of_a_plain_loop():
    generator = np.random.default_rng(0)
    truth = generator.random((80, 3)) < 0.3
    probability = generator.random((80, 3)) ** 3
    probability[:4] = [[0.0], [0.125], [0.5], [1.0]]
    result = decisions.label_reliability(truth, probability, bins=8)
    expected = [plain_error(truth[:, k], probability[:, k], 8) for k in range(3)]
    np.testing.assert_allclose(result.errors, expected)
    assert result.mean_error == pytest.approx(np.mean(expected))
    overall = plain_error(truth.ravel(), probability.ravel(), 8)
    assert result.overall_error == pytest.approx(overall)
    assert result.count.sum(1).tolist() == [80] * 3
    weights = next(draw_weights(80, 3, 0))
    values = decisions.weighted_calibration_error(truth, probability, weights, bins=8)
    for draw, row in enumerate(weights):
        rows = np.repeat(np.arange(80), row.astype(int))
        expected = plain_error(truth[rows].ravel(), probability[rows].ravel(), 8)
        assert values[draw] == pytest.approx(expected)


def test_what_does_not_fit_is_refused():
    truth, logits = case()
    with pytest.raises(ValueError, match="decision_scores"):
        decisions.decision_scores(truth, logits)
    with pytest.raises(ValueError, match="given_labels"):
        decisions.given_labels(logits, np.zeros(3))
    with pytest.raises(ValueError, match="between 0 and 1"):
        decisions.label_reliability(truth, logits)
