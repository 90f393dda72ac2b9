"""Clocks: reading dates, naming the step between rows, checking it, filling it, and going on past
the end.

A frequency is written as polars writes a duration: "15m", "1h", "1d", "1w", and by the calendar
"1mo", "1q", "1y". Instants are numpy datetime64[us] without a time zone; dates with an offset are
turned into UTC."""

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
import polars as pl

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
EPOCH = np.datetime64("2000-01-01", "us")  # the stated start of a table that has no dates

# Orders that can be told apart. Day-month-year is read only where the numbers allow a single
# reading.
_ISO_FORMATS = (
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d",
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y.%m.%d %H:%M:%S",
    "%Y.%m.%d %H:%M",
    "%Y.%m.%d",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y",
    "%+",
    "%Y-%m-%d %H:%M:%S%#z",
)
_SLASHED = tuple((f"%d/%m/%Y{t}", f"%m/%d/%Y{t}") for t in ("", " %H:%M", " %H:%M:%S"))
_SAMPLE = 1000


@dataclass(frozen=True)
class Step:
    """One step of a clock: so many microseconds, or so many calendar months (the other is 0)."""

    microseconds: int
    months: int

    @property
    def text(self) -> str:
        """The step as a duration, in its largest whole unit: 60 minutes are "1h"."""
        units, size = (_MONTHS, self.months) if self.months else (_MICROSECONDS, self.microseconds)
        unit = max((u for u, one in units.items() if size % one == 0), key=units.__getitem__)
        return f"{size // units[unit]}{unit}"


def parse_frequency(text: str, where: object = "--frequency") -> Step:
    """The step that "15m", "1h", "D", "1mo", ... names. Raises `InputError` for anything else."""
    match = re.fullmatch(r"\s*(\d{0,6})\s*([A-Za-z]+)\s*", text)
    if match and text.strip() != "M":  # months in pandas, minutes to others: never guessed
        count, unit = int(match[1] or 1), match[2].lower()
        unit = _ALIASES.get(unit, unit)
        if count and unit in _MICROSECONDS:
            return Step(count * _MICROSECONDS[unit], 0)
        if count and unit in _MONTHS:
            return Step(0, count * _MONTHS[unit])
    raise fail(where, f"{shown(text)} is not a frequency; write 5m, 15m, 1h, 1d, 1w, 1mo, 1q or 1y")


def read_times(column: pl.Series, *, slashed: bool = True) -> pl.Series:
    """A column of dates as Datetime("us"); null where a cell is no date.

    Text is tried in the year-first orders, day.month.year, and (with `slashed`) day/month/year or
    month/day/year where only one of the two fits every cell. Raises `TypeError` with a reason when
    the column cannot hold dates, or could be read in two ways."""
    kind = column.dtype
    if kind == pl.Date or isinstance(kind, pl.Datetime):
        if isinstance(kind, pl.Datetime) and kind.time_zone:
            column = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return column.cast(pl.Datetime("us"))
    if kind != pl.String:
        raise TypeError(f"holds {kind}, not dates; write them as 2024-01-31 13:00:00")
    text = column.str.strip_chars()
    best, count = _best_format(text.drop_nulls().head(_SAMPLE))
    times = _parse(text, best)
    if slashed and count == 0 and (pair := _slashed_pair(text)) is not None:
        return pair
    if times.null_count() > text.null_count():
        # A few cells in another order (midnight written without its time, ...): each order is tried
        # on what is left.
        rest = text.filter(times.is_null()).unique()
        found = pl.DataFrame({"text": rest}).with_columns(
            pl.coalesce([_parse(rest, f) for f in _ISO_FORMATS]).alias("time")
        )
        more = pl.DataFrame({"text": text}).join(
            found, on="text", how="left", maintain_order="left"
        )["time"]
        times = pl.select(pl.coalesce(times, more)).to_series()
    return times.alias(column.name)


def _parse(text: pl.Series, form: str) -> pl.Series:
    times = text.str.to_datetime(form, time_unit="us", strict=False)
    if isinstance(times.dtype, pl.Datetime) and times.dtype.time_zone:
        times = times.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return times


