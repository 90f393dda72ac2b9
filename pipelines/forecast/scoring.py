"""How good a forecaster is: errors compared with naive forecasts, coverage of the intervals, and
windows to look at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from ..engine.command_line.terminal import Progressbar
from ..engine.pipeline import Batch, Calibration, Context, Metrics
from ..engine.training import order
from ..metrics.bootstrap import draw_places, percentile_interval
from ..metrics.conformal import ConformalIntervals, Coverage
from ..metrics.forecasting import ForecastErrors, repeat_last, season_of, seasonal
from .data import ForecastSpec, ForecastWindows
from .figures import Window
from .options import ForecastOptions

BATCH = 256
CALIBRATION_NUMBERS = 100_000_000  # residuals kept for the quantiles: 400 MB
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


def absolute_residuals(model: nn.Module, dataset: ForecastWindows, device: torch.device) -> Tensor:
    """Absolute errors (windows, H, C) on the scaled values.

    Evenly spaced windows stand for all of them where those of all would not fit into memory.
    """
    horizon, channels = dataset[0]["future"].shape
    most = min(max(200, CALIBRATION_NUMBERS // (horizon * channels)), len(dataset))
    indices = np.unique(np.linspace(0, len(dataset) - 1, most).astype(int)).tolist()
    residuals, done = torch.empty(len(indices), horizon, channels), 0
    with torch.no_grad():
        for block, batch in batches(dataset, indices, device, "calibrate"):
            errors = (forward(model, batch) - batch["future"]).abs()
            residuals[done : done + len(block)] = errors.cpu()
            done += len(block)
    return residuals


def intervals_of(calibration: Calibration, spec: ForecastSpec) -> ConformalIntervals:
    """The intervals that a run was calibrated to."""
    return ConformalIntervals(
        tuple(spec.levels), calibration["radius"].double(), int(calibration["windows"])
    )


class Scores:
    """What one pass over the windows gives.

    errors      summary of the model and of each naive forecast, on the scaled values
    best_naive  name of the naive forecast with the smallest MSE
    units       errors of the model in original units
    coverage    how often the intervals hold, and how wide they are
    per_window  squared error of each window
    """

    def __init__(
        self,
        model: nn.Module,
        dataset: ForecastWindows,
        intervals: ConformalIntervals,
        spec: ForecastSpec,
        device: torch.device,
    ) -> None:
        horizon, channels = spec.horizon, len(spec.channels)
        season = season_of(spec.frequency)
        seasonal_name = f"repeat last {season} steps" if 1 < season <= spec.lookback else None
        names = ["model", "repeat last", *([seasonal_name] if seasonal_name else [])]
        scaled = {name: ForecastErrors(channels, horizon) for name in names}
        units, coverage, per_window = ForecastErrors(channels, horizon), Coverage(intervals), []
        with torch.no_grad():
            for indices, batch in batches(dataset, range(len(dataset)), device, "score"):
                past, truth, forecast = batch["past"], batch["future"], forward(model, batch)
                scaled["model"].update(forecast, truth)
                scaled["repeat last"].update(repeat_last(past, horizon), truth)
                if seasonal_name:
                    scaled[seasonal_name].update(seasonal(past, horizon, season), truth)
                mean, std = dataset.units(indices)
                units.update(
                    forecast.cpu().double() * std + mean, truth.cpu().double() * std + mean
                )
                coverage.update(forecast, truth)
                per_window.append((forecast - truth).double().square().mean((1, 2)).cpu())
        self.errors = {name: errors.compute() for name, errors in scaled.items()}
        self.best_naive = min(names[1:], key=lambda name: self.errors[name].mse)
        self.units = units.compute()
        self.coverage = coverage.compute()
        self.per_window = torch.cat(per_window).numpy()


def interval_of_mean(values: np.ndarray, block: int, draws: int = 1000) -> tuple[float, float]:
    """95 % interval of the mean of per-window errors, by a bootstrap over blocks.

    Neighbouring windows share most of their rows, so blocks of `block` windows are drawn, not
    single windows.
    """
    starts = np.arange(0, len(values), block)
    sums, counts = np.add.reduceat(values, starts), np.diff(np.append(starts, len(values)))
    places = draw_places(len(starts), draws, seed=0)
    return percentile_interval(sums[places].sum(1) / counts[places].sum(1))


def metrics_of(
    scores: Scores,
    spec: ForecastSpec,
    intervals: ConformalIntervals,
    mse_interval: tuple[float, float],
) -> Metrics:
    """What `metrics.json` holds."""
    errors, coverage, units = scores.errors, scores.coverage, scores.units
    model, naive = errors["model"], errors[scores.best_naive]
    metrics: Metrics = {
        "mse": model.mse,
        "mae": model.mae,
        "mse_interval_95": list(mse_interval),
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
        "intervals": [
            {"level": level, "coverage": share, "mean_width": width}
            for level, share, width in zip(
                coverage["levels"], coverage["coverage"], coverage["mean_width"], strict=True
            )
        ],
        "original_units": {
            name: {
                "mae": float(units.mae_by_channel[channel]),
                "rmse": float(units.mse_by_channel[channel].sqrt()),
            }
            for channel, name in enumerate(spec.channels)
        },
        "by_step": {"mse": model.mse_by_step.tolist(), "mae": model.mae_by_step.tolist()},
    }
    if intervals.statement:
        metrics["intervals_note"] = intervals.statement
    return metrics


def headline_of(scores: Scores, spec: ForecastSpec, mse_interval: tuple[float, float]) -> str:
    """One sentence with the main figures."""
    (low, high), coverage = mse_interval, scores.coverage
    model, naive = scores.errors["model"], scores.errors[scores.best_naive]
    return (
        f"MSE {model.mse:.3f} (95 % interval {low:.3f}–{high:.3f}), MAE {model.mae:.3f} over "
        f"{model.windows:,} windows of {spec.horizon} steps, standardised; "
        f"{scores.best_naive}: {naive.mse:.3f}, {naive.mae:.3f}; "
        f"{coverage['levels'][-1]:.0%} intervals hold {coverage['coverage'][-1]:.1%}"
    )


def tables_of(scores: Scores, spec: ForecastSpec) -> dict[str, pl.DataFrame]:
    """Tables of the report, by caption."""
    channels, coverage = spec.channels[:MOST_CHANNELS], scores.coverage
    some = len(spec.channels) > MOST_CHANNELS
    cut = f" (the first {MOST_CHANNELS} of {len(spec.channels)})" if some else ""
    return {
        "Errors on the standardised values": pl.DataFrame(
            [
                {"forecast": name, "MSE": summary.mse, "MAE": summary.mae}
                for name, summary in scores.errors.items()
            ]
        ),
        "Prediction intervals": pl.DataFrame(
            {
                "level": coverage["levels"],
                "measured coverage": coverage["coverage"],
                "mean width (standardised)": coverage["mean_width"],
            }
        ),
        f"Errors in original units{cut}": pl.DataFrame(
            {
                "channel": channels,
                "MAE": scores.units.mae_by_channel[: len(channels)].numpy(),
                "RMSE": scores.units.mse_by_channel[: len(channels)].sqrt().numpy(),
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
        reach = intervals.widths[-1, :, channel]
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
