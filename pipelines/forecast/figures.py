"""Figures of a forecast: windows, errors by step and channel, coverage, and what comes after the
file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ...data.series.series import Series
from ..engine.pipeline import ReportFigure
from ..figures.style import BLUE, GREEN, GREY, ORANGE, WIDE, styled_figure
from .data import ForecastSpec


@dataclass(frozen=True)
class Window:
    """One window to draw, in original units: a channel's past, truth, forecast and bounds."""

    title: str
    past: np.ndarray
    truth: np.ndarray
    forecast: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def windows_figure(windows: Sequence[Window], level: float | None) -> ReportFigure:
    """Best, median and worst windows below each other. level: of the interval, None without one."""
    with styled_figure(WIDE, 2.6 * len(windows)) as figure:
        axes = figure.subplots(len(windows), 1, squeeze=False)
        for axis, window in zip(axes[:, 0], windows, strict=True):
            past, ahead = np.arange(-len(window.past), 0), np.arange(len(window.truth))
            axis.plot(past, window.past, color=GREY, lw=1)
            axis.plot(ahead, window.truth, color=GREY, lw=1.2, label="what came")
            axis.plot(ahead, window.forecast, color=BLUE, lw=1.5, label="forecast")
            if level is not None:
                axis.fill_between(
                    ahead,
                    window.lower,
                    window.upper,
                    color=BLUE,
                    alpha=0.15,
                    lw=0,
                    label=f"{level:.0%} interval",
                )
            axis.axvline(-0.5, color="black", lw=0.6)
            axis.set_title(window.title)
        axes[0, 0].legend(loc="upper left", ncols=3)
        axes[-1, 0].set_xlabel("steps from the moment of the forecast")
    return ReportFigure(
        "windows",
        "Best, median and worst test windows by squared error, each in its worst channel",
        figure,
        is_answer=True,
    )


def steps_figure(errors: dict[str, np.ndarray], coverage: dict[float, np.ndarray]) -> ReportFigure:
    """Error by step of the horizon for the model and the naive forecasts, and coverage by step
    next to its level.
    """
    with styled_figure(WIDE, 3) as figure:
        axes = figure.subplots(1, 2, squeeze=False)
        for (name, values), color in zip(errors.items(), (BLUE, GREY, ORANGE), strict=False):
            axes[0, 0].plot(np.arange(1, len(values) + 1), values, color=color, label=name)
        axes[0, 0].set(title="mean absolute error (scaled) by step", xlabel="step", ylim=(0, None))
        axes[0, 0].legend()
        for (level, values), color in zip(
            coverage.items(), (GREEN, BLUE, ORANGE, GREY), strict=False
        ):
            axes[0, 1].plot(
                np.arange(1, len(values) + 1),
                values,
                color=color,
                label=f"measured for {level:.0%}",
            )
            axes[0, 1].axhline(level, color=color, lw=0.8, ls="--")
        title = "coverage of the intervals by step" if coverage else "too few windows for intervals"
        axes[0, 1].set(title=title, xlabel="step", ylim=(0, 1.02))
        if coverage:
            axes[0, 1].legend(loc="lower right")
    return ReportFigure(
        "steps",
        "Errors and interval coverage on the test part, by step (dashed: the level asked for)",
        figure,
    )


def channels_figure(
    names: Sequence[str], model: np.ndarray, naive: np.ndarray, naive_name: str, most: int = 30
) -> ReportFigure:
    """Error of each channel, and of the better naive forecast; the worst channels where there are
    many.
    """
    order = np.argsort(-model)[:most][::-1]
    with styled_figure(WIDE, 1.2 + 0.22 * len(order)) as figure:
        axes = figure.subplots(1, 1, squeeze=False)
        place = np.arange(len(order))
        axes[0, 0].barh(place + 0.2, model[order], 0.38, color=BLUE, label="this run")
        axes[0, 0].barh(place - 0.2, naive[order], 0.38, color=GREY, label=naive_name)
        axes[0, 0].set_yticks(place, [names[index] for index in order])
        axes[0, 0].set(title="mean absolute error (scaled) by channel")
        axes[0, 0].legend(loc="lower right")
    cut = "" if len(names) <= most else f" (the worst {most} of {len(names)})"
    return ReportFigure("channels", f"Error of each channel{cut}", figure)


def backtest_figure(
    moments: Sequence[str], model: np.ndarray, naive: np.ndarray, naive_name: str
) -> ReportFigure:
    """Error by moment of forecast, and that of the better naive forecast."""
    with styled_figure(WIDE, 3) as figure:
        axes = figure.subplots(1, 1, squeeze=False)
        place = np.arange(len(moments))
        axes[0, 0].plot(place, model, "o-", color=BLUE, label="this run")
        axes[0, 0].plot(place, naive, "o-", color=GREY, label=naive_name)
        axes[0, 0].set_xticks(place, moments, rotation=30, ha="right")
        axes[0, 0].set(title="mean absolute error (scaled) by moment of forecast", ylim=(0, None))
        axes[0, 0].legend()
    return ReportFigure(
        "backtest", "Rolling origins: the same model, asked at several past moments", figure
    )


def future_figure(
    forecast: pl.DataFrame, series: Series, spec: ForecastSpec, most: int = 6
) -> ReportFigure:
    """The forecast of a series past its end, after its last rows, by channel."""
    channels = spec.channels[:most]
    past = slice(-2 * spec.lookback, None)
    lows = [
        name
        for name in forecast.columns
        if name.startswith("lower_") and forecast[name].null_count() == 0
    ]
    low = lows[0] if lows else ""
    high = low.replace("lower_", "upper_")
    with styled_figure(WIDE, 1.7 * len(channels)) as figure:
        axes = figure.subplots(len(channels), 1, squeeze=False)
        for axis, channel in zip(axes[:, 0], channels, strict=True):
            ahead = forecast.filter(pl.col("channel") == channel)
            column = spec.channels.index(channel)
            axis.plot(series.times[past], series.values[past, column], color=GREY, lw=1)
            times = ahead["time"].to_numpy()
            axis.plot(times, ahead["forecast"], color=BLUE, lw=1.5)
            if low:
                axis.fill_between(times, ahead[low], ahead[high], color=BLUE, alpha=0.15, lw=0)
            axis.set_title(channel)
    some = len(spec.channels) > most
    cut = f" (the first {most} of {len(spec.channels)} channels)" if some else ""
    level = low.removeprefix("lower_")
    interval = f", with the {level} % interval" if low else " (too few windows for an interval)"
    caption = f"Forecast past the end of the file{interval}{cut}"
    return ReportFigure("future", caption, figure, is_answer=True)
