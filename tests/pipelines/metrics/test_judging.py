"""Biases of judges: by hand, against independent formulas, and on judges that are made biased."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import bernoulli

from headwise.pipelines.metrics import judging
from headwise.pipelines.metrics.judging import JudgedPairs


def judged(rows, **columns) -> JudgedPairs:
    """rows: (pair, swapped, preference)."""
    pair, swapped, preference = (np.array(values) for values in zip(*rows, strict=True))
    defaults = {
        "log_ratio": np.full(len(pair), np.nan),
        "human": np.full(len(pair), np.nan),
        "equal_content": np.zeros(len(pair), bool),
        "padded": np.zeros(len(pair), int),
    }
    values = {name: np.array(value) for name, value in columns.items()}
    return JudgedPairs(pair, swapped.astype(bool), preference.astype(float), **(defaults | values))


def made(count: int, *, bias: float = 0, slope: float = 0, seed: int = 0) -> JudgedPairs:
    """A judge with a preference for the first place (log odds) and for length."""
    generator = np.random.default_rng(seed)
    quality, ratio = generator.normal(size=(2, count))
    rows, ratios = [], []
    for pair in range(count):
        for swapped in (0, 1):
            sign = 1 - 2 * swapped
            chance = 1 / (1 + np.exp(-(sign * (quality[pair] + slope * ratio[pair]) + bias)))
            said = 2 * bernoulli.rvs(chance, random_state=generator) - 1
            rows.append((pair, swapped, said))
            ratios.append(sign * ratio[pair])
    return judged(rows, log_ratio=ratios)


def test_position_bias_and_consistency_by_hand() -> None:
    rows = [
        (0, 0, 1), (0, 1, -1),  # one winner both times
        (1, 0, 1), (1, 1, 1),  # the first both times
        (2, 0, -1), (2, 1, -1),  # the second both times
        (3, 0, 0), (3, 1, 0),  # ties
        (4, 0, 0), (4, 1, 1),  # a tie once
        (5, 0, 1),  # one order only: does not count
    ]  # fmt: skip
    orders = judging.orders_of(judged(rows))
    bias = judging.position_bias(orders)
    assert bias.pairs == 5
    # First preferred in 1, 2, 0 of two; ties count half: 1/2 + 1 + 0 + 1/2 + 3/4, over five.
    assert bias.value == pytest.approx((0.5 + 1 + 0 + 0.5 + 0.75) / 5 - 0.5)
    assert judging.consistency(orders).value == pytest.approx(2 / 5)
    kinds = judging.contradictions(orders)
    assert kinds == pytest.approx(
        {"first_both_times": 1 / 5, "second_both_times": 1 / 5, "tie_once": 1 / 5}
    )


def test_repeated_judgements_of_an_order_count_as_their_mean() -> None:
    rows = [(0, 0, 1), (0, 0, 1), (0, 0, -1), (0, 0, 1), (0, 1, -1)]
    orders = judging.orders_of(judged(rows))
    assert judging.position_bias(orders).value == pytest.approx((3 / 4 + 0) / 2 - 0.5)
    assert judging.consistency(orders).value == pytest.approx(3 / 4)


@pytest.mark.parametrize("seed", range(5))
def test_a_judge_that_averages_both_orders_has_a_position_bias_of_exactly_0(seed) -> None:
    biased = made(50, bias=2, seed=seed)
    score = {(p, s): v for p, s, v in zip(biased.pair, biased.swapped, biased.preference)}
    averaged = [
        (pair, swapped, np.sign(score[pair, swapped] - score[pair, not swapped]))
        for pair, swapped in score
    ]
    orders = judging.orders_of(judged(averaged))
    assert judging.position_bias(orders)[:3] == (0, 0, 0)
    assert judging.consistency(orders).value == 1
    assert judging.position_bias(judging.orders_of(biased)).value > 0.1


def test_pairs_in_one_order_only_do_not_make_a_bias() -> None:
    better_first = [(pair, 0, 1) for pair in range(100)]
    orders = judging.orders_of(judged([*better_first, (100, 0, 1), (100, 1, -1)]))
    assert judging.position_bias(orders)[0] == 0
    assert judging.position_bias(orders).pairs == 1
    assert judging.position_bias(judging.orders_of(judged(better_first))).pairs == 0


def test_intervals_hold_the_truth_and_draw_pairs() -> None:
    bias = judging.position_bias(judging.orders_of(made(400, bias=0.5)))
    assert 0 < bias.low < bias.value < bias.high
    # The same pairs, each judged four times, are no more evidence.
    once = made(60, bias=0.5)
    again = JudgedPairs(**{name: np.repeat(v, 4) for name, v in vars(once).items()})
    for measure in (judging.position_bias, judging.consistency):
        few, many = (measure(judging.orders_of(j)) for j in (once, again))
        assert many[:3] == pytest.approx(few[:3])
    few, many = (judging.length_slope(j)[0] for j in (once, again))
    assert many.high - many.low == pytest.approx(few.high - few.low, rel=0.1)


def test_the_slope_is_that_of_a_logistic_regression() -> None:
    judge = made(300, bias=0.4, slope=1.2, seed=3)
    x, y = judge.log_ratio, (judge.preference + 1) / 2

    def loss(b):
        z = b[0] + b[1] * x
        return np.sum(np.logaddexp(0, z) - y * z) + judging.RIDGE * (b @ b) / 2

    expected = minimize(loss, np.zeros(2), tol=1e-10).x
    slope, constant = judging.length_slope(judge)
    assert (constant.value, slope.value) == pytest.approx(tuple(expected), abs=1e-4)
    assert slope.low < slope.value < slope.high
    assert slope.low > 0.5
    # Weights are repetitions.
    weights = np.random.default_rng(0).integers(0, 3, len(x))
    weighted = judging.fit_logistic(x, y, weights[None].astype(float), np.zeros((1, 2)))
    repeated = judging.fit_logistic(
        np.repeat(x, weights), np.repeat(y, weights), np.ones((1, weights.sum())), np.zeros((1, 2))
    )
    assert weighted == pytest.approx(repeated)


def test_a_slope_stays_finite_where_the_longer_answer_always_wins() -> None:
    ratio = np.array([-2.0, -1, 1, 2] * 5)
    rows = [(pair // 2, pair % 2, np.sign(value)) for pair, value in enumerate(ratio)]
    slope = judging.length_slope(judged(rows, log_ratio=ratio))[0]
    assert 3 < slope.value < 100
    assert np.isfinite([slope.low, slope.high]).all()


def test_equal_or_unknown_lengths_have_no_slope() -> None:
    rows = [(0, 0, 1), (0, 1, -1)]
    for ratio in ([0.0, 0], [np.nan, np.nan]):
        assert judging.length_slope(judged(rows, log_ratio=ratio))[0].pairs == 0


def test_an_appended_repetition_must_not_gain() -> None:
    rows = [
        (0, 0, 1), (0, 1, -1), (1, 0, 1), (1, 1, 1), (2, 0, 1), (2, 1, 1), (3, 0, -1), (4, 0, 1),
        (4, 1, -1),
    ]  # fmt: skip
    padded = [1, -1, 1, -1, 0, 0, 1, 1, -1]
    gain = judging.padding_gain(judged(rows, padded=padded))
    # Preferred both times, once, never in the pair with one order, and both times.
    assert gain.value == pytest.approx((1 + 0.5 + 0 + 1) / 4 - 0.5)
    assert gain.pairs == 4
    fair = judging.padding_gain(judged([(0, 0, 0), (0, 1, 0)], padded=[1, -1]))
    assert fair.value == 0


def test_agreement_with_people_by_hand() -> None:
    rows = [
        (0, 0, 1),
        (0, 1, -1),
        (1, 0, 1),
        (1, 1, 1),
        (2, 0, 0),
        (2, 1, -1),
        (3, 0, 1),
        (3, 1, 0),
    ]
    human = [1, -1, 1, -1, 1, np.nan, 1, -1]
    judge = judged(rows, human=human)
    single = judging.human_agreement(judge)
    assert single.share.value == pytest.approx((1 + 1 + 1 + 0 + 0.5 + 1 + 0.5) / 7)
    said, people = np.array([1, -1, 1, 1, 0, 1, 0]), np.array([1, -1, 1, -1, 1, 1, -1])
    expected, observed = 0.0, float((said == people).mean())
    for value in (1, 0, -1):
        expected += float((said == value).mean() * (people == value).mean())
    assert single.kappa == pytest.approx((observed - expected) / (1 - expected))
    averaged = judging.averaged_agreement(judge)
    assert averaged.share.pairs == 3
    assert averaged.share.value == pytest.approx((1 + 0.5 + 1) / 3)


def test_people_who_name_both_answers_the_better_are_set_aside() -> None:
    rows = [(0, 0, 1), (0, 1, -1), (1, 0, 1), (1, 1, -1)]
    judge, conflicts = judging.without_conflicts(judged(rows, human=[1, 1, 1, -1]))
    assert conflicts == 1
    assert judging.human_agreement(judge).share.pairs == 1
    assert judging.human_agreement(judge).share.value == 1
