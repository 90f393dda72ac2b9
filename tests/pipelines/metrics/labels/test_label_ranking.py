"""Rankings of labels against scikit-learn and plain loops over all orders of equal scores."""

from itertools import permutations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, coverage_error, label_ranking_loss, ndcg_score

from headwise.pipelines.metrics.bootstrap import draw_weights, percentile_interval
from headwise.pipelines.metrics.labels import ranking


def case(seed=0, texts=40, labels=7, steps=5):
    """Many equal scores, of true and false labels. The first text has no label, the second all but
    the last one, which nobody has."""
    generator = np.random.default_rng(seed)
    truth = generator.random((texts, labels)) < 0.3
    truth[0], truth[1] = False, True
    truth[:, -1] = False
    score = (generator.integers(0, steps, (texts, labels)) + truth) / 4
    return truth, score


def over_orders(truth, score, k, gain):
    """Mean over all orders of the labels that sort by score."""
    values = []
    for order in permutations(range(len(score))):
        ordered = score[list(order)]
        if (np.diff(ordered) <= 0).all():
            values.append(gain(truth[list(order)][:k]))
    return np.mean(values)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_equal_scores_count_as_the_mean_over_their_orders(k):
    truth, score = case(texts=12, labels=5, steps=3)
    discounts = 1 / np.log2(np.arange(2, 7))
    for row in range(12):
        expected = over_orders(truth[row], score[row], k, lambda hits: hits.sum() / k)
        assert ranking.precision_at(truth, score, k)[row] == pytest.approx(expected)
        count = min(k, truth[row].sum())
        value = ranking.ndcg_at(truth, score, k)[row]
        if not count:
            assert np.isnan(value)
            continue
        gain = over_orders(truth[row], score[row], k, lambda hits: hits @ discounts[: len(hits)])
        assert value == pytest.approx(gain / discounts[:count].sum())


def test_a_depth_beyond_the_labels_counts_missing_ones_as_wrong():
    truth, score = np.array([[True, False]]), np.array([[0.1, 0.2]])
    assert ranking.precision_at(truth, score, 5) == pytest.approx([0.2])
    assert ranking.ndcg_at(truth, score, 5) == pytest.approx([1 / np.log2(3)])


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_scikit_learns_on_the_texts_where_they_are_defined(seed):
    truth, score = case(seed)
    some = truth.any(1)
    pairs = some & ~truth.all(1)
    for k in (1, 3, 5):
        expected = ndcg_score(truth[some], score[some], k=k)
        assert np.nanmean(ranking.ndcg_at(truth, score, k)) == pytest.approx(expected)
    expected = coverage_error(truth[some], score[some])
    assert np.nanmean(ranking.coverage_error(truth, score)) == pytest.approx(expected)
    expected = label_ranking_loss(truth[pairs], score[pairs])
    assert np.nanmean(ranking.ranking_loss(truth, score)) == pytest.approx(expected)
    assert np.isnan(ranking.ranking_loss(truth, score)[~pairs]).all()
    assert np.isnan(ranking.coverage_error(truth, score)[~some]).all()


def test_average_precisions_are_scikit_learns_over_labels_that_occur():
    truth, score = case()
    by_label = ranking.label_average_precision(truth, score)
    expected = [average_precision_score(truth[:, k], score[:, k]) for k in range(6)]
    np.testing.assert_allclose(by_label[:6], expected)
    assert np.isnan(by_label[6])
    assert ranking.mean_average_precision(truth, score) == pytest.approx(np.mean(expected))
    micro = average_precision_score(truth.ravel(), score.ravel())
    assert ranking.micro_average_precision(truth, score) == pytest.approx(micro)


def test_a_draw_is_worth_what_its_texts_repeated_are_worth():
    truth, score = case()
    groups = np.arange(40) // 3
    weights = next(draw_weights(groups, 6, 1))
    values = ranking.weighted_ranking(truth, score, weights)
    for draw, row in enumerate(weights):
        rows = np.repeat(np.arange(40), row.astype(int))
        plain = ranking.ranking_scores(truth[rows], score[rows])
        for name, value in values.items():
            assert value[draw] == pytest.approx(plain[name], nan_ok=True), name


def test_intervals_are_those_of_groups_that_are_drawn():
    truth, score = case()
    groups = [f"source {k // 5}" for k in range(40)]
    ends = ranking.ranking_bootstrap(truth, score, groups, draws=30, seed=2)
    precision = ranking.precision_at(truth, score, 3)
    weights = np.concatenate(list(draw_weights(groups, 30, 2)))
    expected = percentile_interval(weights @ precision / weights.sum(1))
    assert ends["precision_at_3"] == pytest.approx(expected)
    assert set(ends) == set(ranking.ranking_scores(truth, score)) - {"micro_ap"}


def test_the_interval_of_rare_labels_is_about_their_score():
    """Draws of it lie above: a text drawn twice doubles the precision of a label of its own."""
    generator = np.random.default_rng(0)
    truth = np.eye(80, dtype=bool)[:, :40]
    score = generator.normal(size=truth.shape)
    value = ranking.mean_average_precision(truth, score)
    (weights,) = draw_weights(80, 200, 0)
    draws = ranking.weighted_ranking(truth, score, weights)["map"]
    assert (draws > value).mean() > 0.9
    low, high = percentile_interval(draws)
    centred = ranking.ranking_bootstrap(truth, score, 80, draws=200)["map"]
    assert centred[0] - value == pytest.approx(low - draws.mean())
    assert centred[1] - centred[0] == pytest.approx(high - low)


def test_a_perfect_and_the_opposite_ranking():
    truth, _ = case()
    best = ranking.ranking_scores(truth, truth.astype(float))
    assert best["ndcg_at_5"] == best["map"] == best["micro_ap"] == 1
    assert best["ranking_loss"] == 0
    assert best["coverage_error"] == pytest.approx(truth.sum(1)[truth.any(1)].mean())
    assert ranking.ranking_scores(truth, -truth.astype(float))["ranking_loss"] == 1
    assert np.isnan(ranking.ranking_loss(np.ones((1, 3), bool), np.zeros((1, 3)))).all()


def test_what_does_not_fit_is_refused():
    truth, score = case()
    for wrong in ((truth, score[:, :2]), (truth.astype(int), score), (truth, score * np.nan)):
        with pytest.raises(ValueError, match="ndcg_at"):
            ranking.ndcg_at(*wrong, 3)
    with pytest.raises(ValueError, match="k = 0"):
        ranking.precision_at(truth, score, 0)
