"""The one bootstrap: its draws, its intervals and its rule for undefined scores."""

import doctest

import numpy as np
import pytest

from headwise.pipelines.metrics import bootstrap
from headwise.pipelines.metrics.bootstrap import (
    bootstrap_intervals,
    centred_interval,
    draw_places,
    draw_weights,
    interval_of_mean,
    percentile_interval,
)


def test_entire_groups_are_drawn_as_often_as_there_are_groups() -> None:
    groups = np.array(["b", "a", "b", "c", "a", "b"])
    (weights,) = draw_weights(groups, 500, seed=0)
    assert weights.shape == (500, 6)
    assert weights.dtype == np.float64
    for name in "abc":
        members = weights[:, groups == name]
        assert (members == members[:, :1]).all()
    assert (weights[:, [0, 1, 3]].sum(1) == 3).all()
    assert abs(weights[:, [0, 1, 3]].var() - 2 / 3) < 0.1


def test_a_number_of_samples_means_that_all_are_independent() -> None:
    (by_number,), (by_group,) = draw_weights(7, 40, 3), draw_weights(np.arange(7), 40, 3)
    assert np.array_equal(by_number, by_group)


def test_blocks_draw_the_same_numbers() -> None:
    (at_once,) = draw_weights([0, 0, 1, 2, 3, 3], 50, seed=4)
    blocks = list(draw_weights([0, 0, 1, 2, 3, 3], 50, seed=4, block=7))
    assert [len(block) for block in blocks] == [7] * 7 + [1]
    assert np.array_equal(np.concatenate(blocks), at_once)


def test_the_default_blocks_bound_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "BLOCK_NUMBERS", 60)
    assert max(block.size for block in draw_weights(20, 10, 0)) == 60


def test_the_drawn_numbers_are_pinned() -> None:
    """Reports with one seed must not change between versions."""
    (weights,) = draw_weights(6, 2, seed=7)
    assert weights.tolist() == [[1, 2, 1, 0, 1, 1], [2, 0, 2, 1, 0, 1]]
    assert draw_places(6, 2, seed=0).tolist() == [[5, 3, 3, 1, 1, 0], [0, 0, 1, 4, 3, 5]]
    interval = interval_of_mean(np.arange(10.0), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4], seed=1)
    assert interval == (2.1, 6.9)


def test_undefined_draws_do_not_count_up_to_one_half() -> None:
    values = np.array([1.0, 1.0, np.nan, np.nan])
    assert percentile_interval(values) == (1.0, 1.0)
    assert np.isnan(percentile_interval(np.r_[values, np.nan])).all()
    assert np.isnan(percentile_interval(np.zeros(0))).all()


def test_the_interval_holds_its_share_of_the_draws() -> None:
    values = np.arange(101.0)
    assert percentile_interval(values) == (2.5, 97.5)
    assert percentile_interval(values, (0.1, 0.9)) == (10.0, 90.0)


def test_every_score_has_its_interval() -> None:
    values = np.random.default_rng(0).random(30)
    intervals = bootstrap_intervals(
        lambda weights: {"sum": weights @ values, "draws": weights.sum(1)}, 30, draws=200
    )
    low, high = intervals["sum"]
    assert low < values.sum() < high
    assert intervals["draws"] == (30.0, 30.0)


def test_fewer_groups_give_a_wider_interval() -> None:
    values = np.repeat(np.random.default_rng(1).random(12), 5)
    alone, grouped = interval_of_mean(values), interval_of_mean(values, np.arange(60) // 5)
    assert grouped[1] - grouped[0] > 1.5 * (alone[1] - alone[0])


def test_the_examples_run() -> None:
    assert doctest.testmod(bootstrap, extraglobs={"np": np}).failed == 0


def test_a_centred_interval_is_that_of_draws_moved_to_the_score() -> None:
    values = np.arange(12.0) / 20

    def largest(weights: np.ndarray) -> dict[str, np.ndarray]:
        shares = np.where(weights > 0, values, 0).max(1)
        return {"largest": shares, "mean": weights @ values / weights.sum(1)}

    (weights,) = draw_weights(12, 300, seed=0)
    draws = largest(weights)
    plain = bootstrap_intervals(largest, 12, draws=300)
    centred = bootstrap_intervals(largest, 12, draws=300, centred=("largest",))
    assert centred["mean"] == plain["mean"] == percentile_interval(draws["mean"])
    assert plain["largest"] == percentile_interval(draws["largest"])
    moved = draws["largest"] - draws["largest"].mean() + values.max()
    assert centred["largest"] == pytest.approx(percentile_interval(moved))


def test_a_centred_interval_of_a_share_is_between_0_and_1_or_undefined() -> None:
    assert centred_interval(np.array([0.2, 0.9, np.nan]), 0.95) == (
        pytest.approx(0.95 - 0.55 + 0.2175),
        1.0,
    )
    assert np.isnan(centred_interval(np.full(3, np.nan), np.nan)).all()
