"""Thresholds against a search over all of them, and on texts that they were not chosen on."""

import numpy as np
import pytest

from headwise.pipelines.metrics.bootstrap import draw_weights
from headwise.pipelines.metrics.labels import thresholds
from headwise.pipelines.metrics.labels.decisions import decision_scores, given_labels


def case(seed=0, texts=60, labels=5):
    """Equal logits occur; the last label nobody has."""
    generator = np.random.default_rng(seed)
    truth = generator.random((texts, labels)) < (0.5, 0.3, 0.2, 0.05, 0.0)
    return truth, (generator.normal(size=(texts, labels)) + 1.5 * truth).round(1)


def rare_labels(texts, seed):
    """Logits that are too low for rare labels, as those of a regression with a penalty are."""
    generator = np.random.default_rng(seed)
    share = np.geomspace(0.004, 0.2, 60)
    truth = generator.random((texts, 60)) < share
    offset = 0.9 * np.log(share) + np.random.default_rng(99).normal(0, 0.4, 60)
    return truth, generator.normal(size=truth.shape) + 3 * truth + offset


def f1(truth, called):
    return 2 * (truth & called).sum() / (truth.sum() + called.sum())


def candidates(logits):
    values = np.unique(logits)
    return np.r_[values[0], (values[1:] + values[:-1]) / 2]


@pytest.mark.parametrize("seed", range(5))
def test_the_single_threshold_has_the_highest_micro_f1_of_all(seed):
    truth, logits = case(seed)
    threshold = thresholds.best_single_threshold(truth, logits)
    best = max(f1(truth, logits >= t) for t in candidates(logits))
    reached = f1(truth, given_labels(logits, threshold))
    assert reached == pytest.approx(best, abs=1e-12)
    assert threshold in candidates(logits)


@pytest.mark.parametrize("seed", range(5))
def test_thresholds_of_labels_have_the_highest_f1_of_all(seed):
    truth, logits = case(seed)
    chosen = thresholds.best_label_thresholds(truth, logits)
    for k in range(4):
        column = logits[:, k]
        best = max(f1(truth[:, k], column >= t) for t in candidates(column))
        assert f1(truth[:, k], column >= chosen[k]) == pytest.approx(best, abs=1e-12)
    assert chosen[4] == thresholds.best_single_threshold(truth, logits)
    assert thresholds.best_label_thresholds(truth, logits, fallback=7.0)[4] == 7


def test_between_two_neighbouring_numbers_the_threshold_is_the_upper():
    """Their mean would be rounded to the lower, which then would be given, too."""
    low = 1 + 2.0**-52
    high = np.nextafter(low, 2)
    assert (low + high) / 2 in (low, high)
    truth, logits = np.array([[True], [False]]), np.array([[high], [low]])
    assert thresholds.best_label_thresholds(truth, logits)[0] == high
    logits = np.array([[low], [1.0]])
    assert thresholds.best_label_thresholds(truth, logits)[0] > 1


def test_one_draw_has_the_best_thresholds_of_its_texts_repeated():
    truth, logits = case(texts=90)
    groups = np.arange(90) // 3
    mean = thresholds.mean_label_thresholds(
        truth, logits, groups, micro_weights=[0.0], draws=4, seed=3
    )[0]
    expected = []
    for row in np.concatenate(list(draw_weights(groups, 4, 3))):
        rows = np.repeat(np.arange(90), row.astype(int))
        best = thresholds.best_label_thresholds(truth[rows], logits[rows])
        expected.append(np.where(truth[rows].any(0), best, np.nan))
    np.testing.assert_allclose(mean[:4], np.nanmean(np.array(expected)[:, :4], 0))
    assert mean[4] == thresholds.best_single_threshold(truth, logits)


@pytest.mark.parametrize("weight", [0.5, 2.0, 50.0])
def test_best_is_where_f1_and_its_part_of_micro_f1_are_highest(weight, monkeypatch):
    """Of all texts once, by the formula, over all thresholds."""
    monkeypatch.setattr(thresholds, "draw_weights", lambda *_: [np.ones((1, 60))])
    truth, logits = case()
    chosen = thresholds.mean_label_thresholds(truth, logits, micro_weights=[weight])[0]
    single = logits >= thresholds.best_single_threshold(truth, logits)
    pairs = single.sum() + truth.sum()
    micro = 2 * (single & truth).sum() / pairs
    for k in range(4):

        def value(threshold, k=k):
            called = logits[:, k] >= threshold
            hits, both = (called & truth[:, k]).sum(), called.sum() + truth[:, k].sum()
            return 2 * hits / both / 5 + weight * (2 * hits - micro * both) / pairs

        best = max(value(t) for t in candidates(logits[:, k]))
        assert value(chosen[k]) == pytest.approx(best, abs=1e-12)


