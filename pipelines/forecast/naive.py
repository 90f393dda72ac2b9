"""The naive forecasts that a run is compared with."""

from __future__ import annotations

from torch import Tensor

from ..metrics.forecasting import repeat_last, season_of, seasonal
from .data import ForecastSpec


def naive_names(spec: ForecastSpec) -> list[str]:
    """What the naive forecasts of a run are called: the last value, and the last season where the
    look-back holds one.
    """
    season = season_of(spec.frequency)
    seasons = [f"repeat last {season} steps"] if 1 < season <= spec.lookback else []
    return ["repeat last", *seasons]


def naive_forecasts(past: Tensor, spec: ForecastSpec) -> dict[str, Tensor]:
    """The naive forecasts of windows by name. past: (B, L, C), forecasts (B, H, C)."""
    forecasts = [repeat_last(past, spec.horizon)]
    if len(names := naive_names(spec)) > 1:
        forecasts.append(seasonal(past, spec.horizon, season_of(spec.frequency)))
    return dict(zip(names, forecasts, strict=True))
