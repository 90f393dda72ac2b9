"""Agreement and detection against tables worked out by hand, textbook examples and plain loops."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import cohen_kappa_score, f1_score

from headwise.pipelines.metrics.agreement import (
    agreement_scores,
    answer_counts,
    cohen_kappa,
    detection_scores,
    fleiss_kappa,
    krippendorff_alpha,
    pair_kappas,
    pairwise_agreement,
)

# Krippendorff, "Computing Krippendorff's alpha-reliability" (2011): 4 observers, 12 units, 0 for
# missing; nominal alpha .743.
OBSERVERS = np.array([
    [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
    [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
]).T - 1  # fmt: skip
# Fleiss (1971) as it is often shown: 14 raters, 10 subjects, 5 categories; kappa .210.
FLEISS = [
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
]  # fmt: skip


def test_alpha_is_that_of_krippendorffs_example() -> None:
    assert krippendorff_alpha(OBSERVERS) == pytest.approx(0.743, abs=5e-4)


def test_alpha_of_a_table_worked_out_by_hand() -> None:
    """Answers aa, ab, bb, and a task with one answer, which cannot disagree.

    Ordered pairs: 6 in all, 2 of them unequal, D_o = 2 / 6. Values: 3 a and 3 b, so of 6 * 5 pairs
    2 * 3 * 3 are unequal, D_e = 18 / 30. alpha = 1 - (1 / 3) / (3 / 5) = 4 / 9.
    """
    codes = np.array([[0, 0], [0, 1], [1, 1], [1, -1]])
    assert krippendorff_alpha(codes) == pytest.approx(4 / 9)
    # Fleiss: two of three pairs agree, both values have a share of 1 / 2.
    assert fleiss_kappa(codes) == pytest.approx((2 / 3 - 1 / 2) / (1 / 2))
    assert pairwise_agreement(codes) == pytest.approx(2 / 3)


def test_fleiss_is_that_of_the_published_table() -> None:
    codes = np.array([[v for v, n in enumerate(row) for _ in range(n)] for row in FLEISS])
    assert fleiss_kappa(codes) == pytest.approx(0.210, abs=5e-4)
    assert np.array_equal(answer_counts(codes), np.array(FLEISS, float))


def test_cohen_is_that_of_a_table_worked_out_by_hand_and_of_scikit_learn() -> None:
    """20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: agreed .7, by chance .5, kappa .4."""
    first, second = (
        np.repeat([0, 0, 1, 1], [20, 5, 10, 15]),
        np.repeat([0, 1, 0, 1], [20, 5, 10, 15]),
    )
    assert cohen_kappa(first, second) == pytest.approx(0.4)
    generator = np.random.default_rng(3)
    codes = generator.integers(-1, 4, (60, 3))
    kappas = pair_kappas(codes)
    for i, j in combinations(range(3), 2):
        both = (codes[:, i] >= 0) & (codes[:, j] >= 0)
        expected = cohen_kappa_score(codes[both, i], codes[both, j])
        assert kappas[i, j] == kappas[j, i] == pytest.approx(expected)


def plain_alpha(codes: np.ndarray) -> float:
    """By the definition: a loop over all pairs of values within tasks, and over all of them."""
    unequal = total = 0.0
    values = []
    for row in codes:
        answers = [code for code in row if code >= 0]
        if len(answers) < 2:
            continue
        values += answers
        for i, a in enumerate(answers):
            for j, b in enumerate(answers):
                if i != j:
                    unequal += (a != b) / (len(answers) - 1)
                    total += 1 / (len(answers) - 1)
    pairs = [(a != b) for i, a in enumerate(values) for j, b in enumerate(values) if i != j]
    return 1 - (unequal / total) / np.mean(pairs)


def test_alpha_equals_its_definition_with_missing_answers() -> None:
    generator = np.random.default_rng(5)
    for _ in range(20):
        codes = generator.integers(-1, 3, (12, 4))
        assert krippendorff_alpha(codes) == pytest.approx(plain_alpha(codes))


def test_agreement_depends_on_neither_order_nor_names_of_answers() -> None:
    generator = np.random.default_rng(7)
    codes = generator.integers(-1, 3, (30, 5))
    other = codes[generator.permutation(30)][:, generator.permutation(5)]
    other = np.where(other < 0, -1, 2 - other)
    for score in (krippendorff_alpha, fleiss_kappa, pairwise_agreement):
        assert score(other) == pytest.approx(score(codes))


def test_full_agreement_is_one_chance_is_zero_and_one_answer_is_undefined() -> None:
    same = np.repeat(np.arange(4)[:, None], 3, axis=1)
    assert krippendorff_alpha(same) == fleiss_kappa(same) == 1
    random = np.random.default_rng(1).integers(0, 2, (4000, 3))
    assert abs(krippendorff_alpha(random)) < 0.03
    assert np.isnan(krippendorff_alpha(np.zeros((5, 3), int)))
    assert np.isnan(krippendorff_alpha(np.full((5, 3), -1)))
    assert np.isnan(cohen_kappa(np.array([0, -1]), np.array([-1, 0])))
    with pytest.raises(ValueError, match="tasks, raters"):
        krippendorff_alpha(np.array([0, 1]))


def test_intervals_hold_the_score_and_narrow_with_more_tasks() -> None:
    generator = np.random.default_rng(2)
    truth = generator.integers(0, 3, (400, 1))
    codes = np.where(generator.random((400, 4)) < 0.7, truth, generator.integers(0, 3, (400, 4)))
    few, many = (agreement_scores(codes[:n], draws=300) for n in (60, 400))
    for scores in (few, many):
        for score in scores.values():
            assert score.low < score.value < score.high
    assert many["alpha"].high - many["alpha"].low < 0.6 * (few["alpha"].high - few["alpha"].low)


def test_detection_of_a_table_worked_out_by_hand() -> None:
    """20 of 25 signals found, 10 of 25 others called signals.

    H = 20.5 / 26 and F = 10.5 / 26, z(H) = .7998, z(F) = -.2429 by tables of the normal.
    """
    signal = np.repeat([True, False], 25)
    answered = np.r_[np.arange(25) < 20, np.arange(25) < 10]
    scores = detection_scores(signal, answered, draws=50)
    assert scores["hit_rate"].value == pytest.approx(0.8)
    assert scores["false_alarm_rate"].value == pytest.approx(0.4)
    assert scores["d_prime"].value == pytest.approx(0.8014 + 0.2430, abs=2e-3)
    assert scores["criterion"].value == pytest.approx(-(0.8014 - 0.2430) / 2, abs=1e-3)
    z = norm.ppf([20.5 / 26, 10.5 / 26])
    assert scores["d_prime"].value == pytest.approx(z[0] - z[1])
    assert scores["f1"].value == pytest.approx(40 / 55)
    assert scores["macro_f1"].value == pytest.approx(f1_score(signal, answered, average="macro"))
    assert scores["accuracy"].value == pytest.approx(35 / 50)


def test_rates_of_zero_and_one_stay_finite_and_no_signal_is_undefined() -> None:
    signal = np.repeat([True, False], 10)
    best = detection_scores(signal, signal, draws=20)
    assert best["d_prime"].value == pytest.approx(2 * norm.ppf(10.5 / 11))
    assert best["criterion"].value == pytest.approx(0)
    never = detection_scores(signal, np.zeros(20, bool), draws=20)
    assert never["d_prime"].value == pytest.approx(0)
    assert never["criterion"].value > 1
    none = detection_scores(np.zeros(10, bool), np.zeros(10, bool), draws=20)
    assert np.isnan([none["d_prime"].value, none["hit_rate"].value]).all()


def test_d_prime_is_free_of_the_bias_that_moves_f1() -> None:
    """Two raters see the same evidence; one says "signal" more readily."""
    generator = np.random.default_rng(4)
    signal = np.repeat([True, False], 20_000)
    evidence = generator.normal(size=40_000) + 1.5 * signal
    cautious, ready = (detection_scores(signal, evidence > cut, draws=2) for cut in (2.0, 0.75))
    assert cautious["d_prime"].value == pytest.approx(ready["d_prime"].value, abs=0.06)
    assert ready["f1"].value - cautious["f1"].value > 0.25
    assert cautious["criterion"].value - ready["criterion"].value == pytest.approx(1.25, abs=0.05)


def test_answers_to_one_task_are_drawn_together() -> None:
    """Five copies of each answer add nothing to what is known."""
    generator = np.random.default_rng(6)
    signal, answered = generator.random((2, 200)) < 0.5
    alone = detection_scores(signal, answered, np.arange(200), draws=400)
    copied = detection_scores(
        np.repeat(signal, 5), np.repeat(answered, 5), np.repeat(np.arange(200), 5), draws=400
    )
    assert copied["hit_rate"] == pytest.approx(alone["hit_rate"])
