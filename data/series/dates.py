"""Dates in the cells of a table, as instants."""

from dataclasses import dataclass
from datetime import time, timedelta

import polars as pl

from ..columns import plain_name
from ..formats.tables import MISSING_WORDS
from .clock import EPOCH
from .date_text import ORDER_WORDS, DateOrder, parse_text

__all__ = ["ORDER_WORDS", "DateOrder", "ReadTimes", "read_times"]

# Orders that cannot be confused, and that polars reads at once for a whole column.
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
    "%+",
    "%Y-%m-%d %H:%M:%S%#z",
)
_FOUR_DIGITS = r"^\d{4}[-/.]\d{1,2}[-/.]\d"
_OFFSET = r":\d{2}(?:\.\d+)?\s*(?:[+-]\d{2}:?\d{2}|[Zz])$"
_SAMPLE = 1000
_COUNTERS = ("time", "t", "step", "index", "period", "ts")
_NANOSECONDS = 10**18  # since 1970, reached in 2001; smaller numbers count larger units


@dataclass(frozen=True)
class ReadTimes:
    """A column of dates, read.

    times    Datetime("us"), in UTC where the cells have an offset; null for what is no date
    order    of day, month and year where the cells left a choice, else "auto"
    local    whether `times` are what a clock on the wall showed
    assumed  what was assumed on the way, in words
    """

    times: pl.Series
    order: DateOrder = "auto"
    local: bool = False
    assumed: tuple[str, ...] = ()


def read_times(
    column: pl.Series, *, order: DateOrder = "auto", local: bool = False, digits: bool = True
) -> ReadTimes:
    """Read a column of dates.

    order: of day, month and year in cells such as 01/02/2024; "auto" reads them where only one
    order fits all cells. local: take the time on the wall where cells have an offset; it is also
    taken where all rows are at midnight there, or where the offset changes and all rows are at one
    time of the day. digits: whether numbers
    (20240131, 2024, seconds since 1970) are dates.

    Raises TypeError with a reason when the column cannot hold dates, or could be read in two ways.
    """
    kind = column.dtype
    if kind == pl.Duration:
        if not digits:
            raise TypeError("holds durations, not dates")
        times = pl.select(pl.lit(EPOCH.item()) + column.cast(pl.Duration("us"))).to_series()
        read = times.cast(pl.Datetime("us")).alias(column.name)
        return ReadTimes(read, assumed=("durations are counted from 2000-01-01",))
    if kind == pl.Date or isinstance(kind, pl.Datetime):
        return _typed(column, local)
    if kind.is_numeric() and digits:
        column = _as_text(column)
    elif kind in (pl.Categorical, pl.Enum) or isinstance(kind, pl.Categorical | pl.Enum):
        column = column.cast(pl.String)
    elif kind != pl.String:
        raise TypeError(f"holds {kind}, not dates; write them as 2024-01-31 13:00:00")
    text = column.str.strip_chars()
    text = text.set(text.str.to_lowercase().is_in(MISSING_WORDS), None)
    best, count = _best_format(text.drop_nulls().head(_SAMPLE))
    times = _parse(text, best)
    complete = count > 0 and times.null_count() == text.null_count()
    if complete and text.str.contains(_FOUR_DIGITS).all():
        return _with_zone(text, times, local).named(column.name)
    # Five digits in a column of that name are rather a counter of steps than days.
    serials = plain_name(column.name) not in _COUNTERS
    return _by_cell(text, order, local, digits, serials).named(column.name)


@dataclass(frozen=True)
class _Read(ReadTimes):
    def named(self, name: str) -> ReadTimes:
        return ReadTimes(self.times.alias(name), self.order, self.local, self.assumed)


def _by_cell(text: pl.Series, order: DateOrder, local: bool, digits: bool, serials: bool) -> _Read:
    """Dates in other orders, or in several: each distinct cell is taken apart."""
    cells = text.drop_nulls().unique(maintain_order=True)
    parsed = parse_text(cells, order, digits=digits, serials=serials)
    table = pl.DataFrame({"text": cells, "time": parsed.times, "wall": parsed.walls})
    rows = text.to_frame("text").join(table, on="text", how="left", maintain_order="left")
    times, walls = rows["time"], rows["wall"]
    assumed = parsed.assumed
    if cells.str.contains(_OFFSET).any():
        times, local, zone = _chosen_clock(times, walls, local)
        assumed = (*assumed, zone)
    else:
        local = False
    return _Read(times, parsed.order, local, assumed)


def _with_zone(text: pl.Series, times: pl.Series, local: bool) -> _Read:
    """Year-first dates, of which some may have an offset."""
    if not text.str.contains(_OFFSET).any():
        return _Read(times)
    ahead = text.str.extract_groups(r"([+-])(\d{2}):?(\d{2})$")
    sign, hours, minutes = (ahead.struct.field(name) for name in ahead.struct.fields)
    total = hours.cast(pl.Int64).fill_null(0) * 60 + minutes.cast(pl.Int64).fill_null(0)
    signed = pl.when(sign == "-").then(-total).otherwise(total)
    walls = pl.select(times + pl.duration(minutes=signed)).to_series()
    times, local, zone = _chosen_clock(times, walls, local)
    return _Read(times, local=local, assumed=(zone,))


def _chosen_clock(times: pl.Series, walls: pl.Series, local: bool) -> tuple[pl.Series, bool, str]:
    """Instants in UTC, or those on the wall where days and months are meant: all rows are at
    midnight, or the offset changes and all rows are at one time of the day.
    """
    ahead, clock = (walls - times).drop_nulls(), walls.drop_nulls().dt.time()
    # Two rows at one time on the wall are two instants: such a column means hours, not days.
    apart = walls.n_unique() == times.n_unique() > 1
    changes, zoned = ahead.n_unique() > 1, bool((ahead != timedelta()).any())
    midnights = zoned and bool((clock == time()).all())
    if local or (apart and (midnights or (changes and clock.n_unique() == 1))):
        return walls, True, "dates with an offset are local days"
    return times, False, "dates with an offset are in UTC"


def _typed(column: pl.Series, local: bool) -> ReadTimes:
    kind = column.dtype
    utc = _in_utc(column).cast(pl.Datetime("us"))
    if not isinstance(kind, pl.Datetime) or not kind.time_zone:
        return ReadTimes(utc)
    walls = column.dt.replace_time_zone(None).cast(pl.Datetime("us"))
    times, local, zone = _chosen_clock(utc, walls, local)
    return ReadTimes(times, local=local, assumed=(zone,))


def _as_text(column: pl.Series) -> pl.Series:
    """Numbers as the digits that a text file would hold; nanoseconds are cut to microseconds."""
    if column.dtype.is_float():
        whole = column.cast(pl.Int64, strict=False)
        if not (whole.cast(pl.Float64) == column).fill_null(True).all():
            return column.cast(pl.String)
        column = whole
    if column.dtype.is_decimal():
        column = column.cast(pl.Int64, strict=False)
    largest = column.abs().max()
    if isinstance(largest, int) and largest >= _NANOSECONDS:
        column = column // 1000
    return column.cast(pl.String)


def _parse(text: pl.Series, form: str) -> pl.Series:
    return _in_utc(text.str.to_datetime(form, time_unit="us", strict=False))


def _in_utc(times: pl.Series) -> pl.Series:
    """Times in UTC without a time zone."""
    if isinstance(times.dtype, pl.Datetime) and times.dtype.time_zone:
        return times.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
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
