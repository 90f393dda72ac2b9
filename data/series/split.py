"""Training, validation and test part of a series, as in the official SOFTS code."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ...base.errors import InputError
from .frequency import parse_frequency

_ETT_MONTHS = (12, 16, 20)  # ends of train, validation and test, in months of 30 days
_DAY = 86400 * 10**6  # microseconds
Protocol = str | Sequence[float]


class Borders(NamedTuple):
    """Half-open row ranges of the three parts; those of validation and test include the look-back
    rows of their first windows.
    """

    train: tuple[int, int]
    validation: tuple[int, int]
    test: tuple[int, int]


def split_borders(
    rows: int, protocol: Protocol, *, lookback: int, horizon: int, frequency: str
) -> Borders:
    """Row ranges of train, validation and test.

    protocol  "ratio": 70/10/20 % of the rows (the "custom" sets of the papers);
              "ett": 12/4/4 months of 30 days, later rows unused, for clocks that divide a day, such
              as 1h and 15m; "pems": 60/20/20 %, where the parts share no rows; or two fractions
              (train, validation), the rest being test

    Except for "pems", validation and test start `lookback` rows early, so that their first forecast
    is for their own first row. Raises InputError for an unknown protocol, and where a part would
    not hold one window of lookback + horizon rows.
    """
    overlap = 0 if protocol == "pems" else lookback
    if protocol == "ett":
        first, second, end = _ett_ends(rows, frequency)
    elif protocol == "pems":
        # As in the official code, (0.6 + 0.2) * rows is rounded in floating point; it is not 0.8.
        first, second, end = int(0.6 * rows), int((0.6 + 0.2) * rows), rows
    else:
        train, test = _shares(protocol)
        # Rounded before cutting: 0.7 and 0.1 leave 0.20000000000000007, and must give the rows that
        # 0.2 gives.
        first, second, end = int(rows * train), rows - int(rows * round(test, 12)), rows
    borders = Borders(
        (0, first), (max(first - overlap, 0), second), (max(second - overlap, 0), end)
    )
    need = lookback + horizon
    for name, (start, stop) in zip(Borders._fields, borders, strict=True):
        if stop - start < need:
            raise InputError(
                f"split {protocol}: the {name} part has {stop - start:,} of {rows:,} rows, but one "
                f"window needs look-back {lookback} + horizon {horizon} = {need:,}; "
                f"{_rows_needed(protocol, lookback, horizon)}"
                "take a shorter look-back or horizon, or more rows"
            )
    return borders


def _ett_ends(rows: int, frequency: str) -> tuple[int, int, int]:
    per_day, rest = divmod(_DAY, parse_frequency(frequency).microseconds or _DAY + 1)
    if rest or not per_day:
        problem = f"needs a clock that divides a day, such as 1h or 15m, not {frequency}"
        raise InputError(f"split ett: {problem}; use ratio")
    first, second, end = (months * 30 * per_day for months in _ETT_MONTHS)
    if rows < end:
        problem = f"needs 20 months of 30 days = {end:,} rows of {frequency}, got {rows:,}"
        raise InputError(f"split ett: {problem}; use ratio")
    return first, second, end


def _shares(protocol: Protocol) -> tuple[float, float]:
    """The shares of the training and the test part."""
    if protocol == "ratio":
        return 0.7, 0.2
    if isinstance(protocol, str):
        problem = f"{protocol!r} is none of ratio, ett, pems, and not two fractions such as 0.7 0.1"
        raise InputError(f"split: {problem}")
    if len(protocol) == 2 and min(protocol) > 0 and sum(protocol) < 1:
        return protocol[0], 1 - sum(protocol)
    problem = "must be two positive fractions with a sum below 1 (train, validation)"
    raise InputError(f"split: {tuple(protocol)} {problem}")


def _rows_needed(protocol: Protocol, lookback: int, horizon: int) -> str:
    """How long a series must be for all parts to hold a window, where a ratio decides it."""
    if protocol == "ett":
        return ""
    if protocol == "pems":
        parts = ((0.6, 0), (0.2, 0), (0.2, 0))
    else:
        train, validation = (0.7, 0.1) if isinstance(protocol, str) else protocol
        parts = ((train, 0), (validation, lookback), (1 - train - validation, lookback))
    needed = max((lookback + horizon - overlap) / part for part, overlap in parts)
    return f"about {int(np.ceil(needed)):,} rows are needed; "
