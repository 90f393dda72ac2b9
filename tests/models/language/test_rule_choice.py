"""Integer programs that choose a rule for each head: against all choices, and a greedy one."""

import itertools

import numpy as np
import pytest

from headwise.models.language.search.rule_choice import (
    least_loss,
    not_beaten,
    pareto_choices,
    total,
)

SIZES = np.array([[4, 8, 12, 16], [8, 12, 28, 32]], float)


def random_losses(heads: int, seed: int) -> dict[int, np.ndarray]:
    """Losses at two lengths that fall with the size of a rule."""
    draws = np.random.default_rng(seed).exponential(size=(2, heads, 4))
    return {16: draws[0][:, ::-1].cumsum(1)[:, ::-1], 32: draws[1][:, ::-1].cumsum(1)[:, ::-1]}


def all_choices(heads: int, budgets: np.ndarray) -> list[np.ndarray]:
    every_choice = map(np.array, itertools.product(range(4), repeat=heads))
    return [choice for choice in every_choice if (SIZES[:, choice].sum(1) <= budgets).all()]


def greedy(losses: np.ndarray, sizes: np.ndarray, budgets: np.ndarray) -> np.ndarray:
    """From the smallest rules, the step that gains most for its size, as long as one fits."""
    choice = np.zeros(len(losses), int)
    while True:
        steps = []
        for head, rule in enumerate(choice):
            for larger in range(rule + 1, losses.shape[1]):
                changed = choice.copy()
                changed[head] = larger
                if (sizes[:, changed].sum(1) <= budgets).all():
                    gain = losses[head, rule] - losses[head, larger]
                    steps.append((gain / (sizes[0, larger] - sizes[0, rule]), head, larger))
        if not steps:
            return choice
        _, head, larger = max(steps)
        choice[head] = larger


@pytest.mark.parametrize("seed", range(6))
def test_the_choice_is_the_best_of_all(seed: int) -> None:
    losses, budgets = random_losses(4, seed)[16], np.array([36.0, 70.0])
    choice = least_loss(losses, SIZES, budgets, gap=0)
    least = min(total(losses, other) for other in all_choices(4, budgets))
    assert total(losses, choice) == pytest.approx(least)
    assert (SIZES[:, choice].sum(1) <= budgets).all()


def test_the_choice_is_no_worse_than_a_greedy_one() -> None:
    better = 0
    for seed in range(5):
        losses, budgets = random_losses(30, seed)[16], np.array([160.0, 330.0])
        mine = total(losses, least_loss(losses, SIZES, budgets, gap=0))
        step_by_step = total(losses, greedy(losses, SIZES, budgets))
        assert mine <= step_by_step + 1e-9
        better += mine < step_by_step - 1e-9
    assert better


@pytest.mark.parametrize("seed", range(3))
def test_choices_of_the_front_are_beaten_by_none_and_hold_the_best_of_each_length(seed) -> None:
    losses, budgets = random_losses(6, seed), np.array([54.0, 105.0])
    front = pareto_choices(losses, SIZES, budgets, points=5, gap=0)
    every_value = [[total(losses[n], c) for n in (16, 32)] for c in all_choices(6, budgets)]
    mine = np.array([[total(losses[n], c) for n in (16, 32)] for c in front])
    for value in mine:
        others = np.array(every_value)
        assert not ((others <= value + 1e-7).all(1) & (others < value - 1e-5).any(1)).any()
    assert mine.min(0) == pytest.approx(np.min(every_value, axis=0))
    assert len(mine) > 2  # not the best of each length alone
    assert (np.diff(mine[:, 0]) > 0).all()
    assert (np.diff(mine[:, 1]) < 0).all()


def test_a_ceiling_on_another_loss_is_kept() -> None:
    losses, budgets = random_losses(4, 1), np.array([36.0, 70.0])
    free = total(losses[32], least_loss(losses[16], SIZES, budgets, gap=0))
    limit = 0.5 * free + 0.5 * total(losses[32], least_loss(losses[32], SIZES, budgets, gap=0))
    choice = least_loss(losses[16], SIZES, budgets, [(losses[32], limit)], gap=0)
    assert total(losses[32], choice) <= limit + 1e-6 < free


def test_budgets_that_no_choice_meets_give_none() -> None:
    losses, budgets = random_losses(4, 0), np.array([15.0, 70.0])
    assert least_loss(losses[16], SIZES, budgets) is None
    assert pareto_choices(losses, SIZES, budgets) == []


def test_of_equal_choices_the_front_has_one() -> None:
    losses = [np.array([[1.0, 1.0, 2.0]]), np.array([[3.0, 3.0, 2.0]])]
    front = not_beaten([np.array([rule]) for rule in (0, 1, 2)], losses)
    assert sorted(int(choice[0]) for choice in front) in ([0, 2], [1, 2])


def test_permuted_heads_have_permuted_rules() -> None:
    losses, budgets = random_losses(5, 3)[16], np.array([44.0, 90.0])
    order = np.array([3, 0, 4, 1, 2])
    choice = least_loss(losses, SIZES, budgets, gap=0)
    moved = least_loss(losses[order], SIZES, budgets, gap=0)
    assert (moved == choice[order]).all()
