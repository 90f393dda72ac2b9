"""Clocks: the step between rows, the full grid of instants, and the instants after the end.

A frequency is written as polars writes a duration: "15m", "1h", "1d", "1w", and by the calendar
"1mo", "1q", "1y". Instants are numpy datetime64[us] without a time zone.
"""

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np

from ...base.errors import fail, shown

_MICROSECONDS = {
    "us": 1,
    "ms": 10**3,
    "s": 10**6,
    "m": 60 * 10**6,
    "h": 3600 * 10**6,
    "d": 86400 * 10**6,
}
_MICROSECONDS["w"] = 7 * _MICROSECONDS["d"]
_MONTHS = {"mo": 1, "q": 3, "y": 12}
_ALIASES = {
    "min": "m",
    "t": "m",
    "hour": "h",
    "day": "d",
    "week": "w",
    "month": "mo",
    "ms": "ms",
    "a": "y",
}
EPOCH = np.datetime64("2000-01-01", "us")  # where the clock of a table without dates begins


@dataclass(frozen=True)
class Step:
    """One step of a clock, in microseconds or in calendar months (the other one is 0)."""

    microseconds: int
    months: int

    @property
    def text(self) -> str:
        """The step in the largest unit that divides it: 60 minutes are "1h"."""
        units, size = (_MONTHS, self.months) if self.months else (_MICROSECONDS, self.microseconds)
        unit = max((u for u, length in units.items() if size % length == 0), key=units.__getitem__)
        return f"{size // units[unit]}{unit}"


def parse_frequency(text: str, where: object = "--frequency") -> Step:
    """The step that "15m", "1h", "D", "1mo", ... name. Raises InputError for anything else.

    >>> parse_frequency("60min").text
    '1h'
    """
    match = re.fullmatch(r"\s*(\d{0,6})\s*([A-Za-z]+)\s*", text)
    if match and text.strip() != "M":  # months in pandas, minutes to others: never guessed
        count, unit = int(match[1] or 1), match[2].lower()
        unit = _ALIASES.get(unit, unit)
        if count and unit in _MICROSECONDS:
            return Step(count * _MICROSECONDS[unit], 0)
        if count and unit in _MONTHS:
            return Step(0, count * _MONTHS[unit])
    raise fail(where, f"{shown(text)} is not a frequency; write 5m, 15m, 1h, 1d, 1w, 1mo, 1q or 1y")


def infer_step(times: np.ndarray) -> Step | None:
    """The most common step of sorted, distinct instants (T,); None for fewer than two."""
    if len(times) < 2:
        return None
    gap = _most_common(np.diff(times.astype("datetime64[us]")).astype(np.int64))
    if gap >= 28 * _MICROSECONDS["d"]:
        months = _month_index(times)
        common = _most_common(np.diff(months))
        if common > 0 and bool(np.all(times == _on_calendar(times, months))):
            return Step(0, common)
    return Step(gap, 0)


def _most_common(values: np.ndarray) -> int:
    return Counter(values.tolist()).most_common(1)[0][0]


def _month_index(times: np.ndarray) -> np.ndarray:
    return times.astype("datetime64[M]").astype(np.int64)


def _month_days(months: np.ndarray) -> np.ndarray:
    start = months.astype("datetime64[M]")
    return ((start + 1).astype("datetime64[D]") - start.astype("datetime64[D]")).astype(np.int64)


def _on_calendar(times: np.ndarray, months: np.ndarray) -> np.ndarray:
    """The instants of the calendar clock of `times` in these months (counted from 1970-01).

    The day of the month is the latest one in `times` (the 31st if all are the last days of their
    months), cut to the length of shorter months: 31 January, 29 February, 31 March.
    """
    day = times.astype("datetime64[D]")
    day_of_month = (day - times.astype("datetime64[M]").astype("datetime64[D]")).astype(
        np.int64
    ) + 1
    month_end = bool(np.all(day_of_month == _month_days(_month_index(times))))
    latest = 31 if month_end else int(day_of_month.max())
    days = np.minimum(latest, _month_days(months)) - 1
    return (
        months.astype("datetime64[M]").astype("datetime64[us]")
        + days.astype("timedelta64[D]")
        + (times[0] - day[0])
    )


def grid(times: np.ndarray, step: Step) -> tuple[np.ndarray, np.ndarray]:
    """The full clock from the first to the last of `times` (T,), and the places (T,) of `times` on
    it, -1 for those that are off it.

    Raises OverflowError for more than a thousand steps per row.
    """
    if step.months:
        months = _month_index(times)
        places = months - months[0]
        full = _on_calendar(times, np.arange(months[0], months[-1] + 1, step.months))
        places = np.where(places % step.months == 0, places // step.months, 0)
        return full, np.where(full[places] == times, places, -1)
    gaps = (times - times[0]).astype(np.int64)
    count = int(gaps[-1]) // step.microseconds + 1
    if count > 1000 * len(times) + 1000:  # before memory is taken for them
        span = f"from {times[0]} to {times[-1]}"
        raise OverflowError(f"{count:,} steps of {step.text} {span}, but {len(times):,} rows")
    full = times[0] + (np.arange(count) * step.microseconds).astype("timedelta64[us]")
    return full, np.where(gaps % step.microseconds == 0, gaps // step.microseconds, -1)


def synthetic_times(rows: int, step: Step) -> np.ndarray:
    """(rows,) instants from 2000-01-01: the clock of a table without dates."""
    return np.concatenate([[EPOCH], future_times(np.array([EPOCH]), step.text, rows - 1)])[:rows]


def future_times(times: np.ndarray, frequency: str, horizon: int) -> np.ndarray:
    """The instants after `times` (T,), T >= 1, on the clock `frequency`: (horizon,) datetime64[us].

    Months keep their day, and month ends stay month ends; all of `times` decide which it is.
    """
    times = times.astype("datetime64[us]")
    step = parse_frequency(frequency)
    ahead = np.arange(1, horizon + 1)
    if step.months:
        return _on_calendar(times, _month_index(times[-1:])[0] + ahead * step.months)
    return times[-1] + (ahead * step.microseconds).astype("timedelta64[us]")
