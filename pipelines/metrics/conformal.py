"""Split-conformal prediction intervals: forecast ± a quantile of the absolute errors on rows not
trained on.

If the errors to come are exchangeable with the n calibration errors, an interval of level p holds
the truth with probability at least p, and at most p + 1/(n + 1) (no ties), whatever the model
(Papadopoulos et al. 2002, Lei et al. 2018). Errors of a series drift, so coverage must be measured
on the test part: `Coverage`. Each (step, channel) has a width of its own and is right by itself; an
entire path lies inside less often.

L levels, H horizon, C channels, B batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor

LEVELS = (0.8, 0.9, 0.95)


def needed(level: float) -> int:
    """The smallest number of calibration windows that gives a finite interval of this level: 9 for
    0.9.
    """
    n = max(1, math.floor(level / (1 - level)) - 1)
    while _rank(n, level) > n:
        n += 1
    return n


def _rank(n: int, level: float) -> int:
    """ceil((n + 1) level), tolerating the rounding that makes 10 * 0.9 slightly more than 9."""
    return math.ceil((n + 1) * level - 1e-9)


@dataclass(frozen=True)
class ConformalIntervals:
    """Half-widths of the intervals, by level, step and channel.

    levels  L numbers in (0, 1)
    widths  (L, H, C) float64, in the units of the residuals; infinite where n is too small
    n       calibration windows used
    """

    levels: tuple[float, ...]
    widths: Tensor
    n: int

    @classmethod
    def fit(cls, residuals: Tensor, levels: Sequence[float] = LEVELS) -> "ConformalIntervals":
        """From absolute residuals (n, H, C): the ceil((n + 1) level)-th smallest of each step and
        channel.

        Raises `ValueError` for other shapes, for no window, for NaN and for levels outside (0, 1).
        """
        if residuals.ndim != 3 or len(residuals) == 0:
            raise ValueError(
                f"residuals {tuple(residuals.shape)} must be (n, horizon, channels) with n >= 1"
            )
        if not levels or not all(0 < level < 1 for level in levels):
            raise ValueError(f"levels {tuple(levels)} must lie between 0 and 1")
        n = len(residuals)
        if residuals.isnan().any():
            raise ValueError("residuals hold NaN")
        ordered = residuals.abs().double().sort(0).values
        infinite = torch.full_like(ordered[0], math.inf)
        ranks = [_rank(n, level) for level in levels]
        return cls(
            tuple(levels), torch.stack([ordered[r - 1] if r <= n else infinite for r in ranks]), n
        )

    @property
    def statement(self) -> str:
        """A sentence on the levels without a finite interval; empty if all are finite."""
        lacking = [level for level in self.levels if _rank(self.n, level) > self.n]
        if not lacking:
            return ""
        parts = ", ".join(f"{level:g} needs {needed(level)}" for level in lacking)
        return f"only {self.n} calibration windows: intervals are infinite for level {parts}"

    def interval(self, forecast: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds, each (L, B, H, C), of forecasts (B, H, C), in their type and on
        their device.
        """
        widths = self.widths[:, None].to(forecast)
        return forecast - widths, forecast + widths


class CoverageTable(TypedDict):
    """What `Coverage` measured; L levels, H steps.

    coverage          share of the truth inside the intervals, by level
    mean_width        upper minus lower bound, by level; infinite if any width is
    coverage_by_step  (L, H); coverage_by_channel  (L, C)
    paths             share of the windows and channels whose steps all lie inside, by level
    """

    levels: list[float]
    coverage: list[float]
    mean_width: list[float]
    coverage_by_step: list[list[float]]
    coverage_by_channel: list[list[float]]
    paths: list[float]
    windows: int


class Coverage:
    """Counts how often the truth lies inside the intervals, batch by batch."""

    def __init__(self, intervals: ConformalIntervals) -> None:
        self.intervals = intervals
        self.inside = torch.zeros(intervals.widths.shape, dtype=torch.float64)
        self.paths = torch.zeros(intervals.widths.shape[::2], dtype=torch.float64)
        self.windows = 0
        self.stretched = 0.0  # sum of the factors of the windows

    def update(self, forecast: Tensor, truth: Tensor, stretch: Tensor | None = None) -> None:
        """Count a batch, both (B, H, C). stretch: factors (B,) by which the intervals of the
        windows are wider. `ValueError` for other shapes.
        """
        if forecast.shape != truth.shape or forecast.shape[1:] != self.inside.shape[1:]:
            horizon, channels = self.inside.shape[1:]
            shapes = f"forecast {tuple(forecast.shape)} and truth {tuple(truth.shape)}"
            raise ValueError(f"{shapes} must both be (batch, {horizon}, {channels})")
        error = (forecast.detach().double() - truth.detach().double()).abs().cpu()
        self.windows += len(error)
        factor = torch.ones(len(error), 1, 1, dtype=torch.float64)
        if stretch is not None:
            factor = stretch.double().cpu().reshape(-1, 1, 1)
        self.stretched += float(factor.sum())
        # Level by level, so that there is never a tensor (L, B, H, C).
        for level, widths in enumerate(self.intervals.widths):
            inside = error <= widths * factor
            self.inside[level] += inside.sum(0)
            self.paths[level] += inside.all(1).sum(0)

    def compute(self) -> CoverageTable:
        """The shares so far. `ValueError` when nothing was counted."""
        if not self.windows:
            raise ValueError("no forecast has been counted")
        share = self.inside / self.windows
        return {
            "levels": list(self.intervals.levels),
            "coverage": share.mean((1, 2)).tolist(),
            "mean_width": (
                2 * self.intervals.widths.mean((1, 2)) * self.stretched / self.windows
            ).tolist(),
            "coverage_by_step": share.mean(2).tolist(),
            "coverage_by_channel": share.mean(1).tolist(),
            "paths": (self.paths / self.windows).mean(1).tolist(),
            "windows": self.windows,
        }