def test_shrunk_thresholds_gain_in_macro_f1_and_lose_no_micro_f1_on_new_texts():
    """The best thresholds of labels lose it, as they are chosen from a few texts each."""
    gains = []
    for seed in range(3):
        truth, logits = rare_labels(500, seed)
        new_truth, new_logits = rare_labels(3000, 100 + seed)
        chosen = thresholds.shrunk_thresholds(truth, logits, draws=15, seed=seed)
        scores = [
            decision_scores(new_truth, given_labels(new_logits, t))
            for t in (
                chosen.single,
                chosen.thresholds,
                thresholds.best_label_thresholds(truth, logits),
            )
        ]
        gains.append([[s["micro_f1"], s["macro_f1"]] for s in scores])
    single, shrunk, best = np.mean(gains, 0)
    assert shrunk[0] > single[0]
    assert shrunk[1] > single[1] + 0.05
    assert shrunk[0] > best[0] + 0.005
    assert shrunk[1] > best[1] - 0.005


def test_the_choice_keeps_micro_f1_on_held_out_groups_and_says_how():
    generator = np.random.default_rng(1)
    share = np.geomspace(0.01, 0.3, 20)
    truth = generator.random((300, 20)) < share
    # Log-odds of the truth, of which a single threshold has the best micro-F1.
    logits = 2 * (generator.normal(size=truth.shape) + 2 * truth - 1) + np.log(share / (1 - share))
    groups = np.arange(300) // 4
    chosen = thresholds.shrunk_thresholds(truth, logits, groups, draws=10)
    table = {row[:2]: row[2:] for row in chosen.tried}
    single = table[0.0, 0.0]
    micro, macro = table[chosen.micro_weight, chosen.strength]
    assert single[0] <= micro
    assert max(row[3] for row in chosen.tried) > macro > single[1]
    assert macro == max(row[3] for row in chosen.tried if row[2] >= single[0])
    assert f"{single[0]:.3f} -> {micro:.3f}" in chosen.words
    again = thresholds.shrunk_thresholds(truth, logits, groups, draws=10)
    np.testing.assert_array_equal(chosen.thresholds, again.thresholds)


def test_what_cannot_be_chosen_is_the_single_threshold():
    truth, logits = case()
    alone = thresholds.shrunk_thresholds(truth, logits, np.zeros(60))
    assert alone.strength == 0
    assert set(alone.thresholds) == {thresholds.best_single_threshold(truth, logits)}
    assert "fewer than two groups" in alone.words
    empty = thresholds.shrunk_thresholds(truth & False, logits)
    assert empty.thresholds.tolist() == [0.0] * 5
    chosen = thresholds.shrunk_thresholds(truth, logits, draws=5)
    assert chosen.thresholds[4] == chosen.single


@pytest.mark.parametrize("count", [0.0, 0.5, 1.7, 5.0])
def test_a_budget_of_labels_is_used_up_and_not_passed(count):
    _, logits = case()
    base = np.array([0.0, 1.0, -1.0, 0.5, 0.0])
    chosen = thresholds.budget_thresholds(logits, labels_per_text=count, base=base)
    assert np.ptp(chosen - base) < 1e-9
    given_count = given_labels(logits, chosen).sum()
    assert given_count <= count * 60
    below = np.sort(np.unique((logits - chosen)[logits < chosen]))[::-1]
    if len(below):
        assert (logits - chosen >= below[0] - 1e-12).sum() > count * 60


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4])
def test_a_budget_of_false_labels_is_kept_with_as_many_labels_as_can_be(share):
    truth, logits = case()
    chosen = thresholds.budget_thresholds(logits, false_share=share, truth=truth)

    def wrong(t):
        called = logits >= t
        return (called & ~truth).sum() / max(called.sum(), 1)

    assert wrong(chosen[0]) <= share
    more = [t for t in candidates(logits) if t < chosen[0] and wrong(t) <= share]
    assert not more


def test_a_budget_that_nothing_keeps_gives_no_label():
    logits = np.array([[1.0, 0.0], [1.0, 0.5]])
    chosen = thresholds.budget_thresholds(logits, labels_per_text=0.5)  # equal logits exceed it
    assert not given_labels(logits, chosen).any()
    truth = np.zeros((2, 2), bool)
    chosen = thresholds.budget_thresholds(logits, false_share=0.5, truth=truth)
    assert not given_labels(logits, chosen).any()
    for wrong in ({}, {"labels_per_text": 1, "false_share": 0.5}, {"false_share": 0.5}):
        with pytest.raises(ValueError, match="budget_thresholds"):
            thresholds.budget_thresholds(logits, **wrong)