def _best_format(sample: pl.Series) -> tuple[str, int]:
    best, most = _ISO_FORMATS[0], 0
    for form in _ISO_FORMATS:
        count = len(sample) - _parse(sample, form).null_count()
        if count > most:
            best, most = form, count
        if most == len(sample):
            break
    return best, most


def _slashed_pair(text: pl.Series) -> pl.Series | None:
    """Day and month by slashes: read only if exactly one order fits the whole column."""
    for forms in _SLASHED:
        day_first, month_first = (_parse(text, form) for form in forms)
        if (
            day_first.null_count() == month_first.null_count() == text.null_count()
            and len(text) > text.null_count()
        ):
            raise TypeError("could be day/month or month/day; write dates as 2024-01-31")
        better = min(day_first, month_first, key=lambda times: times.null_count())
        if better.null_count() == text.null_count() and better.null_count() < len(text):
            return better
    return None


def infer_step(times: np.ndarray) -> Step | None:
    """The most common step of sorted, distinct instants (T,); None for fewer than two."""
    if len(times) < 2:
        return None
    gap, _ = Counter(np.diff(times.astype("datetime64[us]")).astype(np.int64).tolist()).most_common(
        1
    )[0]
    if gap >= 28 * _MICROSECONDS["d"]:
        months = _month_index(times)
        common, _ = Counter(np.diff(months).tolist()).most_common(1)[0]
        if common > 0 and bool(np.all(times == _on_calendar(times, months))):
            return Step(0, common)
    return Step(gap, 0)


def _month_index(times: np.ndarray) -> np.ndarray:
    return times.astype("datetime64[M]").astype(np.int64)


def _month_days(months: np.ndarray) -> np.ndarray:
    start = months.astype("datetime64[M]")
    return ((start + 1).astype("datetime64[D]") - start.astype("datetime64[D]")).astype(np.int64)


def _on_calendar(times: np.ndarray, months: np.ndarray) -> np.ndarray:
    """The instants of the calendar clock of `times` in the given months (counted from 1970-01).

    The day of the month is the latest one seen (the 31st if every instant is the last day of its
    month), cut to the length of a shorter month: 31 January, 29 February, 31 March."""
    day = times.astype("datetime64[D]")
    day_of_month = (day - times.astype("datetime64[M]").astype("datetime64[D]")).astype(
        np.int64
    ) + 1
    month_end = bool(np.all(day_of_month == _month_days(_month_index(times))))
    wanted = 31 if month_end else int(day_of_month.max())
    days = np.minimum(wanted, _month_days(months)) - 1
    return (
        months.astype("datetime64[M]").astype("datetime64[us]")
        + days.astype("timedelta64[D]")
        + (times[0] - day[0])
    )


def grid(times: np.ndarray, step: Step) -> tuple[np.ndarray, np.ndarray]:
    """The full clock from the first to the last of `times`, and the place of each of `times` on it
    (-1 = off it).

    Raises `OverflowError` when a thousand times more steps than rows lie between the two.
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
        raise OverflowError(
            f"{count:,} steps of {step.text} from {times[0]} to {times[-1]}, but {len(times):,} rows"
        )
    full = times[0] + (np.arange(count) * step.microseconds).astype("timedelta64[us]")
    return full, np.where(gaps % step.microseconds == 0, gaps // step.microseconds, -1)


def synthetic_times(rows: int, step: Step) -> np.ndarray:
    """(rows,) instants from 2000-01-01 on: the clock of a table without dates."""
    return np.concatenate([[EPOCH], future_times(np.array([EPOCH]), step.text, rows - 1)])[:rows]


def future_times(times: np.ndarray, frequency: str, horizon: int) -> np.ndarray:
    """The `horizon` instants that follow `times` (T,), T >= 1, on the clock `frequency`: (horizon,)
    datetime64[us].

    Months keep their day, and month ends stay month ends; that is read from all of `times`.
    """
    times = times.astype("datetime64[us]")
    step = parse_frequency(frequency)
    ahead = np.arange(1, horizon + 1)
    if step.months:
        return _on_calendar(times, _month_index(times[-1:])[0] + ahead * step.months)
    return times[-1] + (ahead * step.microseconds).astype("timedelta64[us]")
