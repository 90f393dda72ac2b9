"""One rule for each head, so that losses are least and budgets are met: integer programs.

Shapes: h heads, r rules, c budgets. Solver: HiGHS, by scipy.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp


def least_loss(
    losses: np.ndarray,
    sizes: np.ndarray,
    budgets: np.ndarray,
    ceilings: Sequence[tuple[np.ndarray, float]] = (),
    *,
    gap: float = 1e-4,
) -> np.ndarray | None:
    """The rule of each head, int64 (h,), that makes the sum of `losses` (h, r) least.

    sizes: (c, r), what a rule takes of each budget; the sum over heads is at most budgets (c,).
    ceilings: further losses (h, r), each with the largest sum allowed. gap: how far, relatively,
    the sum may be from the least. None where no choice meets all bounds.
    """
    heads, rules = losses.shape
    chooses = sparse.kron(sparse.eye_array(heads), np.ones((1, rules)), format="csr")
    constraints = [
        LinearConstraint(chooses, 1, 1),
        LinearConstraint(np.tile(sizes, heads), -np.inf, budgets),  # pyright: ignore
    ]
    for other, limit in ceilings:
        scale = _scale(other)
        constraints.append(LinearConstraint(other.reshape(1, -1) / scale, -np.inf, limit / scale))
    result = milp(
        losses.ravel() / _scale(losses),
        integrality=np.ones(losses.size),
        bounds=Bounds(0, 1),
        constraints=constraints,
        options={"mip_rel_gap": gap},
    )
    if result.x is None:
        return None
    choice = result.x.reshape(heads, rules).argmax(1)
    within = (sizes[:, choice].sum(1) <= budgets).all()
    return choice if within else None


def pareto_choices(
    losses: Mapping[int, np.ndarray],
    sizes: np.ndarray,
    budgets: np.ndarray,
    *,
    points: int = 5,
    gap: float = 1e-4,
) -> list[np.ndarray]:
    """Choices (h,) that no other of them beats at all lengths: losses (h, r) by length.

    The loss of the longest length is minimised; each of the others is bounded by `points` values
    from its own least to the largest that it has where another is least. Empty where the budgets
    cannot be met.
    """
    lengths = sorted(losses)
    choices = [least_loss(losses[length], sizes, budgets, gap=gap) for length in lengths]
    best = [choice for choice in choices if choice is not None]
    if len(best) < len(lengths):
        return []
    *others, last = lengths
    grids = []
    for length in others:
        values = [total(losses[length], choice) for choice in best]
        grids.append(np.linspace(min(values), max(values), points).tolist())
    for limits in itertools.product(*grids) if others else ():
        ceilings = [(losses[length], limit) for length, limit in zip(others, limits, strict=True)]
        choice = least_loss(losses[last], sizes, budgets, ceilings, gap=gap)
        if choice is not None:
            best.append(choice)
    return not_beaten(best, [losses[length] for length in lengths])


def not_beaten(choices: Sequence[np.ndarray], losses: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Choices (h,) of which no other has smaller or equal losses (h, r) everywhere; one of equals,
    by the loss of the first.
    """
    values = {tuple(total(loss, choice) for loss in losses): choice for choice in choices}
    return [
        values[mine]
        for mine in sorted(values)
        if not any(
            other != mine and all(a <= b for a, b in zip(other, mine, strict=True))
            for other in values
        )
    ]


def total(losses: np.ndarray, choice: np.ndarray) -> float:
    """Sum over heads of the losses (h, r) of a choice (h,)."""
    return float(losses[np.arange(len(choice)), choice].sum())


def _scale(losses: np.ndarray) -> float:
    """The solver's tolerances are absolute, so that losses are brought near 1."""
    return float(np.abs(losses).max(1).sum()) or 1.0
