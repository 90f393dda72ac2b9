"""Which series of a panel can be trained on, how their rows are parted and scaled, and the sizes of
a window where the user states none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...base.account import note
from ...base.errors import InputError
from ...data.series.series import Panel, Series
from ...data.series.split import split_borders
from ...data.series.windows import Scaler, constant_channels
from ..metrics.forecasting import season_of
from .options import ForecastOptions

USUAL_SIZE = 96  # of look-back and horizon, where the table is long enough
ROWS_FOR_USUAL = 960
FAR, FAR_SHARE = 20.0, 0.05
"""A series began to move after its training rows where these are constant, or where more than this
share of the later rows lies so many deviations from their mean: no scale can be taken from them."""

Rows = tuple[int, int]


@dataclass(frozen=True)
class PartedSeries:
    """A series with the rows of its three parts, and the scalers of its channels."""

    series: Series
    rows: tuple[Rows, Rows, Rows]
    scaler: Scaler
    known_scaler: Scaler | None


def with_sizes(options: ForecastOptions, panel: Panel) -> ForecastOptions:
    """The options with a look-back and a horizon; for a table that is too short for the usual ones,
    those that it allows.
    """
    if options.lookback is not None and options.horizon is not None:
        return options
    rows = int(np.median([len(series.values) for series in panel.series]))
    usual = replace(
        options, lookback=options.lookback or USUAL_SIZE, horizon=options.horizon or USUAL_SIZE
    )
    if options.split == "ett" or _fits(rows, usual, panel.frequency):
        return usual
    horizon = options.horizon or max(1, min(USUAL_SIZE, rows // 20))
    room = int(0.35 * rows) - horizon  # windows of half of the training part, at most
    lookback = options.lookback or max(
        1, min(USUAL_SIZE, max(season_of(panel.frequency), 2 * horizon), room)
    )
    chosen = replace(options, lookback=lookback, horizon=horizon)
    if not _fits(rows, chosen, panel.frequency):
        return usual  # whose message says how many rows are needed
    note(
        "assumed",
        f"look-back {lookback} and horizon {horizon}, as the table has {rows:,} rows "
        "(--lookback and --horizon state others)",
    )
    return chosen


def sizes(options: ForecastOptions) -> tuple[int, int]:
    """Look-back and horizon of options that have them."""
    assert options.lookback is not None
    assert options.horizon is not None
    return options.lookback, options.horizon


def _fits(rows: int, options: ForecastOptions, frequency: str) -> bool:
    try:
        _borders(rows, options, frequency)
    except InputError:
        return False
    return True


def _borders(rows: int, options: ForecastOptions, frequency: str) -> tuple[Rows, Rows, Rows]:
    lookback, horizon = sizes(options)
    borders = split_borders(
        rows, options.split, lookback=lookback, horizon=horizon, frequency=frequency
    )
    return borders.train, borders.validation, borders.test


def parted_series(panel: Panel, options: ForecastOptions) -> list[PartedSeries]:
    """The series to train on, with their parts, scaled by their training rows.

    In a panel, series that are too short are left out (or are an error, as --short says), and so
    are those that begin to move after their training rows: they would outweigh all others. Raises
    `InputError` where no series is long enough.
    """
    long_enough: list[tuple[Series, tuple[Rows, Rows, Rows]]] = []
    short: list[str] = []
    problem: InputError | None = None
    for series in panel.series:
        try:
            long_enough.append((series, _borders(len(series.values), options, panel.frequency)))
        except InputError as error:
            name = "" if panel.layout == "wide" else f" series {series.name!r}:"
            message = InputError(f"{options.data}:{name} {error}")
            if options.short == "error" or len(panel.series) == 1:
                raise message from None
            problem, short = problem or message, [*short, series.name]
    if not long_enough:
        assert problem is not None
        raise problem
    if short:
        size = sum(sizes(options))
        what = f"series too short to be trained on (a window has {size:,} rows)"
        note("left out", what, short)
    return _scaled(panel, long_enough)


def _scaled(
    panel: Panel, parted: Sequence[tuple[Series, tuple[Rows, Rows, Rows]]]
) -> list[PartedSeries]:
    late = [
        series.name
        for series, rows in parted
        if late_channels(series.values[: rows[2][1]], rows[0][1]).any()
    ]
    if late and len(late) < len(parted):
        note(
            "left out",
            "series that begin to move after their training rows; they are forecast, but not "
            "trained on or scored",
            late,
        )
        parted = [(series, rows) for series, rows in parted if series.name not in late]
    elif late:
        note(
            "values",
            "series that move far beyond their training rows and weigh most in the scores",
            late,
        )
    constant = [series.name for series, _ in parted if constant_channels(series.values).any()]
    if constant and panel.layout == "long":
        note("values", "constant series: their intervals have no width", constant)
    result = []
    for series, rows in parted:
        train = slice(*rows[0])
        scaler = _scaler(panel, series.values[: rows[2][1]], rows[0][1])
        known = Scaler.fit(series.known[train]) if panel.known else None
        result.append(PartedSeries(series, rows, scaler, known))
    return result


def late_channels(values: np.ndarray, training_rows: int) -> np.ndarray:
    """Which channels (C,) of (T, C) begin to move after the first `training_rows`."""
    early, later = values[:training_rows], values[training_rows:]
    flat = constant_channels(early)
    far = np.abs(later - early.mean(axis=0)) > FAR * early.std(axis=0)
    return ~constant_channels(values) & (flat | (far.mean(axis=0) > FAR_SHARE))


def _scaler(panel: Panel, values: np.ndarray, training_rows: int) -> Scaler:
    """The scaler of the training rows. Channels that are constant in them, but not later, get the
    deviation of all rows: that of the training rows says nothing.
    """
    scaler = Scaler.fit(values[:training_rows])
    late = constant_channels(values[:training_rows]) & ~constant_channels(values)
    if not late.any():
        return scaler
    names = [name for name, channel in zip(panel.channels, late, strict=True) if channel]
    note("assumed", "channels constant in the training rows and scaled by all rows", names)
    return Scaler(scaler.mean, np.where(late, values.std(axis=0), scaler.std))
