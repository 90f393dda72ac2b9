"""The rungs of forecasting: a naive forecast, a simple one, and the blend of it with the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ...models.series.simple import (
    BlendedForecaster,
    LinearForecaster,
    RepeatPast,
    SmoothedForecaster,
)
from ..engine.ladder import LadderScores, Rung
from ..engine.options import RungName
from ..engine.pipeline import Batch, Splits
from ..metrics.bootstrap import DRAWS, draw_places
from ..metrics.forecasting import season_of
from .data import ForecastSpec, ForecastWindows
from .ridge import MOST_OWN, WindowSums, best_ridge, naive_map, season_by_autocorrelation, sums_of
from .scoring import batches, block_starts, forward

MOST_PRODUCTS = 2e11  # multiplications of the sums; more windows are thinned out evenly
LEAST_SMOOTHED = 4  # rows of a window that is smoothed
MOST_SMOOTHED = 20_000_000  # numbers in the windows that smoothing is scored on
BLOCKS = 4  # of the horizon, each with its own share of the model in the blend
DOUBT = 4.0
"""How strongly the shares of a blend are drawn towards one half, as blocks of validation windows:
the best share of a block is taken to scatter twice as much as that of a data set."""
SPANS = {
    "us": "microsecond", "ms": "millisecond",
    "s": "second", "m": "minute", "h": "hour", "d": "day", "b": "business day", "w": "week",
    "mo": "month", "q": "quarter", "y": "year",
}  # fmt: skip

LONGER = (
    ("us", "ms", 1000), ("ms", "s", 1000), ("s", "m", 60), ("m", "h", 60), ("h", "d", 24),
    ("w", "y", 52), ("mo", "y", 12), ("q", "y", 4),
)  # fmt: skip


def simple_rungs(splits: Splits[ForecastSpec], device: torch.device) -> dict[RungName, Rung]:
    """The naive and the simple forecast that are best on the validation part."""
    spec = splits.spec
    lookback, horizon, channels = spec.lookback, spec.horizon, len(spec.channels)
    inputs = lookback + len(spec.known) * (lookback + horizon)
    own = channels > 1 and channels * inputs * (inputs + horizon) <= MOST_OWN
    training, weighted = sums_of(
        _thinned(splits.train, inputs, "simple model"), per_channel=own, scaled=True
    )
    validation, _ = sums_of(
        _thinned(splits.validation, inputs, "simple model"), per_channel=own, scaled=False
    )
    naive = _best_naive(spec, training, validation)
    ridge = best_ridge(training, weighted, validation, lookback, channels)
    naive_season = season_by_autocorrelation(training, lookback) or season_of(spec.frequency)
    smoothed = _smoothed(spec, splits.validation, naive_season, device)
    if smoothed is not None and smoothed.mse < ridge.mse:
        return {"naive": naive, "simple": smoothed.rung}
    module = ridge.map.module(lookback)
    known = len(spec.known) if module.known_weight.shape[1] else 0
    simple = Rung(
        "ridge regression", ridge.words, module, {"maps": len(module.weight), "known": known}
    )
    return {"naive": naive, "simple": simple}


class _Scored(NamedTuple):
    rung: Rung
    mse: float


def _smoothed(
    spec: ForecastSpec, dataset: ForecastWindows, season: int, device: torch.device
) -> _Scored | None:
    """Exponential smoothing with its validation error; None for a look-back that is too short."""
    if spec.lookback < LEAST_SMOOTHED:
        return None
    model = SmoothedForecaster(spec.lookback, spec.horizon, season).to(device)
    count = min(len(dataset), max(200, MOST_SMOOTHED // (spec.lookback * len(spec.channels))))
    places = np.unique(np.linspace(0, len(dataset) - 1, count).astype(int)).tolist()
    squared = total = 0.0
    with torch.no_grad():
        for _, batch in batches(dataset, places, device, "smoothing"):
            error = (forward(model, batch) - batch["future"]).double()
            squared, total = squared + float(error.square().sum()), total + error.numel()
    of = f" with a season of {model.season} rows" if model.season else ""
    words = f"exponential smoothing of the last {spec.lookback} rows{of}"
    rung = Rung("exponential smoothing", words, model, {"kind": "smoothed", "season": model.season})
    return _Scored(rung, squared / total)


def _thinned(dataset: ForecastWindows, inputs: int, name: str) -> Iterator[Batch]:
    """Batches of all windows or, of very many, of evenly spaced ones."""
    horizon, channels = dataset[0]["future"].shape
    most = max(1000, int(MOST_PRODUCTS / (channels * inputs * (inputs + horizon))))
    count = min(len(dataset), most)
    places = np.unique(np.linspace(0, len(dataset) - 1, count).astype(int)).tolist()
    for _, batch in batches(dataset, places, torch.device("cpu"), name):
        yield batch


def _best_naive(spec: ForecastSpec, training: WindowSums, validation: WindowSums) -> Rung:
    """The naive forecast with the smallest validation error."""
    lookback, horizon = spec.lookback, spec.horizon
    seasons = {1, season_of(spec.frequency), season_by_autocorrelation(training, lookback)}
    words: dict[int | None, str] = {
        None: "the mean of the training rows",
        0: f"the mean of the last {lookback} rows",
        **{
            season: season_words(season, spec.frequency)
            for season in sorted(season for season in seasons if season)
            if season <= lookback
        },
    }
    scored = validation.joined()
    errors: dict[int | None, float] = {}
    for season in words:
        rows = None if season is None else RepeatPast(lookback, horizon, season).rows or ()
        errors[season] = naive_map(rows, scored, lookback).mse(scored)
    best = min(errors, key=lambda season: errors[season])
    return Rung(words[best], words[best], RepeatPast(lookback, horizon, best), {"season": best})


def season_words(season: int, frequency: str) -> str:
    """What repeating a season is called: "repeating the last day (24 rows)"."""
    if season == 1:
        return "repeating the last value"
    span = span_words(season, frequency).removeprefix("1 ")
    return f"repeating the last {span} ({season} rows)"


def span_words(rows: int, frequency: str) -> str:
    """How long some rows are, in the largest unit that fits: "4 days" for 96 rows of 1h."""
    unit = frequency.lstrip("0123456789")
    length = int(frequency.removesuffix(unit)) * rows
    for smaller, larger, size in LONGER:
        if unit == smaller and length % size == 0:
            unit, length = larger, length // size
    return f"{length} {SPANS[unit]}{'s' if length > 1 else ''}"


def blend_rung(
    model: nn.Module, simple: nn.Module, splits: Splits[ForecastSpec], device: torch.device
) -> Rung:
    """The blend whose shares, by block of the horizon, have the smallest validation error."""
    horizon = splits.spec.horizon
    aligned = torch.zeros(horizon, dtype=torch.float64)
    distance = torch.zeros(horizon, dtype=torch.float64)
    simple = simple.to(device)
    dataset = splits.validation
    with torch.no_grad():
        for _, batch in batches(dataset, range(len(dataset)), device, "blend"):
            by_simple = forward(simple, batch).double()
            apart = forward(model, batch).double() - by_simple
            error = batch["future"].double() - by_simple
            aligned += (error * apart).sum((0, 2)).cpu()
            distance += apart.square().sum((0, 2)).cpu()
    blend = BlendedForecaster(model, simple, horizon)
    blocks = len(block_starts(dataset, splits.spec.lookback + horizon))
    blend.share = blend_shares(aligned, distance, DOUBT / blocks).float()
    shares = sorted({round(float(share), 2) for share in blend.share})
    span = f"{shares[0]:.0%}" if len(shares) == 1 else f"{shares[0]:.0%} to {shares[-1]:.0%}"
    words = f"weighted mean of the forecasts of the two, {span} of the model"
    return Rung("the blend of the two", words, blend)


def blend_shares(aligned: Tensor, distance: Tensor, doubt: float) -> Tensor:
    """The share of the model at each step (H,), the same within a block of the horizon.

    aligned: sums (H,) over windows and channels of (truth - simple) (model - simple); distance: of
    (model - simple)². Their ratio is the best share; it is drawn towards one half, the more the
    larger the doubt.
    """
    horizon = len(aligned)
    shares = torch.empty(horizon, dtype=torch.float64)
    count = min(BLOCKS, max(1, horizon // 4))
    for steps in torch.arange(horizon).chunk(count):
        far = distance[steps].sum()
        best = aligned[steps].sum() / far if far > 0 else torch.tensor(0.5)
        shares[steps] = ((best + doubt / 2) / (1 + doubt)).clamp(0, 1)
    return shares


def rung_model(
    name: RungName,
    facts: Mapping[str, object],
    models: Mapping[RungName, nn.Module],
    spec: ForecastSpec,
) -> nn.Module:
    """A rung without its tensors."""
    if name == "naive":
        season = facts["season"]
        return RepeatPast(spec.lookback, spec.horizon, None if season is None else int(str(season)))
    if name == "simple" and facts.get("kind") == "smoothed":
        return SmoothedForecaster(spec.lookback, spec.horizon, int(str(facts["season"])))
    if name == "simple":
        return LinearForecaster(
            spec.lookback, spec.horizon, int(str(facts["maps"])), int(str(facts["known"]))
        )
    return BlendedForecaster(models["model"], models["simple"], spec.horizon)


def ladder_scores(
    models: Mapping[RungName, nn.Module],
    dataset: ForecastWindows,
    spec: ForecastSpec,
    device: torch.device,
) -> LadderScores:
    """The MSE of each rung on the standardised values."""
    errors: dict[RungName, list[Tensor]] = {name: [] for name in models}
    with torch.no_grad():
        for _, batch in batches(dataset, range(len(dataset)), device, "compare"):
            for name, forecast in _forecasts(models, batch).items():
                squared = (forecast - batch["future"]).double().square()
                errors[name].append(squared.mean((1, 2)).cpu())
    starts = block_starts(dataset, spec.lookback + spec.horizon)
    counts = np.diff(np.append(starts, len(dataset)))
    places = draw_places(len(starts), DRAWS, seed=0)
    by_window = {name: torch.cat(parts).numpy() for name, parts in errors.items()}
    return LadderScores(
        "MSE",
        False,
        {name: float(values.mean()) for name, values in by_window.items()},
        {
            name: np.add.reduceat(values, starts)[places].sum(1) / counts[places].sum(1)
            for name, values in by_window.items()
        },
        len(starts),
    )


def _forecasts(models: Mapping[RungName, nn.Module], batch: Batch) -> dict[RungName, Tensor]:
    """The forecast of each rung; a blend is made of those of its parts, not computed again."""
    forecasts: dict[RungName, Tensor] = {}
    for name, model in models.items():
        if isinstance(model, BlendedForecaster):
            forecasts[name] = model.blend(forecasts["model"], forecasts["simple"])
        else:
            forecasts[name] = forward(model, batch)
    return forecasts
