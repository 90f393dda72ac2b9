"""Generated series: samples that need no download, and files for tests of batch inference.

All values come from seeded generators, and the names say that they are generated.
"""

import csv
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from .clock import EPOCH, future_times, parse_frequency
from .series import Panel, Series

# kind: (frequency, rows of the short season, rows of the long season)
KINDS = {"hourly": ("1h", 24, 168), "quarter-hourly": ("15m", 96, 672), "daily": ("1d", 7, 364)}
BREAKS = ("text", "short", "missing", "duplicate", "gap")


def sample_series(
    kind: str = "hourly", *, rows: int = 3000, channels: int = 7, seed: int = 0
) -> Panel:
    """A generated panel with one series, "generated-<kind>", of (rows, channels) values.

    Two hidden drivers with a short season, a long season and slow noise reach the channels with
    different weights and with lags of up to a third of the short season; trend and white noise are
    added. The earlier channels predict the later ones, so mixing channels pays.

    kind: "hourly", "quarter-hourly" or "daily"; ValueError for another.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is none of {', '.join(KINDS)}")
    frequency, short, long = KINDS[kind]
    random = np.random.default_rng(seed)
    reach = short // 3
    clock = np.arange(rows + reach)
    drivers = np.stack(
        [
            np.sin(2 * np.pi * clock / short + phase)
            + 0.5 * np.sin(2 * np.pi * clock / long + 2 * phase)
            + 0.3 * _slow_noise(random, len(clock), 0.9)
            for phase in random.uniform(0, 2 * np.pi, size=2)
        ],
        axis=1,
    )
    values = np.empty((rows, channels))
    for channel in range(channels):
        lag = reach * channel // max(channels - 1, 1)
        weights = random.uniform(0.3, 1.0, size=2) * random.choice([-1.0, 1.0], size=2)
        trend = random.normal(0, 0.2) * np.arange(rows) / rows
        noise = 0.15 * random.standard_normal(rows)
        level, size = random.uniform(5, 50), random.uniform(1, 10)
        values[:, channel] = level + size * (
            drivers[reach - lag : reach - lag + rows] @ weights + trend + noise
        )
    times = np.concatenate([[EPOCH], future_times(np.array([EPOCH]), frequency, rows - 1)])
    names = tuple(f"sensor_{i}" for i in range(channels))
    series = Series(f"generated-{kind}", times, values, np.zeros((rows, 0)))
    return Panel(names, (), parse_frequency(frequency).text, "wide", (series,))


def _slow_noise(random: np.random.Generator, rows: int, memory: float) -> np.ndarray:
    """First-order autoregressive noise of variance 1, (rows,)."""
    shocks = random.standard_normal(rows) * np.sqrt(1 - memory**2)
    noise, state = np.empty(rows), 0.0
    for row, shock in enumerate(shocks):
        state = memory * state + shock
        noise[row] = state
    return noise


def write_wide(panel: Panel, path: str | Path) -> None:
    """Write a panel of one series as a wide csv with a `date` column; values are exact."""
    (series,) = panel.series
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["date", *panel.channels])
        for time, row in zip(series.times, series.values, strict=True):
            writer.writerow([str(time)[:19].replace("T", " "), *map(repr, row.tolist())])


def broken_places(count: int, broken: int) -> dict[int, str]:
    """Which of `count` series `many_series` breaks, and how: evenly spread, the kinds of `BREAKS`
    in turn.
    """
    return {(2 * k + 1) * count // (2 * broken): BREAKS[k % len(BREAKS)] for k in range(broken)}


def many_series(
    count: int, length: int, path: str | Path, broken: int = 5, *, seed: int = 0
) -> dict[str, str]:
    """Write `count` generated hourly series of `length` rows to a long csv (unique_id, ds, y).

    `broken` of them are broken, at `broken_places`: text in y, too short (3 rows), a missing value,
    a timestamp twice, a missing step. Returns {unique_id: kind of break}. Memory does not grow with
    `count`.
    """
    places = broken_places(count, broken)
    start = datetime(2024, 1, 1)
    stamps = [str(start + timedelta(hours=i)) for i in range(length)]
    with Path(path).open("w", encoding="utf-8") as file:
        file.write("unique_id,ds,y\n")
        for index in range(count):
            name = f"series-{index:06d}"
            rows = _hourly_rows(seed, index, stamps, places.get(index))
            file.write("".join(f"{name},{stamp},{value}\n" for stamp, value in rows))
    return {f"series-{index:06d}": how for index, how in places.items()}


def _hourly_rows(
    seed: int, index: int, stamps: list[str], how: str | None
) -> Iterator[tuple[str, str]]:
    """(time, value) of the rows of one series. how: the kind of break, or None."""
    random = np.random.default_rng((seed, index))
    clock = np.arange(len(stamps))
    daily = np.sin(2 * np.pi * (clock / 24 + random.uniform()))
    values = random.uniform(10, 100) + random.uniform(1, 5) * (
        daily + 0.2 * random.standard_normal(len(stamps))
    )
    middle = len(stamps) // 2
    for row, (stamp, value) in enumerate(zip(stamps, values.tolist(), strict=True)):
        if how == "short" and row >= 3:
            return
        if row == middle and how == "gap":
            continue
        text = f"{value:.4f}"
        if row == middle:
            text = {"text": "oops", "missing": ""}.get(how or "", text)
        yield stamp, text
        if row == middle and how == "duplicate":
            yield stamp, text
