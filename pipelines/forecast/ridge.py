"""Ridge regression from the look-back window to the horizon, and naive forecasts, from one pass
over the training and one over the validation windows.

All of these forecasts are linear maps of the window, so sums of products decide everything: the
maps of all forms and penalties, and their validation errors. Shapes: T look-back, H horizon, C
channels, M maps (1 for all channels, or C), K known columns, F = K (T + H), D = T + F.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from ...models.series.simple import LinearForecaster
from ..engine.pipeline import Batch

Form: TypeAlias = Literal["as they are", "less the last", "less their mean", "scaled"]
FORMS: tuple[Form, ...] = ("as they are", "less the last", "less their mean", "scaled")
PENALTIES = tuple(10.0**power for power in range(-5, 4))  # times the mean of the diagonal
MOST_KNOWN = 2000  # inputs from known columns; more are not read
MOST_OWN = 30_000_000  # numbers in the sums of separate maps, up to which they are tried
LEAST_SPREAD = 1e-4  # variance of a window below which its scaled form gives it no more weight


@dataclass
class WindowSums:
    """Sums over windows of a part: inputs x (D,) and targets y (H,) of each of M maps.

    count (M,); x (M, D); y (M, H); xx (M, D, D); xy (M, D, H); yy (M,): sum of the squares of y.
    """

    count: Tensor
    x: Tensor
    y: Tensor
    xx: Tensor
    xy: Tensor
    yy: Tensor

    def joined(self) -> WindowSums:
        """The sums for one map of all channels."""
        return WindowSums(*(value.sum(0, keepdim=True) for value in self._values()))

    def _values(self) -> tuple[Tensor, ...]:
        return self.count, self.x, self.y, self.xx, self.xy, self.yy

    def __add__(self, more: WindowSums) -> WindowSums:
        return WindowSums(*(a + b for a, b in zip(self._values(), more._values(), strict=True)))

    @property
    def maps(self) -> int:
        return len(self.count)


class LinearMap(NamedTuple):
    """weight (M, D, H) and bias (M, H), float64."""

    weight: Tensor
    bias: Tensor

    def mse(self, sums: WindowSums) -> float:
        """Mean squared error over the windows of the sums, which are for M maps or for one each."""
        w, c = self.weight, self.bias
        fit = (w * sums.xy).sum((1, 2))
        quadratic = torch.einsum("mdh,mde,meh->m", w, sums.xx, w)
        rest = sums.y - torch.einsum("mdh,md->mh", w, sums.x)
        squared = sums.yy - 2 * fit + quadratic - 2 * (c * rest).sum(1)
        squared = squared + sums.count * c.square().sum(1)
        return float(squared.sum() / (sums.count.sum() * c.shape[1]))

    def module(self, lookback: int) -> LinearForecaster:
        """The forecaster of this map."""
        maps, horizon = self.bias.shape
        forecaster = LinearForecaster(lookback, horizon, maps)
        forecaster.weight = self.weight[:, :lookback].float().contiguous()
        forecaster.bias = self.bias.float()
        forecaster.known_weight = self.weight[:, lookback:].float().contiguous()
        return forecaster


def sums_of(batches: Iterable[Batch], *, per_channel: bool) -> tuple[WindowSums, WindowSums]:
    """The sums over batches of windows, and those in which each window counts by the inverse of its
    variance.
    """
    plain: WindowSums | None = None
    weighted: WindowSums | None = None
    for batch in batches:
        x, y = _inputs(batch)
        more = _sums(x, y, None, per_channel)
        plain = more if plain is None else plain + more
        spread = batch["past"].double().var(1, correction=0).T.clamp(min=LEAST_SPREAD)
        more = _sums(x, y, 1 / spread, per_channel)
        weighted = more if weighted is None else weighted + more
    assert plain is not None
    assert weighted is not None
    return plain, weighted


def _inputs(batch: Batch) -> tuple[Tensor, Tensor]:
    """x (C, B, D) and y (C, B, H) of a batch of windows, float64."""
    x = batch["past"].double().permute(2, 0, 1)
    known = batch.get("known")
    if known is not None and known[0].numel() <= MOST_KNOWN:
        flat = known.double().flatten(1)
        x = torch.cat([x, flat.expand(len(x), -1, -1)], 2)
    return x, batch["future"].double().permute(2, 0, 1)


def _sums(x: Tensor, y: Tensor, weight: Tensor | None, per_channel: bool) -> WindowSums:
    """weight (C, B): how much each window counts."""
    if not per_channel:
        x, y = x.reshape(1, -1, x.shape[2]), y.reshape(1, -1, y.shape[2])
        weight = None if weight is None else weight.reshape(1, -1)
    if weight is None:
        weight = x.new_ones(x.shape[:2])
    heavy = (weight[..., None] * x).transpose(1, 2)
    return WindowSums(
        weight.sum(1),
        heavy.sum(2),
        (weight[..., None] * y).sum(1),
        heavy @ x,
        heavy @ y,
        (weight[..., None] * y.square()).sum((1, 2)),
    )


class Candidate(NamedTuple):
    """A map with the words that say what it is, its validation error, and how it was fitted: the
    form, the rows of the look-back that it reads, the place of its penalty, and whether one map
    serves all channels.
    """

    words: str
    map: LinearMap
    mse: float
    form: Form
    rows: int
    penalty: int
    joined: bool

    def refit(self, plain: WindowSums, weighted: WindowSums, lookback: int) -> LinearMap:
        """The same ridge regression of other sums: plain ones, and those in which each window
        counts by the inverse of its variance.
        """
        sums = weighted if self.form == "scaled" else plain
        sums = sums.joined() if self.joined else sums
        return list(ridge_maps(sums, self.form, lookback, self.rows))[self.penalty]


def best_ridge(
    training: WindowSums, weighted: WindowSums, validation: WindowSums, lookback: int, channels: int
) -> Candidate:
    """The ridge regression with the smallest validation error, of all forms, penalties and
    look-backs, for all channels together or each on its own.
    """
    candidates: list[Candidate] = []
    separate = training.maps == channels and channels > 1
    for maps in ("all channels", "each channel") if separate else ("all channels",):
        whose = f"one map for {maps}" if channels > 1 else "one map"
        joined = maps == "all channels"
        fitted = [sums.joined() if joined else sums for sums in (training, weighted)]
        scored = validation.joined() if joined else validation
        shorter = {lookback, max(1, lookback // 2), max(1, lookback // 4)} if joined else {lookback}
        for rows in sorted(shorter, reverse=True):
            for form in FORMS:
                sums = fitted[1] if form == "scaled" else fitted[0]
                if rows == 1 and form != "as they are":
                    continue
                words = f"ridge regression on the last {rows} rows {form} ({whose})"
                maps_of_form = ridge_maps(sums, form, lookback, rows)
                candidates += [
                    Candidate(words, fit, fit.mse(scored), form, rows, penalty, joined)
                    for penalty, fit in enumerate(maps_of_form)
                ]
    return min(candidates, key=lambda candidate: candidate.mse)


def ridge_maps(sums: WindowSums, form: Form, lookback: int, rows: int) -> Iterator[LinearMap]:
    """The maps of one form for all penalties. rows: how many of the look-back they read."""
    inputs, level = _form(form, lookback, rows, sums.x)
    # The sums of inputs A x and of targets y less the level b · x.
    x, y = sums.x @ inputs.T, sums.y - (sums.x @ level)[:, None]
    xx = inputs @ sums.xx @ inputs.T
    xy = inputs @ (sums.xy - (sums.xx @ level)[..., None])
    count = sums.count[:, None, None]
    xx = xx - x[:, :, None] * x[:, None] / count
    xy = xy - x[:, :, None] * y[:, None] / count
    values, vectors = torch.linalg.eigh(xx)
    values, rotated = values.clamp(min=0), vectors.transpose(1, 2) @ xy
    size = values.mean(1, keepdim=True).clamp(min=1e-12)
    for penalty in PENALTIES:
        weight = vectors @ (rotated / (values + penalty * size)[..., None])
        bias = (y - torch.einsum("mdh,md->mh", weight, x)) / sums.count[:, None]
        yield LinearMap(inputs.T @ weight + level[:, None], bias)


def _form(form: Form, lookback: int, rows: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """A (D', D), what the map reads, and b (D,), the level that is taken off and put back."""
    size = like.shape[1]
    reads = torch.zeros(rows + size - lookback, size, dtype=like.dtype)
    reads[:rows, lookback - rows : lookback] = torch.eye(rows, dtype=like.dtype)
    reads[rows:, lookback:] = torch.eye(size - lookback, dtype=like.dtype)
    level = torch.zeros(size, dtype=like.dtype)
    if form == "less the last":
        level[lookback - 1] = 1
    elif form in ("less their mean", "scaled"):
        level[lookback - rows : lookback] = 1 / rows
    reads[:rows] -= level
    return reads, level


def naive_map(rows: Sequence[int] | None, sums: WindowSums, lookback: int) -> LinearMap:
    """A naive forecast as a map. rows: of the window, that are repeated at each step; () for the
    mean of the window, None for 0.
    """
    horizon = sums.y.shape[1]
    weight = torch.zeros(1, sums.x.shape[1], horizon, dtype=torch.float64)
    if rows is not None and not rows:
        weight[:, :lookback] = 1 / lookback
    elif rows:
        weight[0, list(rows), torch.arange(horizon)] = 1
    return LinearMap(weight, torch.zeros(1, horizon, dtype=torch.float64))


def season_by_autocorrelation(sums: WindowSums, lookback: int) -> int | None:
    """The lag above 1 at which the windows are most like themselves, if that is a peak; None if
    there is none.
    """
    joined = sums.joined()
    mean = joined.x[0, :lookback] / joined.count
    products = joined.xx[0, :lookback, :lookback] / joined.count - mean[:, None] * mean
    spread = products.diagonal().clamp(min=1e-12).sqrt()
    alike = products / (spread[:, None] * spread)
    by_lag = torch.stack([alike.diagonal(lag).mean() for lag in range(lookback)])
    inner = by_lag[1:-1]
    peaks = (inner > by_lag[:-2]) & (inner >= by_lag[2:])
    if not bool(peaks.any()):
        return None
    return int(torch.where(peaks, inner, -torch.inf).argmax()) + 1
