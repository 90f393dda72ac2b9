"""What a forecaster is worth: errors beside the naive forecasts, coverage of the intervals, windows
to look at.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch

from ..engine.command_line.terminal import Progressbar
from ..engine.pipeline import Review
from ..engine.training import order
from ..metrics.bootstrap import draw_places, percentile_interval
from ..metrics.conformal import ConformalIntervals, Coverage
from ..metrics.forecasting import ForecastErrors, ForecastSummary, repeat_last, season_of, seasonal
from . import figures
from .data import ForecastWindows
from .options import ForecastOptions

if TYPE_CHECKING:
    from torch import nn

BATCH = 256
CALIBRATION_NUMBERS = 100_000_000  # residuals kept for the quantiles: 400 MB


def forward(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The model on a batch of windows: (B, H, C)."""
    return model(batch["past"], batch.get("past_marks"), batch.get("known"))


def batches(
    dataset: ForecastWindows, indices: list[int], device: torch.device, name: str
) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
    """The windows of `indices`, batch by batch, with a progress bar."""
    with Progressbar(total=len(indices), unit="window", desc=name) as bar:
        for part in order.sequential(len(indices), BATCH):
            chosen = [indices[i] for i in part]
            yield (
                chosen,
                {key: value.to(device) for key, value in dataset.__getitems__(chosen).items()},
            )
            bar.update(len(chosen))


