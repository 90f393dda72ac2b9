"""Simple forecasters that every model has to beat, called as SOFTS is, and their blend with it.

Shapes: B batch, T look-back, H horizon, C channels, K columns known in the future."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RepeatPast(nn.Module):
    """The naive forecasts: the last season once more, the mean of the window, or no forecast at
    all, which is the mean of the training rows (0 on the scaled values).

    season: rows to repeat (1: the last value); 0 for the mean of the look-back window, None for 0.
    Raises ValueError where the season does not fit into the look-back.
    """

    def __init__(self, lookback: int, horizon: int, season: int | None) -> None:
        super().__init__()
        if season is not None and not 0 <= season <= lookback:
            raise ValueError(f"a season of {season} rows does not fit into {lookback} rows")
        self.horizon, self.season = horizon, season
        self.rows = None
        if season:
            self.rows = [lookback - season + step % season for step in range(horizon)]

    def forward(
        self, past: Tensor, past_marks: Tensor | None = None, known: Tensor | None = None
    ) -> Tensor:
        """Forecast (B, H, C) from past (B, T, C)."""
        if self.rows is not None:
            return past[:, self.rows]
        level = past.mean(1, keepdim=True)
        return (level if self.season == 0 else torch.zeros_like(level)).expand(-1, self.horizon, -1)


class LinearForecaster(nn.Module):
    """One linear map from the look-back window to the horizon, for all channels or one for each.

    weight (1 or C, T, H); bias (1 or C, H); known_weight (1 or C, K (T + H), H) for columns known
    in the future, flattened as they come. How far a linear layer gets: Zeng et al., AAAI 2023
    (arXiv 2205.13504).
    """

    weight: Tensor
    bias: Tensor
    known_weight: Tensor

    def __init__(self, lookback: int, horizon: int, maps: int = 1, known: int = 0) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(maps, lookback, horizon))
        self.register_buffer("bias", torch.zeros(maps, horizon))
        known_rows = known * (lookback + horizon)
        self.register_buffer("known_weight", torch.zeros(maps, known_rows, horizon))

    def forward(
        self, past: Tensor, past_marks: Tensor | None = None, known: Tensor | None = None
    ) -> Tensor:
        """Forecast (B, H, C) from past (B, T, C) and known (B, T + H, K)."""
        series = past.transpose(1, 2)  # (B, C, T)
        if len(self.weight) == 1:
            forecast = series @ self.weight[0] + self.bias[0]
        else:
            forecast = torch.einsum("bct,cth->bch", series, self.weight) + self.bias
        if known is not None and self.known_weight.shape[1]:
            forecast = forecast + torch.einsum("bf,mfh->bmh", known.flatten(1), self.known_weight)
        return forecast.transpose(1, 2)


class SmoothedForecaster(nn.Module):
    """Exponential smoothing of level and damped trend (Gardner and McKenzie 1985) with a fixed
    season, fitted to each look-back window and channel on its own.

    The season, if there are two in the window, is the mean of each of its phases less a straight
    line; it is taken off and put back. Of `SETTINGS` (alpha, beta, phi) the one that would have
    forecast the next value of the window best is used.

    season: rows; below 2 for none. Raises ValueError for a look-back of fewer than 3 rows.
    """

    SETTINGS = tuple(
        (alpha, beta, phi)
        for alpha in (0.05, 0.2, 0.4, 0.6, 0.8, 0.95)
        for beta, phi in ((0.0, 1.0), (0.1, 0.9), (0.3, 0.9), (0.1, 0.98))
    )
    """With beta 0 there is no trend: simple exponential smoothing."""

    settings: Tensor

    def __init__(self, lookback: int, horizon: int, season: int) -> None:
        super().__init__()
        if lookback < 3:
            raise ValueError(f"exponential smoothing needs 3 rows or more, not {lookback}")
        self.lookback, self.horizon = lookback, horizon
        self.season = season if season >= 2 and 2 * season <= lookback else 0
        self.register_buffer("settings", torch.tensor(self.SETTINGS), persistent=False)

    def forward(
        self, past: Tensor, past_marks: Tensor | None = None, known: Tensor | None = None
    ) -> Tensor:
        """Forecast (B, H, C) from past (B, T, C)."""
        shape, steps = past.new_zeros(()), torch.arange(self.horizon, device=past.device)
        if self.season:
            shape = self._season(past)
            past = past - shape[:, torch.arange(self.lookback, device=past.device) % self.season]
        level, trend, phi = self._smooth(past)
        damped = phi[..., None] ** (steps + 1)
        forecast = level[..., None] + trend[..., None] * damped.cumsum(-1)
        forecast = forecast.transpose(1, 2)
        if self.season:
            forecast = forecast + shape[:, (self.lookback + steps) % self.season]
        return forecast

    def _season(self, past: Tensor) -> Tensor:
        """(B, season, C): the mean of each phase of the window less its straight line."""
        rows = torch.arange(self.lookback, device=past.device, dtype=past.dtype)
        centred = rows - rows.mean()
        slope = (centred[:, None] * past).sum(1, keepdim=True) / centred.square().sum()
        rest = past - past.mean(1, keepdim=True) - slope * centred[:, None]
        phases = [rest[:, phase :: self.season].mean(1) for phase in range(self.season)]
        shape = torch.stack(phases, 1)
        return shape - shape.mean(1, keepdim=True)

    def _smooth(self, past: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Level, trend and phi (B, C) at the end of the window, of the setting that fits best."""
        alpha, beta, phi = self.settings.to(past.dtype).unbind(1)
        level = past[:, 0, :, None].expand(-1, -1, len(alpha))
        trend, error = torch.zeros_like(level), torch.zeros_like(level)
        for row in range(1, self.lookback):
            value = past[:, row, :, None]
            expected = level + phi * trend
            error = error + (value - expected).square()
            before, level = level, expected + alpha * (value - expected)
            trend = (1 - beta) * phi * trend + beta * (level - before)
        best = error.argmin(-1, keepdim=True)
        return (level.gather(-1, best)[..., 0], trend.gather(-1, best)[..., 0], phi[best[..., 0]])


class BlendedForecaster(nn.Module):
    """A weighted mean of two forecasters: share (H,) of the first at each step of the horizon."""

    share: Tensor

    def __init__(self, model: nn.Module, simple: nn.Module, horizon: int) -> None:
        super().__init__()
        self.model, self.simple = model, simple
        self.register_buffer("share", torch.full((horizon,), 0.5))

    def forward(
        self, past: Tensor, past_marks: Tensor | None = None, known: Tensor | None = None
    ) -> Tensor:
        """Forecast (B, H, C)."""
        return self.blend(self.model(past, past_marks, known), self.simple(past, past_marks, known))

    def blend(self, first: Tensor, second: Tensor) -> Tensor:
        """Of the forecasts (B, H, C) of the two."""
        share = self.share[:, None]
        return share * first + (1 - share) * second
