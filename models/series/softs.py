"""SOFTS: forecasting of many series at once, each series one token, mixed through a core.

Shapes: B batch, T look-back, H horizon, C channels (series), M time marks, K columns known in the
future, D width."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..attention import ALIASES, build_attention
from ..layers.blocks import EncoderLayer, build_feedforward


class SOFTS(nn.Module):
    """Series-core fusion forecaster (Han et al., NeurIPS 2024, arXiv 2404.14197; semantics of the
    published code).

    lookback: T; horizon: H; width: D of a token; core: width of STAR's core; feedforward: width of
    the feed-forward layer; layers: encoder layers; dropout: of embedding and layers; normalise:
    take mean and deviation of each window out and put them back (Non-stationary Transformer without
    its learned part); stochastic: STAR draws its core in training; attention: "star", or a name of
    `headwise list attention` ("softmax" gives an iTransformer-like model), with `heads` heads and
    `attention_options`; ffn: "mlp" (the paper), "glu" or "moe", a mixture of experts with the
    options `moe` of `MoE`.

    known: number K of the user's columns that are known in the future (price, holiday, plan). Our
    addition: a linear layer (K (T + H), D) reads all of them over look-back and horizon, and is
    added to the token of every channel. Not tokens of their own: what they say would have to pass
    through the core, of which training draws single entries. The paper has time marks only, and
    those end with the look-back. Known columns are not normalised per window: scale them over the
    training rows.

    The number of channels is free: the same weights take any C, and without regard to the order of
    channels."""

    def __init__(
        self,
        *,
        lookback: int,
        horizon: int,
        width: int = 512,
        core: int = 512,
        feedforward: int = 512,
        layers: int = 2,
        heads: int = 8,
        dropout: float = 0.0,
        normalise: bool = True,
        stochastic: bool = True,
        attention: str = "star",
        attention_options: Mapping[str, object] | None = None,
        ffn: Literal["mlp", "glu", "moe"] = "mlp",
        moe: Mapping[str, Any] | None = None,
        known: int = 0,
    ) -> None:
        super().__init__()
        for name, size in (
            ("lookback", lookback),
            ("horizon", horizon),
            ("width", width),
            ("layers", layers),
        ):
            if size < 1:
                raise ValueError(f"SOFTS: {name} must be positive, got {size}")
        if known < 0:
            raise ValueError(f"SOFTS: known must not be negative, got {known}")
        self.lookback, self.horizon, self.known, self.normalise = (
            lookback,
            horizon,
            known,
            normalise,
        )
        options = (
            {"core": core, "stochastic": stochastic}
            if ALIASES.get(attention, attention) == "star"
            else {}
        )
        options = {**options, **(attention_options or {})}
        self.embed = nn.Linear(lookback, width)
        self.embed_known = nn.Linear(known * (lookback + horizon), width) if known else None
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(
                width,
                build_attention(attention, width, heads, **options),
                build_feedforward(ffn, width, feedforward, dropout=dropout, moe=moe),
                dropout=dropout,
            )
            for _ in range(layers)
        )
        self.head = nn.Linear(width, horizon)

    def forward(
        self, past: Tensor, past_marks: Tensor | None = None, known: Tensor | None = None
    ) -> Tensor:
        """Forecast (B, H, C) from past (B, T, C), in the units of past.

        past_marks: (B, T, M), time marks in [-.5, .5]; known: (B, T + H, K). All may hold any
        number of channels but K, which is the number given to the constructor.

        Raises ValueError if a length or the number of known columns does not fit.
        """
        self._check(past, past_marks, known)
        channels = past.shape[2]
        series, mean, deviation = past, None, None
        if self.normalise:
            mean = past.mean(1, keepdim=True).detach()
            series = past - mean
            deviation = torch.sqrt(torch.var(series, dim=1, keepdim=True, unbiased=False) + 1e-5)
            series = series / deviation
        x = self.dropout(self._tokens(series, past_marks, known))
        static = x
        for layer in self.layers:
            x = layer(x, static=static)
        forecast = self.head(x[:, :channels]).transpose(1, 2)
        if mean is not None and deviation is not None:
            forecast = forecast * deviation + mean
        return forecast

    def _tokens(self, series: Tensor, marks: Tensor | None, known: Tensor | None) -> Tensor:
        """Tokens (B, C + M, D): channels, then marks by the same layer; known columns are added to
        all of them.
        """
        if marks is not None:
            series = torch.cat([series, marks.to(series.dtype)], 2)
        tokens = self.embed(series.transpose(1, 2))
        if self.embed_known is not None and known is not None:
            tokens = tokens + self.embed_known(known.to(series.dtype).flatten(1))[:, None]
        return tokens

    def _check(self, past: Tensor, marks: Tensor | None, known: Tensor | None) -> None:
        if past.ndim != 3 or past.shape[1] != self.lookback:
            raise ValueError(
                f"SOFTS: past must be (batch, {self.lookback}, channels), got {tuple(past.shape)}"
            )
        if marks is not None and (marks.ndim != 3 or marks.shape[1] != self.lookback):
            raise ValueError(
                f"SOFTS: past_marks must be (batch, {self.lookback}, marks), got "
                f"{tuple(marks.shape)}"
            )
        columns = 0 if known is None else known.shape[-1]
        if columns != self.known:
            raise ValueError(f"SOFTS: built for {self.known} known columns, got {columns}")
        if known is not None and (
            known.ndim != 3 or known.shape[1] != self.lookback + self.horizon
        ):
            raise ValueError(
                f"SOFTS: known must be (batch, {self.lookback} + {self.horizon}, columns), got "
                f"{tuple(known.shape)}"
            )
