"""How good a forecaster is: errors compared with naive forecasts, coverage of the intervals, and
windows to look at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from ..engine.command_line.terminal import Progressbar
from ..engine.ladder import LEAST_BLOCKS
from ..engine.pipeline import Batch, Calibration, Context, Metrics
from ..engine.training import order
from ..metrics.bootstrap import draw_places, percentile_interval
from ..metrics.conformal import ConformalIntervals, Coverage, needed
from ..metrics.forecasting import ForecastErrors
from .data import ForecastSpec, ForecastWindows
from .figures import Window
from .naive import naive_forecasts, naive_names
from .options import ForecastOptions

BATCH = 256
CALIBRATION_NUMBERS = 100_000_000  # residuals kept for the quantiles: 400 MB
ORDINARY = 3.0  # ratio of a series' mean error to the median one, up to which intervals are shared
MOST_CHANNELS = 50  # rows of the table of channels


def forward(model: nn.Module, batch: Batch) -> Tensor:
    """The model on a batch of windows: (B, H, C)."""
    return model(batch["past"], batch.get("past_marks"), batch.get("known"))


def batches(
    dataset: ForecastWindows, indices: Sequence[int], device: torch.device, name: str
) -> Iterator[tuple[list[int], Batch]]:
    """The windows of `indices`, batch by batch, with a progress bar."""
    with Progressbar(total=len(indices), unit="window", desc=name) as bar:
        for places in order.sequential(len(indices), BATCH):
            block = [indices[place] for place in places]
            windows = dataset.__getitems__(block)
            yield block, {key: value.to(device) for key, value in windows.items()}
            bar.update(len(block))


def absolute_residuals(
    model: nn.Module, dataset: ForecastWindows, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Absolute errors (windows, H, C) on the scaled values, and the series (windows,) they are of.

    Evenly spaced windows stand for all of them where those of all would not fit into memory.
    """
    horizon, channels = dataset[0]["future"].shape
    most = max(200, CALIBRATION_NUMBERS // (horizon * channels))
    indices = evenly_spaced(len(dataset), most)
    residuals, done = torch.empty(len(indices), horizon, channels), 0
    with torch.no_grad():
        for block, batch in batches(dataset, indices, device, "calibrate"):
            errors = (forward(model, batch) - batch["future"]).abs()
            residuals[done : done + len(block)] = errors.cpu()
            done += len(block)
    return residuals, dataset.series_of(torch.tensor(indices))


def evenly_spaced(count: int, most: int) -> list[int]:
    """Places from 0 to count - 1: all of them, or about `most`."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int)).tolist()


def stretch_by_series(residuals: Tensor, series: Tensor, count: int) -> Tensor:
    """How many times wider the intervals of each series must be than those of the panel, (count,).

    1 for a series whose mean error is between a third and three times that of the median series, so
    that an ordinary panel shares its intervals; else the ratio of the two. So one series that moves
    as no other does widens its own intervals only.

    residuals: (windows, H, C); series: (windows,), the series of each window.
    """
    stretch = torch.ones(count)
    if count < 2:
        return stretch
    windows = torch.bincount(series, minlength=count)
    totals = torch.zeros(count, dtype=torch.float64)
    totals.index_add_(0, series, residuals.double().mean((1, 2)))
    errors = totals / windows
    median = errors[windows > 0].median()
    ratio = errors / median
    unusual = (windows > 0) & (median > 0) & ((ratio > ORDINARY) | (ratio < 1 / ORDINARY))
    return torch.where(unusual, ratio.clamp(min=1e-6), 1.0).float()


def stretch_of(calibration: Calibration, spec: ForecastSpec) -> dict[str, float]:
    """The series whose intervals are not those of the panel: how many times wider theirs are."""
    if "stretch" not in calibration:
        return {}
    factors = zip(spec.names, calibration["stretch"].tolist(), strict=True)
    return {name: factor for name, factor in factors if factor != 1}


def intervals_of(calibration: Calibration, spec: ForecastSpec) -> ConformalIntervals:
    """The intervals that a run was calibrated to."""
    return ConformalIntervals(
        tuple(spec.levels), calibration["radius"].double(), int(calibration["windows"])
    )


def finite_levels(intervals: ConformalIntervals) -> list[float]:
    """The levels for which there were enough validation windows."""
    finite = intervals.widths.isfinite().all(-1).all(-1).tolist()
    return [level for level, is_finite in zip(intervals.levels, finite, strict=True) if is_finite]


def lacking_windows(intervals: ConformalIntervals) -> str:
    """A sentence on the levels that have no interval; empty if all have one."""
    lacking = [level for level in intervals.levels if level not in finite_levels(intervals)]
    if not lacking:
        return ""
    levels = " and ".join(f"{level:.0%}" for level in lacking)
    windows = "window is" if intervals.n == 1 else "windows are"
    return (
        f"{intervals.n} validation {windows} too few for {levels} intervals "
        f"({needed(lacking[0])} are needed for {lacking[0]:.0%})"
    )


class Scores:
    """What one pass over the windows gives.

    errors      summary of the model and of each naive forecast, on the scaled values
    best_naive  name of the naive forecast with the smallest MSE
    units       errors of the model in original units
    coverage    how often the intervals hold, and how wide they are
    per_window  squared error of each window; naive_per_window: that of the best naive forecast
    """

    def __init__(
        self,
        model: nn.Module,
        dataset: ForecastWindows,
        intervals: ConformalIntervals,
        spec: ForecastSpec,
        device: torch.device,
        stretch: Mapping[str, float] | None = None,
    ) -> None:
        horizon, channels = spec.horizon, len(spec.channels)
        names = ["model", *naive_names(spec)]
        scaled = {name: ForecastErrors(channels, horizon) for name in names}
        units, coverage, per_window = ForecastErrors(channels, horizon), Coverage(intervals), []
        naive_windows: dict[str, list[Tensor]] = {name: [] for name in names[1:]}
        wider = torch.tensor([(stretch or {}).get(name, 1.0) for name in dataset.names])
        with torch.no_grad():
            for indices, batch in batches(dataset, range(len(dataset)), device, "score"):
                past, truth, forecast = batch["past"], batch["future"], forward(model, batch)
                scaled["model"].update(forecast, truth)
                for name, values in naive_forecasts(past, spec).items():
                    scaled[name].update(values, truth)
                    naive_windows[name].append(_squared_by_window(values, truth))
                mean, std = dataset.units(indices)
                units.update(
                    forecast.cpu().double() * std + mean, truth.cpu().double() * std + mean
                )
                series = dataset.series_of(torch.as_tensor(indices))
                coverage.update(forecast, truth, wider[series] if stretch else None)
                per_window.append(_squared_by_window(forecast, truth))
        self.errors = {name: errors.compute() for name, errors in scaled.items()}
        self.best_naive = min(names[1:], key=lambda name: self.errors[name].mse)
        self.units = units.compute()
        self.coverage = coverage.compute()
        self.per_window = torch.cat(per_window).numpy()
        self.naive_per_window = torch.cat(naive_windows[self.best_naive]).numpy()


def _squared_by_window(forecast: Tensor, truth: Tensor) -> Tensor:
    return (forecast - truth).double().square().mean((1, 2)).cpu()


class Certainty:
    """How sure the error of the model and its difference to the best naive forecast are.

    blocks      windows that share no rows, on which both intervals rest
    error       95 % interval of the MSE; None where there are fewer than `LEAST_BLOCKS` blocks
    difference  of the MSE of the model less that of the naive forecast, window by window
    """

    def __init__(self, scores: Scores, starts: np.ndarray) -> None:
        self.blocks = len(starts)
        difference = scores.per_window - scores.naive_per_window
        enough = self.blocks >= LEAST_BLOCKS
        self.error = interval_of_mean(scores.per_window, starts) if enough else None
        self.difference = interval_of_mean(difference, starts) if enough else None


def block_starts(dataset: ForecastWindows, block: int) -> np.ndarray:
    """The windows at which blocks begin: of `block` windows each, and none of two series."""
    series = dataset.series_of(torch.arange(len(dataset))).numpy()
    first = np.flatnonzero(np.diff(series, prepend=-1))
    begin = np.zeros(len(series), dtype=int)
    begin[first] = first
    place = np.arange(len(series)) - np.maximum.accumulate(begin)
    return np.flatnonzero(place % block == 0)


def interval_of_mean(
    values: np.ndarray, starts: np.ndarray, draws: int = 1000
) -> tuple[float, float]:
    """95 % interval of the mean of per-window errors, by a bootstrap over blocks.

    Neighbouring windows share most of their rows, so blocks of windows, which begin at `starts`,
    are drawn, not single windows.
    """
    sums, counts = np.add.reduceat(values, starts), np.diff(np.append(starts, len(values)))
    places = draw_places(len(starts), draws, seed=0)
    return percentile_interval(sums[places].sum(1) / counts[places].sum(1))


def metrics_of(
    scores: Scores, spec: ForecastSpec, intervals: ConformalIntervals, certainty: Certainty
) -> Metrics:
    """What `metrics.json` holds."""
    errors, units = scores.errors, scores.units
    model, naive = errors["model"], errors[scores.best_naive]
    metrics: Metrics = {
        "mse": model.mse,
        "mae": model.mae,
        "mse_interval_95": list(certainty.error) if certainty.error else None,
        "mse_blocks": certainty.blocks,
        "windows": model.windows,
        "horizon": spec.horizon,
        "channels": len(spec.channels),
        "scale": "standardised by the training rows",
        "baselines": {
            name: {"mse": summary.mse, "mae": summary.mae}
            for name, summary in errors.items()
            if name != "model"
        },
        "mae_share_of_best_baseline": model.mae / naive.mae if naive.mae else None,
        "difference_to_baseline": {
            "baseline": scores.best_naive,
            "mse": model.mse - naive.mse,
            "interval_95": list(certainty.difference) if certainty.difference else None,
        },
        "intervals": interval_metrics(scores, intervals, spec),
        "original_units": {
            name: {
                "mae": float(units.mae_by_channel[channel]),
                "rmse": float(units.mse_by_channel[channel].sqrt()),
            }
            for channel, name in enumerate(spec.channels)
        },
        "by_step": {"mse": model.mse_by_step.tolist(), "mae": model.mae_by_step.tolist()},
    }
    if note := lacking_windows(intervals):
        metrics["intervals_note"] = note
    return metrics


def interval_metrics(
    scores: Scores, intervals: ConformalIntervals, spec: ForecastSpec
) -> list[Metrics]:
    """Measured coverage and width by level; null for a level without an interval."""
    coverage, finite = scores.coverage, finite_levels(intervals)
    entries: list[Metrics] = []
    for place, level in enumerate(coverage["levels"]):
        by_channel = dict(zip(spec.channels, coverage["coverage_by_channel"][place], strict=True))
        measured: Metrics = {
            "coverage": coverage["coverage"][place],
            "mean_width": coverage["mean_width"][place],
            "coverage_of_paths": coverage["paths"][place],
            "coverage_by_channel": by_channel,
        }
        present = level in finite
        entries.append(
            {"level": level} | {name: v if present else None for name, v in measured.items()}
        )
    return entries


def headline_of(
    scores: Scores, spec: ForecastSpec, intervals: ConformalIntervals, certainty: Certainty
) -> str:
    """One sentence with the main figures."""
    coverage, finite = scores.coverage, finite_levels(intervals)
    model, naive = scores.errors["model"], scores.errors[scores.best_naive]
    if certainty.error is None or certainty.difference is None:
        blocks = (
            f"{certainty.blocks} separate block{'s' if certainty.blocks > 1 else ''} of windows"
        )
        sure, difference = f"{blocks}: too few for an interval", ""
    else:
        sure = f"95 % interval {certainty.error[0]:.3f}–{certainty.error[1]:.3f}"
        low, high = certainty.difference
        difference = f", 95 % interval {low:+.3f} to {high:+.3f} from {certainty.blocks} blocks"
    held = lacking_windows(intervals) or "no interval"
    if finite:
        place = coverage["levels"].index(finite[-1])
        held = f"{finite[-1]:.0%} intervals hold {coverage['coverage'][place]:.1%}"
        held += f"; {lacking}" if (lacking := lacking_windows(intervals)) else ""
    verdict = "better" if model.mse < naive.mse else "WORSE"
    return (
        f"MSE {model.mse:.3f} ({sure}), MAE {model.mae:.3f} over "
        f"{model.windows:,} windows of {spec.horizon} steps, standardised; "
        f"{scores.best_naive}: {naive.mse:.3f}, {naive.mae:.3f} (this forecast is {verdict} by "
        f"{abs(model.mse - naive.mse):.3f} in MSE{difference}); {held}"
    )


def tables_of(
    scores: Scores, spec: ForecastSpec, intervals: ConformalIntervals
) -> dict[str, pl.DataFrame]:
    """Tables of the report, by caption."""
    channels = spec.channels[:MOST_CHANNELS]
    some = len(spec.channels) > MOST_CHANNELS
    cut = f" (the first {MOST_CHANNELS} of {len(spec.channels)})" if some else ""
    held = pl.DataFrame(interval_metrics(scores, intervals, spec), infer_schema_length=None)
    lacking = lacking_windows(intervals)
    return {
        "Errors on the standardised values": pl.DataFrame(
            [
                {
                    "forecast": "this run" if name == "model" else name,
                    "MSE": summary.mse,
                    "MAE": summary.mae,
                }
                for name, summary in scores.errors.items()
            ]
        ),
        f"Prediction intervals{f': {lacking}' if lacking else ''}": held.select(
            "level",
            pl.col("coverage").alias("measured coverage"),
            pl.col("coverage_of_paths").alias("entire paths inside"),
            pl.col("mean_width").alias("mean width (standardised)"),
        ),
        f"Errors in original units{cut}": pl.DataFrame(
            {
                "channel": channels,
                "MAE": scores.units.mae_by_channel[: len(channels)].numpy(),
                "RMSE": scores.units.mse_by_channel[: len(channels)].sqrt().numpy(),
                **{
                    f"{level:.0%} intervals hold": scores.coverage["coverage_by_channel"][place][
                        : len(channels)
                    ]
                    for place, level in enumerate(scores.coverage["levels"])
                    if level in finite_levels(intervals)
                },
            }
        ),
    }


def windows_to_draw(
    model: nn.Module,
    dataset: ForecastWindows,
    scores: Scores,
    intervals: ConformalIntervals,
    context: Context[ForecastOptions, ForecastSpec],
) -> list[Window]:
    """Best, median and worst window, each in the channel with its largest error."""
    spec, device = context.spec, context.device
    stretch, finite = stretch_of(context.calibration, spec), finite_levels(intervals)
    ranked = np.argsort(scores.per_window)
    indices = [int(ranked[0]), int(ranked[len(ranked) // 2]), int(ranked[-1])]
    batch = {key: value.to(device) for key, value in dataset.__getitems__(indices).items()}
    with torch.no_grad():
        forecast = forward(model, batch).cpu().double()
    mean, std = dataset.units(indices)
    windows = []
    for row, (name, index) in enumerate(zip(("best", "median", "worst"), indices, strict=True)):
        truth = batch["future"][row].cpu().double()
        channel = int((forecast[row] - truth).square().mean(0).argmax())
        unit = min(row, len(mean) - 1)
        scale, shift = std[unit, 0, channel], mean[unit, 0, channel]
        series, start = dataset.locate(index)
        moment = str(dataset.times[series][start + spec.lookback])[:16].replace("T", " ")
        place = intervals.levels.index(finite[-1]) if finite else 0
        reach = intervals.widths[place, :, channel] if finite else torch.zeros(spec.horizon)
        reach = reach * stretch.get(dataset.names[series], 1.0)
        curves = (
            batch["past"][row, :, channel].cpu().double(),
            truth[:, channel],
            forecast[row, :, channel],
            forecast[row, :, channel] - reach,
            forecast[row, :, channel] + reach,
        )
        title = (
            f"{name}: {spec.channels[channel]}, from {moment}, MSE of the window "
            f"{scores.per_window[index]:.3f}"
        )
        windows.append(Window(title, *((curve * scale + shift).numpy() for curve in curves)))
    return windows
