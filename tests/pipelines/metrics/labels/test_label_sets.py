"""Sets hold the truth as often as asked for, over many draws of the validation part."""

import math

import numpy as np
import pytest
from scipy.special import softmax

from headwise.pipelines.metrics.labels.sets import fit_class_sets, fit_label_sets


def labels_case(generator, groups, size=1):
    """Texts in groups that have their own ease, which also shifts all logits."""
    ease = np.repeat(generator.normal(size=groups), size)
    truth = generator.random((groups * size, 6)) < 0.3
    logits = generator.normal(size=truth.shape) + 2 * truth + 1.5 * ease[:, None]
    return truth, logits, np.repeat(np.arange(groups), size)


def missed(truth, sets):
    return (truth & ~sets).sum(1) / np.maximum(truth.sum(1), 1)


def plain_shift(truth, logits, miss, groups):
    """The largest threshold, of all logits, for which the bound holds."""
    count = len(set(groups))
    fitting = [
        t
        for t in np.unique(logits)
        if (
            sum(missed(truth, logits >= t)[groups == g].mean() for g in set(groups)) + 1
        ) / (count + 1) <= miss + 1e-12
    ]  # fmt: skip
    return max(fitting, default=-math.inf)


@pytest.mark.parametrize(("miss", "size"), [(0.1, 1), (0.2, 3), (0.05, 2), (0.34, 1)])
def test_the_threshold_is_the_highest_that_keeps_the_bound(miss, size):
    truth, logits, groups = labels_case(np.random.default_rng(0), 25, size)
    sets = fit_label_sets(truth, logits, miss, groups)
    expected = plain_shift(truth, logits, miss, groups)
    np.testing.assert_array_equal(sets.apply(logits), logits >= expected)
    held = fit_label_sets(truth, logits + np.arange(6.0), miss, groups, base=np.arange(6.0))
    assert held.shift == pytest.approx(sets.shift)


def test_the_share_of_missed_labels_is_as_promised_and_not_far_below():
    generator = np.random.default_rng(1)
    shares = []
    for _ in range(300):
        truth, logits, groups = labels_case(generator, 40, 2)
        sets = fit_label_sets(truth, logits, 0.2, groups)
        new_truth, new_logits, _ = labels_case(generator, 40, 2)
        shares.append(missed(new_truth, sets.apply(new_logits)).mean())
    error = np.std(shares) / math.sqrt(300)
    assert 0.2 - 2 / 41 - 3 * error < np.mean(shares) < 0.2 + 3 * error


def classes_case(generator, groups, size=1):
    ease = np.repeat(generator.normal(size=groups), size)
    labels = generator.integers(0, 5, groups * size)
    logits = generator.normal(size=(groups * size, 5))
    logits[np.arange(len(labels)), labels] += 1 + ease
    return labels, softmax(logits, axis=1), np.repeat(np.arange(groups), size)


@pytest.mark.parametrize(("method", "size"), [("least", 1), ("least", 4), ("adaptive", 1)])
def test_classes_are_in_their_sets_as_often_as_promised(method, size):
    generator = np.random.default_rng(2)
    shares = []
    for _ in range(400):
        labels, probability, groups = classes_case(generator, 30, size)
        sets = fit_class_sets(labels, probability, 0.8, method, groups)
        new, new_probability, _ = classes_case(generator, 30, size)
        shares.append(sets.apply(new_probability)[np.arange(len(new)), new].mean())
    error = np.std(shares) / math.sqrt(400)
    assert np.mean(shares) > 0.8 - 3 * error
    assert np.mean(shares) < 0.8 + 1 / 31 + 3 * error + (0.03 if method == "adaptive" else 0)


def test_texts_of_one_source_do_not_count_as_independent():
    """As if every text were its own group, sets would be promised that the sources do not keep."""
    generator = np.random.default_rng(3)
    labels, probability, groups = classes_case(generator, 12, 1)
    rows = np.repeat(np.arange(12), 50)  # the same texts fifty times
    repeated = fit_class_sets(labels[rows], probability[rows], 0.8, groups=groups[rows])
    once = fit_class_sets(labels, probability, 0.8)
    assert repeated == once
    assert fit_class_sets(labels[rows], probability[rows], 0.95).statement == ""
    assert fit_class_sets(labels[rows], probability[rows], 0.95, groups=groups[rows]).cut == np.inf


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
def test_the_rank_is_that_of_split_conformal_prediction(level):
    labels, probability, _ = classes_case(np.random.default_rng(4), 19)
    scores = np.sort(1 - probability[np.arange(19), labels])
    assert (
        fit_class_sets(labels, probability, level).cut == scores[math.ceil(20 * level - 1e-9) - 1]
    )


def test_adaptive_sets_hold_the_most_probable_classes_and_are_never_empty():
    labels, probability, _ = classes_case(np.random.default_rng(5), 60)
    probability[0] = [0.3, 0.3, 0.2, 0.1, 0.1]
    sets = fit_class_sets(labels, probability, 0.7, "adaptive").apply(probability)
    assert sets.any(1).all()
    for row, inside in zip(probability, sets, strict=True):
        assert row[inside].min() > row[~inside].max(initial=-1)


def test_a_part_that_is_too_small_says_so_and_gives_everything():
    truth, logits, groups = labels_case(np.random.default_rng(0), 8, 5)
    sets = fit_label_sets(truth, logits, 0.1, groups)
    assert sets.apply(logits - 1e6).all()
    assert sets.statement == (
        "only 8 groups in the validation part: to miss at most 0.1 needs 9, so all labels are given"
    )
    truth, logits, groups = labels_case(np.random.default_rng(0), 9, 5)
    enough = fit_label_sets(truth, logits, 0.1, groups)
    assert enough.statement == ""
    assert np.isfinite(enough.shift)
    labels, probability, _ = classes_case(np.random.default_rng(0), 8)
    few = fit_class_sets(labels, probability, 0.9)
    assert few.apply(probability).all()
    assert "needs 9, so all classes are given" in few.statement


def test_texts_without_labels_miss_nothing():
    truth, logits, _ = labels_case(np.random.default_rng(0), 30)
    assert not fit_label_sets(truth & False, logits, 0.1).apply(logits).any()


def test_what_does_not_fit_is_refused():
    truth, logits, groups = labels_case(np.random.default_rng(0), 10)
    labels, probability, _ = classes_case(np.random.default_rng(0), 10)
    for call in (
        lambda: fit_label_sets(truth, logits, 0.0),
        lambda: fit_label_sets(truth, logits, 0.1, groups[:3]),
        lambda: fit_label_sets(truth, logits, 0.1, base=np.zeros(2)),
        lambda: fit_label_sets(truth[:0], logits[:0], 0.1),
        lambda: fit_class_sets(labels, probability, 1.0),
        lambda: (
            fit_class_sets(labels + 1, probability, 0.9)
            and fit_class_sets(labels - 1, probability, 0.9)
        ),
        lambda: fit_class_sets(labels, probability[:, 0], 0.9),
        lambda: fit_class_sets(labels, probability * np.nan, 0.9),
        lambda: fit_class_sets(labels, probability, 0.9, "other"),  # pyright: ignore
    ):
        with pytest.raises(ValueError, match=r"fit_(label|class)_sets: "):
            call()