def calibrate(
    model: nn.Module, dataset: ForecastWindows, options: ForecastOptions, device: torch.device
) -> dict[str, torch.Tensor]:
    """Half-widths of the intervals (levels, H, C) on the scaled values, from the validation
    windows.

    Where the residuals of all windows would not fit into memory, evenly spaced windows stand for
    them."""
    channels = dataset[0]["future"].shape[1]
    most = max(200, CALIBRATION_NUMBERS // (options.horizon * channels))
    chosen = np.unique(
        np.linspace(0, len(dataset) - 1, min(most, len(dataset))).astype(int)
    ).tolist()
    residuals = torch.empty(len(chosen), options.horizon, channels)
    done = 0
    with torch.no_grad():
        for part, batch in batches(dataset, chosen, device, "calibrate"):
            residuals[done : done + len(part)] = (
                (forward(model, batch) - batch["future"]).abs().cpu()
            )
            done += len(part)
    intervals = ConformalIntervals.fit(residuals, sorted(options.levels))
    return {"radius": intervals.widths.float(), "windows": torch.tensor(len(chosen))}


def intervals_of(calibration: dict[str, torch.Tensor], spec: dict[str, Any]) -> ConformalIntervals:
    """The intervals that a run was calibrated to."""
    return ConformalIntervals(
        tuple(spec["levels"]), calibration["radius"].double(), int(calibration["windows"])
    )


class Score:
    """Everything that one pass over the windows tells."""

    def __init__(
        self,
        model: nn.Module,
        dataset: ForecastWindows,
        intervals: ConformalIntervals,
        spec: dict[str, Any],
        device: torch.device,
    ) -> None:
        horizon, channels = spec["horizon"], len(spec["channels"])
        season = season_of(spec["frequency"])
        self.season = season if 1 < season <= spec["lookback"] else None
        names = [
            "model",
            "repeat last",
            *([f"repeat last {self.season} steps"] if self.season else []),
        ]
        scaled = {name: ForecastErrors(channels, horizon) for name in names}
        units = ForecastErrors(channels, horizon)
        self.coverage = Coverage(intervals)
        per_window = []
        with torch.no_grad():
            for indices, batch in batches(dataset, list(range(len(dataset))), device, "score"):
                past, truth, forecast = batch["past"], batch["future"], forward(model, batch)
                scaled["model"].update(forecast, truth)
                scaled["repeat last"].update(repeat_last(past, horizon), truth)
                if self.season:
                    scaled[names[2]].update(seasonal(past, horizon, self.season), truth)
                mean, std = dataset.units(indices)
                units.update(
                    forecast.cpu().double() * std + mean, truth.cpu().double() * std + mean
                )
                self.coverage.update(forecast, truth)
                per_window.append((forecast - truth).double().square().mean((1, 2)).cpu())
        self.errors = {name: errors.compute() for name, errors in scaled.items()}
        self.units = units.compute()
        self.per_window = torch.cat(per_window).numpy()


def interval_of_mean(values: np.ndarray, block: int, draws: int = 1000) -> tuple[float, float]:
    """95 % interval of the mean of per-window errors, by a bootstrap over blocks.

    Neighbouring windows share most of their rows, so whole blocks of `block` windows are drawn, not
    windows."""
    starts = np.arange(0, len(values), block)
    sums, counts = np.add.reduceat(values, starts), np.diff(np.append(starts, len(values)))
    places = draw_places(len(starts), draws, seed=0)
    return percentile_interval(sums[places].sum(1) / counts[places].sum(1))


def review(
    model: nn.Module,
    dataset: ForecastWindows,
    calibration: dict[str, torch.Tensor],
    options: ForecastOptions,
    spec: dict[str, Any],
    device: torch.device,
) -> Review:
    """Score, and draw the pictures."""
    intervals = intervals_of(calibration, spec)
    score = Score(model, dataset, intervals, spec, device)
    errors, best_naive = (
        score.errors,
        min((n for n in score.errors if n != "model"), key=lambda n: score.errors[n].mse),
    )
    coverage = score.coverage.compute()
    low, high = interval_of_mean(score.per_window, options.horizon + options.lookback)
    mine, naive = errors["model"], errors[best_naive]
    metrics = {
        "mse": mine.mse,
        "mae": mine.mae,
        "mse_interval_95": [low, high],
        "windows": mine.windows,
        "horizon": spec["horizon"],
        "channels": len(spec["channels"]),
        "scale": "standardised by the training rows",
        "baselines": {
            name: {"mse": e.mse, "mae": e.mae} for name, e in errors.items() if name != "model"
        },
        "mae_share_of_best_baseline": mine.mae / naive.mae if naive.mae else None,
        "intervals": [
            {
                "level": level,
                "coverage": coverage["coverage"][i],
                "mean_width": coverage["mean_width"][i],
            }
            for i, level in enumerate(coverage["levels"])
        ],
        "original_units": {
            name: {
                "mae": float(score.units.mae_by_channel[i]),
                "rmse": float(score.units.mse_by_channel[i].sqrt()),
            }
            for i, name in enumerate(spec["channels"])
        },
        "by_step": {"mse": mine.mse_by_step.tolist(), "mae": mine.mae_by_step.tolist()},
    }
    if intervals.statement:
        metrics["intervals_note"] = intervals.statement
    level, measured = coverage["levels"][-1], coverage["coverage"][-1]
    headline = (
        f"MSE {mine.mse:.3f} (95 % interval {low:.3f}–{high:.3f}), MAE {mine.mae:.3f} over {mine.windows:,} windows of "
        f"{spec['horizon']} steps, standardised; {best_naive}: {naive.mse:.3f}, {naive.mae:.3f}; "
        f"{level:.0%} intervals hold {measured:.1%}"
    )
    pictures = [
        figures.windows_picture(_windows(model, dataset, score, intervals, spec, device), level),
        figures.steps_picture(
            {name: e.mae_by_step.numpy() for name, e in errors.items()},
            dict(zip(coverage["levels"], map(np.array, coverage["coverage_by_step"]), strict=True)),
        ),
        figures.channels_picture(
            spec["channels"], mine.mae_by_channel.numpy(), naive.mae_by_channel.numpy(), best_naive
        ),
    ]
    return Review(metrics, headline, pictures, _tables(errors, score, coverage, spec))


def _tables(
    errors: dict[str, ForecastSummary], score: Score, coverage: dict[str, Any], spec: dict[str, Any]
) -> dict[str, pl.DataFrame]:
    most = 50
    channels = spec["channels"][:most]
    few = "" if len(spec["channels"]) <= most else f" (the first {most} of {len(spec['channels'])})"
    return {
        "Errors on the standardised values": pl.DataFrame(
            [{"forecast": name, "MSE": e.mse, "MAE": e.mae} for name, e in errors.items()]
        ),
        "Prediction intervals": pl.DataFrame(
            {
                "level": coverage["levels"],
                "measured coverage": coverage["coverage"],
                "mean width (standardised)": coverage["mean_width"],
            }
        ),
        f"Errors in original units{few}": pl.DataFrame(
            {
                "channel": channels,
                "MAE": score.units.mae_by_channel[: len(channels)].numpy(),
                "RMSE": score.units.mse_by_channel[: len(channels)].sqrt().numpy(),
            }
        ),
    }


def _windows(
    model: nn.Module,
    dataset: ForecastWindows,
    score: Score,
    intervals: ConformalIntervals,
    spec: dict[str, Any],
    device: torch.device,
) -> list[figures.Window]:
    """Best, median and worst window, each in the channel with its largest error."""
    ranked = np.argsort(score.per_window)
    chosen = [int(ranked[0]), int(ranked[len(ranked) // 2]), int(ranked[-1])]
    batch = {key: value.to(device) for key, value in dataset.__getitems__(chosen).items()}
    with torch.no_grad():
        forecast = forward(model, batch).cpu().double()
    mean, std = dataset.units(chosen)
    drawn = []
    for row, (name, index) in enumerate(zip(("best", "median", "worst"), chosen, strict=True)):
        truth = batch["future"][row].cpu().double()
        channel = int((forecast[row] - truth).square().mean(0).argmax())
        at = min(row, len(mean) - 1)

        def units(values: torch.Tensor, at: int = at, channel: int = channel) -> np.ndarray:
            return (values * std[at, 0, channel] + mean[at, 0, channel]).numpy()

        series, start = dataset.locate(index)
        moment = str(dataset.times[series][start + spec["lookback"]])[:16].replace("T", " ")
        reach = intervals.widths[-1, :, channel]
        drawn.append(
            figures.Window(
                f"{name}: {spec['channels'][channel]}, from {moment}, MSE of the window {score.per_window[index]:.3f}",
                units(batch["past"][row, :, channel].cpu().double()),
                units(truth[:, channel]),
                units(forecast[row, :, channel]),
                units(forecast[row, :, channel] - reach),
                units(forecast[row, :, channel] + reach),
            )
        )
    return drawn
