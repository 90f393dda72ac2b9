"""Clocks: the full grid of instants of a step, its inference, and the instants after the end.

Instants are numpy datetime64[us] without a time zone.
"""

from collections import Counter

import numpy as np

from ...base.errors import fail
from .frequency import MICROSECONDS, MONTH_END, WEEKDAYS, Step, parse_frequency

__all__ = [
    "Step",
    "check_anchor",
    "future_times",
    "grid",
    "infer_step",
    "month_day_of",
    "parse_frequency",
    "synthetic_times",
]

EPOCH = np.datetime64("2000-01-01", "us")  # where the clock of a table without dates begins
_DAY = MICROSECONDS["d"]


def infer_step(times: np.ndarray, *, business: bool = False) -> Step | None:
    """The most common step of sorted, distinct instants (T,); None for fewer than two.

    business: whether days that are all from Monday to Friday are a clock of business days.
    """
    if len(times) < 2:
        return None
    gap = _most_common(np.diff(times.astype("datetime64[us]")).astype(np.int64))
    if gap >= 28 * _DAY:
        months = _month_index(times)
        common = _most_common(np.diff(months))
        if common > 0 and bool(np.all(times == _on_calendar(times, months))):
            return Step(0, common)
    if business and gap == _DAY and times[-1] - times[0] >= np.timedelta64(7, "D"):
        days = times.astype("datetime64[D]")
        if bool(np.is_busday(days).all()) and len(np.unique(times - days)) == 1:
            return Step(0, 0, business=1)
    return Step(gap, 0)


def _most_common(values: np.ndarray) -> int:
    return Counter(values.tolist()).most_common(1)[0][0]


def _month_index(times: np.ndarray) -> np.ndarray:
    return times.astype("datetime64[M]").astype(np.int64)


def _month_days(months: np.ndarray) -> np.ndarray:
    start = months.astype("datetime64[M]")
    return ((start + 1).astype("datetime64[D]") - start.astype("datetime64[D]")).astype(np.int64)


def _day_of_month(times: np.ndarray) -> np.ndarray:
    first = times.astype("datetime64[M]").astype("datetime64[D]")
    return (times.astype("datetime64[D]") - first).astype(np.int64) + 1


def month_day_of(times: np.ndarray, stated: int = 0) -> int:
    """The day of the month of a calendar clock through `times`: the latest one that occurs, and 31
    if all are the last days of their months.

    stated: the day that the clock is known to have; it holds where `times` fit it, so that two rows
    in February do not change a clock of the 30th.
    """
    day = _day_of_month(times)
    if stated and bool(np.all(day == np.minimum(stated, _month_days(_month_index(times))))):
        return stated
    month_end = bool(np.all(day == _month_days(_month_index(times))))
    return MONTH_END if month_end else int(day.max())


def _on_calendar(times: np.ndarray, months: np.ndarray, month_day: int = 0) -> np.ndarray:
    """The instants of the calendar clock of `times` in these months (counted from 1970-01).

    month_day: the day of the month, 0 for that of `times`. It is cut to the length of shorter
    months: 31 January, 29 February, 31 March.
    """
    days = np.minimum(month_day or month_day_of(times), _month_days(months)) - 1
    return (
        months.astype("datetime64[M]").astype("datetime64[us]")
        + days.astype("timedelta64[D]")
        + (times[0] - times[0].astype("datetime64[D]"))
    )


def check_anchor(where: object, times: np.ndarray, step: Step) -> None:
    """Raise InputError where the dates are not those that the name of the step says: MS with days
    other than the 1st, W-MON with Sundays.
    """
    if step.weekday is not None:
        weekday = (times.astype("datetime64[D]").astype(np.int64) + 3) % 7
        off = np.flatnonzero(weekday != step.weekday)
        name, other = f"W-{WEEKDAYS[step.weekday]}", "1w"
    elif step.month_day:
        day = np.minimum(step.month_day, _month_days(_month_index(times)))
        off = np.flatnonzero(_day_of_month(times) != day)
        name = "a clock of month " + ("ends" if step.month_day == MONTH_END else "starts")
        other = step.text
    else:
        return
    if len(off):
        date = str(times[off[0]])[:10]
        raise fail(where, f"{date} is not on {name}; write --frequency {other} for the days it has")


def grid(times: np.ndarray, step: Step, month_day: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The full clock from the first to the last of `times` (T,), and the places (T,) of `times` on
    it, -1 for those that are off it.

    month_day: of a calendar clock, 0 for that of `times`. Raises OverflowError for more than a
    thousand steps per row.
    """
    if step.months:
        months = _month_index(times)
        places = months - months[0]
        full = _on_calendar(times, np.arange(months[0], months[-1] + 1, step.months), month_day)
        places = np.where(places % step.months == 0, places // step.months, 0)
        return full, np.where(full[places] == times, places, -1)
    if step.business:
        return _business_grid(times, step.business)
    gaps = (times - times[0]).astype(np.int64)
    count = int(gaps[-1]) // step.microseconds + 1
    if count > 1000 * len(times) + 1000:  # before memory is taken for them
        span = f"from {times[0]} to {times[-1]}"
        raise OverflowError(f"{count:,} steps of {step.text} {span}, but {len(times):,} rows")
    full = times[0] + (np.arange(count) * step.microseconds).astype("timedelta64[us]")
    return full, np.where(gaps % step.microseconds == 0, gaps // step.microseconds, -1)


def _business_grid(times: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    days = times.astype("datetime64[D]")
    first = np.busday_offset(days[0], 0, roll="forward")
    start = first.astype("datetime64[us]") + (times[0] - days[0])
    passed = np.busday_count(first, days)
    steps = np.arange(0, max(int(passed[-1]), 0) + 1, count)
    full = np.busday_offset(first, steps).astype("datetime64[us]") + (times[0] - days[0])
    places = np.where((passed >= 0) & (passed % count == 0), passed // count, 0)
    assert full[0] == start
    return full, np.where(full[np.minimum(places, len(full) - 1)] == times, places, -1)


def synthetic_times(rows: int, step: Step) -> np.ndarray:
    """(rows,) instants from 2000-01-01 (or the first instant after it that the step's name allows):
    the clock of a table without dates.
    """
    first = EPOCH
    if step.month_day == MONTH_END:
        first = np.datetime64("2000-01-31", "us")
    elif step.business:
        first = np.datetime64("2000-01-03", "us")
    elif step.weekday is not None:  # 2000-01-03 was a Monday
        first = np.datetime64("2000-01-03", "us") + np.timedelta64(step.weekday, "D")
    return np.concatenate([[first], future_times(np.array([first]), step.text, rows - 1)])[:rows]


def future_times(times: np.ndarray, frequency: str, horizon: int, month_day: int = 0) -> np.ndarray:
    """The instants after `times` (T,), T >= 1, on the clock `frequency`: (horizon,) datetime64[us].

    Months keep their day, and month ends stay month ends. month_day: the day of the month, if it is
    known; 0: all of `times` decide which it is.
    """
    times = times.astype("datetime64[us]")
    step = parse_frequency(frequency)
    ahead = np.arange(1, horizon + 1)
    if step.months:
        months = _month_index(times[-1:])[0] + ahead * step.months
        return _on_calendar(times, months, month_day_of(times, month_day))
    if step.business:
        day = times[-1].astype("datetime64[D]")
        later = np.busday_offset(day, ahead * step.business, roll="backward")
        return later.astype("datetime64[us]") + (times[-1] - day)
    return times[-1] + (ahead * step.microseconds).astype("timedelta64[us]")
