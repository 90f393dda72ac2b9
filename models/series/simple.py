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
