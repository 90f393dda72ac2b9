"""The rungs of forecasting: a naive forecast, a simple one, and the blend of it with the model."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
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
from ..engine.ladder import LadderScores, Rung, Rungs, rung_outputs
from ..engine.options import RungName
from ..engine.pipeline import Batch, Context, Splits
from ..metrics.bootstrap import DRAWS, draw_places
from ..metrics.forecasting import season_of
from .data import ForecastSpec, ForecastWindows
from .options import ForecastOptions
from .ridge import (
    MOST_OWN,
    LinearMap,
    WindowSums,
    best_ridge,
    naive_map,
    season_by_autocorrelation,
    sums_of,
)
from .scoring import batches, block_starts, evenly_spaced, forward

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


class ForecastRungs(Rungs[ForecastOptions, ForecastSpec, ForecastWindows]):
    """A naive forecast, ridge regression or exponential smoothing, and the blend with SOFTS."""

    def answer_words(self, options: ForecastOptions, spec: ForecastSpec) -> str:
        """The forecast, and how far it reaches."""
        return f"forecast for {span_words(spec.horizon, spec.frequency)} ahead"

    def model_words(self, options: ForecastOptions) -> str:
        """SOFTS, or what is built like it."""
        return "SOFTS" if options.attention == "star" else f"SOFTS with {options.attention}"

    def simple(
        self,
        model: nn.Module,
        splits: Splits[ForecastSpec, ForecastWindows],
        options: ForecastOptions,
        device: torch.device,
    ) -> dict[RungName, Rung]:
        """The naive and the simple forecast that are best on the validation part."""
        spec = splits.spec
        lookback, horizon, channels = spec.lookback, spec.horizon, len(spec.channels)
        inputs = lookback + len(spec.known) * (lookback + horizon)
        separate = channels > 1 and channels * inputs * (inputs + horizon) <= MOST_OWN
        (training, weighted), (validation, later) = (
            sums_of(_thinned(part, inputs), per_channel=separate)
            for part in (splits.train, splits.validation)
        )
        seasons = season_of(spec.frequency), season_by_autocorrelation(training, lookback)
        naive = _best_naive(spec, validation, {1, *seasons})
        ridge = best_ridge(training, weighted, validation, lookback, channels)
        smoothed = _smoothed(spec, splits.validation, seasons[1] or seasons[0], device)
        if smoothed is not None and smoothed.mse < ridge.mse:
            return {"naive": naive, "simple": smoothed.rung}

        def rung(fitted: LinearMap) -> Rung:
            module = fitted.module(lookback)
            known = len(spec.known) if module.known_weight.shape[1] else 0
            facts = {"maps": len(module.weight), "known": known}
            return Rung(ridge.words, module, facts, short="ridge regression")

        def refit() -> Rung:
            return rung(ridge.refit(training + validation, weighted + later, lookback))

        # Of very many windows each part is thinned out in its own measure: sums that do not add.
        parts = (splits.train, splits.validation)
        complete = all(len(part) <= _most_windows(part, inputs) for part in parts)
        return {
            "naive": naive,
            "simple": rung(ridge.map)._replace(refit=refit if complete else None),
        }

    def blend(
        self,
        model: nn.Module,
        simple: nn.Module,
        splits: Splits[ForecastSpec, ForecastWindows],
        options: ForecastOptions,
        device: torch.device,
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
        return Rung(words, blend)

    def empty(
        self,
        name: RungName,
        facts: Mapping[str, object],
        models: Mapping[RungName, nn.Module],
        spec: ForecastSpec,
    ) -> nn.Module:
        """A repeated past, a linear map or a smoother, or the blend."""
        if name == "naive":
            season = facts["season"]
            return RepeatPast(
                spec.lookback, spec.horizon, None if season is None else int(str(season))
            )
        if name == "simple" and facts.get("kind") == "smoothed":
            return SmoothedForecaster(spec.lookback, spec.horizon, int(str(facts["season"])))
        if name == "simple":
            return LinearForecaster(
                spec.lookback, spec.horizon, int(str(facts["maps"])), int(str(facts["known"]))
            )
        return BlendedForecaster(models["model"], models["simple"], spec.horizon)

    def scores(
        self,
        models: Mapping[RungName, nn.Module],
        dataset: ForecastWindows,
        context: Context[ForecastOptions, ForecastSpec],
    ) -> LadderScores:
        """MSE on the standardised values, with draws of blocks of windows."""
        spec, device = context.spec, context.device
        errors: dict[RungName, list[Tensor]] = {name: [] for name in models}
        with torch.no_grad():
            for _, batch in batches(dataset, range(len(dataset)), device, "compare"):
                forecasts = rung_outputs(models, lambda model, batch=batch: forward(model, batch))
                for name, forecast in forecasts.items():
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
    most = max(200, MOST_SMOOTHED // (spec.lookback * len(spec.channels)))
    places = evenly_spaced(len(dataset), most)
    squared = total = 0.0
    with torch.no_grad():
        for _, batch in batches(dataset, places, device, "smoothing"):
            error = (forward(model, batch) - batch["future"]).double()
            squared, total = squared + float(error.square().sum()), total + error.numel()
    of = f" with a season of {model.season} rows" if model.season else ""
    words = f"exponential smoothing of the last {spec.lookback} rows{of}"
    facts = {"kind": "smoothed", "season": model.season}
    rung = Rung(words, model, facts, short="exponential smoothing")
    return _Scored(rung, squared / total)


def _thinned(dataset: ForecastWindows, inputs: int) -> Iterator[Batch]:
    """Batches of all windows or, of very many, of evenly spaced ones."""
    places = evenly_spaced(len(dataset), _most_windows(dataset, inputs))
    for _, batch in batches(dataset, places, torch.device("cpu"), "simple model"):
        yield batch


def _most_windows(dataset: ForecastWindows, inputs: int) -> int:
    """How many windows of a part enter its sums."""
    horizon, channels = dataset[0]["future"].shape
    return max(1000, int(MOST_PRODUCTS / (channels * inputs * (inputs + horizon))))


def _best_naive(
    spec: ForecastSpec, validation: WindowSums, seasons: Collection[int | None]
) -> Rung:
    """The naive forecast with the smallest validation error."""
    lookback, horizon = spec.lookback, spec.horizon
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
    return Rung(words[best], RepeatPast(lookback, horizon, best), {"season": best})


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
