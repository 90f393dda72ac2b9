"""Forecast errors summed batch by batch, and the naive forecasts that every model has to beat.

B batch, T look-back, H horizon, C channels. Sums are in float64 and every window counts once, so
the batch size changes nothing beyond the last digits."""

import re
from dataclasses import dataclass

import torch
from torch import Tensor

# The natural season of a sampling interval: a day for hours and minutes, a week for days (five of
# them for business days), a year for weeks and months.
_SEASONS = {"s": 3600, "m": 1440, "h": 24, "d": 7, "b": 5, "w": 52, "mo": 12, "q": 4, "y": 1}


@dataclass(frozen=True)
class ForecastSummary:
    """Means over all windows, steps and channels, and the same by step and by channel.

    mse, mae                        on the scale of the tensors (standardised in the papers)
    mse_by_step, mae_by_step        (H,) float64
    mse_by_channel, mae_by_channel  (C,) float64
    windows                         how many forecasts were counted
    """

    mse: float
    mae: float
    mse_by_step: Tensor
    mae_by_step: Tensor
    mse_by_channel: Tensor
    mae_by_channel: Tensor
    windows: int


class ForecastErrors:
    """Sums squared and absolute errors of forecasts (B, H, C) against the truth."""

    def __init__(self, channels: int, horizon: int) -> None:
        self.squared = torch.zeros(horizon, channels, dtype=torch.float64)
        self.absolute = torch.zeros(horizon, channels, dtype=torch.float64)
        self.windows = 0

    def update(self, forecast: Tensor, truth: Tensor) -> None:
        """Count a batch; both (B, H, C), any float type or device. `ValueError` for other
        shapes.
        """
        if forecast.shape != truth.shape or forecast.shape[1:] != self.squared.shape:
            raise ValueError(
                f"forecast {tuple(forecast.shape)} and truth {tuple(truth.shape)} must both be "
                f"(batch, {self.squared.shape[0]}, {self.squared.shape[1]})"
            )
        error = forecast.detach().double() - truth.detach().double()
        self.squared += error.square().sum(0).cpu()
        self.absolute += error.abs().sum(0).cpu()
        self.windows += len(error)

    def compute(self) -> ForecastSummary:
        """The means so far. `ValueError` when nothing was counted."""
        if not self.windows:
            raise ValueError("no forecast has been counted")
        squared, absolute = self.squared / self.windows, self.absolute / self.windows
        return ForecastSummary(
            mse=squared.mean().item(),
            mae=absolute.mean().item(),
            mse_by_step=squared.mean(1),
            mae_by_step=absolute.mean(1),
            mse_by_channel=squared.mean(0),
            mae_by_channel=absolute.mean(0),
            windows=self.windows,
        )


def repeat_last(past: Tensor, horizon: int) -> Tensor:
    """Repeat the last value: past (B, T, C) to (B, H, C), a view."""
    return past[:, -1:].expand(-1, horizon, -1)


def seasonal(past: Tensor, horizon: int, season: int) -> Tensor:
    """Repeat the last season: past (B, T, C) to (B, H, C). `ValueError` when T < season."""
    if not 1 <= season <= past.shape[1]:
        raise ValueError(
            f"a season of {season} rows does not fit into a look-back of {past.shape[1]}"
        )
    rows = past.shape[1] - season + torch.arange(horizon, device=past.device) % season
    return past[:, rows]


def season_of(frequency: str) -> int:
    """Rows in the natural season of a clock: "15m" 96, "1h" 24, "1d" 7, "1w" 52, "1mo" 12; 1 where
    there is none.

    Seconds have an hour, minutes and hours a day, days a week, and the rest a year. `ValueError`
    for no frequency."""
    match = re.fullmatch(r"(\d+)(us|ms|s|m|h|d|b|w|mo|q|y)", frequency)
    if not match or int(match[1]) == 0:
        raise ValueError(f"{frequency!r} is not a frequency such as 15m, 1h, 1d, 1w, 1mo")
    season, rest = divmod(_SEASONS.get(match[2], 1), int(match[1]))
    # Where the step does not divide its season (7h), no row has a counterpart to repeat.
    return season if rest == 0 and season > 1 else 1


def naive_scale(history: Tensor, season: int) -> Tensor:
    """Mean absolute error (C,) float64 of repeating the last season within the training rows (T,
    C), T > season.

    The denominator of MASE (Hyndman and Koehler 2006). NaN where it is 0: such a channel has no
    scale."""
    if not 1 <= season < len(history):
        raise ValueError(
            f"a season of {season} rows needs more than {len(history)} rows of history"
        )
    history = history.double()
    scale = (history[season:] - history[:-season]).abs().mean(0)
    return torch.where(scale > 0, scale, float("nan"))


def mase(mae_by_channel: Tensor, scale: Tensor) -> Tensor:
    """Mean absolute scaled error (C,): errors over `naive_scale`, both (C,) in the same units.
    Below 1 beats it.
    """
    return mae_by_channel.double() / scale
