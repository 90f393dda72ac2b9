"""Cells of the time of a click log as seconds since 1970, in UTC.

Times are numbers in the unit of the schema, dates and moments of a typed column, or text with the
year first: 2024-01-31, 2024-01-31 13:00, 2024-01-31T13:00:00.5+01:00. Without a zone they are UTC.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from ...base.account import note
from ...base.errors import InputError, fail, shown
from ..formats.tables import numbers
from .cells import cell_of, read_numbers, take
from .schema import UNITS, Schema
from .vocabulary import FIRST, MISSING, clean

NOW = (1 << 32) - 1  # the second of a row without a time: after all events
YEAR = 365 * 86_400  # seconds
LATER = 20  # years, or lengths of the log, after which new rows are not of its clock
_MOMENT = (
    r"^(?<date>\d{4}[-/]\d{1,2}[-/]\d{1,2})"
    r"(?:[T ]+(?<hour>\d{1,2}):(?<minute>\d{2})(?::(?<second>\d{2})(?:[.,]\d+)?)?)?"
    r"\s*(?<zone>Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)?$"
)


def moments(text: pl.Series) -> pl.Series:
    """Seconds since 1970 (n,) of moments as text, null for what is no such text."""
    parts = text.str.strip_chars().str.extract_groups(_MOMENT).struct.unnest()
    day = parts["date"].str.replace_all("/", "-", literal=True)
    day = day.str.to_date("%Y-%m-%d", strict=False)
    # 24:00 and beyond are no times.
    hour, minute, second = (
        parts[name].cast(pl.Int64).fill_null(0) for name in ("hour", "minute", "second")
    )
    valid = (hour < 24) & (minute < 60) & (second < 60)
    zone = parts["zone"].str.replace_all(":", "", literal=True)
    offset = zone.str.slice(1, 2).cast(pl.Int64, strict=False).fill_null(0) * 3600
    offset += zone.str.slice(3, 2).cast(pl.Int64, strict=False).fill_null(0) * 60
    offset *= zone.str.starts_with("-").fill_null(False).cast(pl.Int64) * -2 + 1
    values = day.cast(pl.Int64) * 86_400 + hour * 3600 + minute * 60 + second - offset
    if (valid & parts["date"].is_not_null() & zone.is_null()).any():
        note("assumed", "times without a zone are UTC")
    return values.set(~valid, None)


def seconds(
    frame: pl.DataFrame, schema: Schema, where: object, *, needed: bool
) -> tuple[np.ndarray, np.ndarray]:
    """int64 (n,) seconds since 1970, and a mask (n,) of the cells that are not times.

    A row without a time is NOW. needed: raise InputError for such rows instead. A column of
    durations or times of day, and one whose numbers are mostly no times in the unit of the schema,
    are errors in any case.
    """
    rows = frame.height
    if schema.time is None or (schema.time not in frame.columns and not needed):
        return np.full(rows, NOW), np.zeros(rows, bool)
    column = take(frame, schema.time, where)
    if column.dtype in (pl.Time, pl.Duration):
        problem = f"time {shown(column.name)}: holds {column.dtype}, which names no day"
        raise fail(where, f"{problem}; give moments, such as 2024-01-31 13:00:00")
    if column.dtype.is_temporal():
        column = column.cast(pl.Datetime("us")).dt.epoch("s")
        values, bad = numbers(column)
    elif column.dtype.is_integer():
        values, bad = column.cast(pl.Int64).to_numpy(), np.zeros(rows, bool)
        integers = values // UNITS[schema.unit] if column.null_count() == 0 else None
        if integers is not None and len(integers) and integers.min() >= 0 and integers.max() < NOW:
            return integers, bad
        values = values / UNITS[schema.unit]
    else:
        values, bad = read_numbers(column, where, "time")
        values = np.floor(values / UNITS[schema.unit])
        if bad.any():
            text = moments(clean(column).cast(pl.String).set(pl.Series(~bad), None))
            values[bad] = text.cast(pl.Float64).to_numpy()[bad]
            bad &= np.isnan(values)
    missing = np.isnan(values) & ~bad
    bad |= (values < 0) | (values >= NOW)
    wrong = bad | missing
    another_unit = not np.isnan(values[bad]).any() and 2 * bad.sum() > (~missing).sum()
    if (needed and wrong.any()) or another_unit:
        first = int(np.flatnonzero(wrong if needed else bad)[0])
        cell = f"time {shown(column.name)}: {cell_of(column, first)}"
        problem = f"{cell}, not a time in {schema.unit} since 1970 nor like 2024-01-31 13:00:00"
        unit = _likely_unit(float(values[first]) * UNITS[schema.unit])
        cure = f"mend or remove such rows, or name the unit{f' (unit: {unit})' if unit else ''}"
        raise fail(where, f"{problem}; {cure}")
    return np.where(wrong, NOW, np.nan_to_num(values)).astype(np.int64), bad


def _likely_unit(number: float) -> str | None:
    """The unit in which a number is a moment from 2001 to 2100."""
    fitting = (unit for unit, scale in UNITS.items() if 1e9 <= number / scale < 4.1e9)
    return next(fitting, None)


def check_times(time: np.ndarray, schema: Schema, where: object) -> None:
    """Note what the times of a log (n,) were taken for. Raises InputError for numbers that look
    like 20240131.
    """
    if schema.time is None:
        return
    day = time[:: max(1, len(time) // 10_000)]
    looks_like_dates = (
        (day >= 19_000_101)
        & (day < 21_010_101)
        & (day // 100 % 100 >= 1)
        & (day // 100 % 100 <= 12)
        & (day % 100 >= 1)
        & (day % 100 <= 31)
    )
    if schema.unit == "s" and len(day) > 1 and looks_like_dates.all():
        raise time_like_date(where, schema.time, int(day[0]))
    first, last = (
        pl.from_epoch(pl.Series([moment]), "s")[0].strftime("%Y-%m-%d %H:%M")
        for moment in (int(time.min()), int(time.max()))
    )
    unit = "" if schema.unit == "s" else f" (numbers are {schema.unit})"
    likely = _likely_unit(float(time.max()) * UNITS[schema.unit])
    if likely not in (None, schema.unit):
        unit = f" (numbers are {schema.unit}; is that right? In {likely} they would be of our days)"
    note("assumed", f"{schema.time} runs from {first} to {last} in UTC{unit}")


def check_as_in_log(time: np.ndarray, span: Sequence[int], schema: Schema, where: object) -> None:
    """Raise InputError for times (n,) of new rows that are years before or after the log of a run:
    they are counted otherwise than there. span: the first and last time of the log, or nothing.
    """
    timed = time[time != NOW]
    if schema.time is None or not span or not len(timed):
        return
    first, last = span
    room = max(YEAR, last - first)
    if first - room <= timed.max() and timed.min() <= last + LATER * room:
        return
    days = [_day(moment) for moment in (int(timed.min()), int(timed.max()), first, last)]
    raise fail(
        where,
        f"time {shown(schema.time)}: runs from {days[0]} to {days[1]}, but that of the run's log "
        f"from {days[2]} to {days[3]}; give it as that log does, in {schema.unit} since 1970, or "
        "like 2024-01-31 13:00:00",
    )


def _day(moment: int) -> str:
    return pl.from_epoch(pl.Series([moment]), "s")[0].strftime("%Y-%m-%d")


def time_like_date(where: object, column: str, value: int) -> InputError:
    """The error of a time such as 20240131, which would be read as a count of seconds."""
    year, rest = divmod(value, 10_000)
    date = f"{year}-{rest // 100:02d}-{rest % 100:02d}"
    problem = f"time {shown(column)}: holds {value}, which looks like a date, not like seconds"
    return fail(where, f"{problem}; write {date}")


def time_codes(name: str, time: np.ndarray) -> np.ndarray:
    """int32 codes (n,) of the hour, weekday or month of seconds (n,), in UTC."""
    moment = pl.from_epoch(pl.Series(time), "s")
    part = {"hour": moment.dt.hour, "weekday": moment.dt.weekday, "month": moment.dt.month}[name]()
    codes = part.to_numpy().astype(np.int32) + FIRST - (0 if name == "hour" else 1)
    codes[time == NOW] = MISSING
    return codes
