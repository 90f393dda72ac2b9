"""Conformal intervals cover what they promise when errors are exchangeable, and say when they
cannot.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headwise.pipelines.metrics.conformal import LEVELS, ConformalIntervals, Coverage, needed


@settings(max_examples=50, deadline=None)
@given(
    n=st.integers(1, 120),
    level=st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99]),
    seed=st.integers(0, 99),
)
def test_width_is_the_residual_of_its_rank(n: int, level: float, seed: int) -> None:
    residuals = np.random.default_rng(seed).exponential(size=(n, 2, 3))
    widths = ConformalIntervals.fit(torch.tensor(residuals), (level,)).widths[0].numpy()
    rank = math.ceil(round((n + 1) * level, 6))
    expected = np.sort(residuals, axis=0)[rank - 1] if rank <= n else np.full((2, 3), np.inf)
    np.testing.assert_array_equal(widths, expected)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95, 0.99])
def test_needed_is_the_smallest_that_is_finite(level: float) -> None:
    n = needed(level)
    assert ConformalIntervals.fit(torch.rand(n, 1, 1), (level,)).widths.isfinite().all()
    if n > 1:
        assert ConformalIntervals.fit(torch.rand(n - 1, 1, 1), (level,)).widths.isinf().all()


def test_too_few_windows_are_stated() -> None:
    few = ConformalIntervals.fit(torch.rand(10, 2, 1))
    assert (
        few.statement
        == "only 10 calibration windows: intervals are infinite for level 0.95 needs 19"
    )
    assert few.widths[:2].isfinite().all()
    assert ConformalIntervals.fit(torch.rand(19, 2, 1)).statement == ""


@pytest.mark.parametrize("draw", ["normal", "exponential", "standard_cauchy"])
def test_exchangeable_errors_are_covered(draw: str) -> None:
    """Over many (step, channel) cells, coverage lies within five standard errors of
    ceil((n+1)p)/(n+1).
    """
    random = np.random.default_rng(5)
    n, cells, test = 59, 4000, 40
    errors = torch.tensor(getattr(random, draw)(size=(n + test, cells, 1)))
    intervals = ConformalIntervals.fit(errors[:n].abs())
    coverage = Coverage(intervals)
    coverage.update(torch.zeros(test, cells, 1), errors[n:])
    for level, result in zip(LEVELS, coverage.compute()["coverage"], strict=True):
        exact = math.ceil(round((n + 1) * level, 6)) / (n + 1)
        # A cell's coverage is Beta(k, n + 1 - k); the test draws add a binomial part.
        spread = math.sqrt(exact * (1 - exact) * (1 / (n + 2) + 1 / test) / cells)
        assert level <= exact <= level + 1 / (n + 1)
        assert abs(result - exact) < 5 * spread


@pytest.mark.parametrize("batch", [1, 13, 200])
def test_coverage_does_not_depend_on_the_batch_size(batch: int) -> None:
    random = torch.Generator().manual_seed(0)
    intervals = ConformalIntervals.fit(torch.randn(50, 4, 2, generator=random).abs())
    forecast, truth = (torch.randn(200, 4, 2, generator=random) for _ in range(2))
    coverage = Coverage(intervals)
    for start in range(0, 200, batch):
        coverage.update(forecast[start : start + batch], truth[start : start + batch])
    result = coverage.compute()
    lower, upper = intervals.interval(forecast.double())
    inside = ((lower <= truth) & (truth <= upper)).double()
    assert result["coverage"] == pytest.approx(inside.mean((1, 2, 3)).tolist())
    assert result["mean_width"] == pytest.approx((upper - lower).mean((1, 2, 3)).tolist())
    np.testing.assert_allclose(result["coverage_by_step"], inside.mean((1, 3)).numpy())
    assert result["windows"] == 200


def test_interval_shapes_and_types() -> None:
    intervals = ConformalIntervals.fit(torch.rand(50, 4, 2))
    lower, upper = intervals.interval(torch.zeros(3, 4, 2))
    assert lower.shape == upper.shape == (3, 3, 4, 2)
    assert lower.dtype == torch.float32
    torch.testing.assert_close(upper, -lower)
    assert (intervals.widths.diff(dim=0) >= 0).all()


def test_refusals() -> None:
    for residuals in (torch.zeros(0, 1, 1), torch.zeros(3, 1), torch.full((3, 1, 1), float("nan"))):
        with pytest.raises(ValueError, match="residuals"):
            ConformalIntervals.fit(residuals)
    for levels in ((), (1.0,), (0.0, 0.5)):
        with pytest.raises(ValueError, match="levels"):
            ConformalIntervals.fit(torch.zeros(3, 1, 1), levels)
    coverage = Coverage(ConformalIntervals.fit(torch.rand(3, 2, 1)))
    with pytest.raises(ValueError, match="no forecast"):
        coverage.compute()
    with pytest.raises(ValueError, match=r"\(batch, 2, 1\)"):
        coverage.update(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))
