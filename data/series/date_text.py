"""Dates as people write them, cell by cell: with slashes, month names, quarters, AM and PM.

Each way to write a date is a pattern with named groups, which polars takes apart for a column at a
time. What a cell leaves open, the order of day and month, is decided for the entire column.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from .date_words import MONTH_OF, MONTH_WORD, WEEKDAY

DateOrder = Literal["auto", "ymd", "dmy", "mdy"]
ORDER_WORDS = {"ymd": "year/month/day", "dmy": "day/month/year", "mdy": "month/day/year"}

_TIME = (
    r"(?:[T\s,]+(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})"
    r"(?:[.,](?P<fraction>\d{1,9}))?)?(?:\s*(?P<half>[AaPp])\.?\s?[Mm]\.?)?)?"
    r"\s*(?P<offset>Z|z|UTC|GMT|[+-]\d{2}:?\d{2})?$"
)
# Three numbers of which at least one is a year; which one is decided for the column.
_TRIPLE = r"^(?P<a>\d{1,4})[-/.](?P<b>\d{1,2})(?P<mark>[-/.])(?P<c>\d{1,4})" + _TIME
_NAME = rf"(?P<name>{MONTH_WORD})\.?"
_NAMED = (
    rf"^(?P<day>\d{{1,2}})(?:st|nd|rd|th|er|º|°)?[\s.\-/]+(?:de\s+|of\s+)?{_NAME}[\s,.\-/]+"
    rf"(?:de\s+)?(?P<year>\d{{4}}|\d{{2}}){_TIME}",
    rf"^{_NAME}\s+(?P<day>\d{{1,2}})(?:st|nd|rd|th)?,?\s+(?P<year>\d{{4}}){_TIME}",
    rf"^(?P<year>\d{{4}})[\s.\-/]+{_NAME}[\s.\-/]+(?P<day>\d{{1,2}}){_TIME}",
    rf"^{_NAME}[\s.,\-/]+(?:de\s+)?(?P<year>\d{{4}})$",
    rf"^(?P<year>\d{{4}})[\s.,\-/]+{_NAME}$",
)
_SHORT_MONTH = rf"^{_NAME}[\s\-/.]*'?(?P<year>\d{{2}})$"
_PERIODS = (
    r"^(?P<year>\d{4})\s?[-/.]\s?(?P<month>\d{1,2})$",
    r"^(?P<year>\d{4})[Mm](?P<month>\d{1,2})$",
    r"^(?P<month>\d{1,2})[-/.](?P<year>\d{4})$",
    r"^(?P<year>\d{4})[\s\-/.]?[QqTt](?P<quarter>[1-4])$",
    r"^[QqTt](?P<quarter>[1-4])[\s\-/.]?(?P<year>\d{4})$",
    r"^(?P<quarter>[1-4])(?:[QqTt]|\. ?Quartal)[\s\-/.]?(?P<year>\d{4})$",
    r"^(?P<year>\d{4})[\s\-/]?(?:W|KW)(?P<week>\d{1,2})(?:-?(?P<weekday>[1-7]))?$",
    r"^(?:W|KW|CW)\s?(?P<week>\d{1,2})[\s\-/]+(?P<year>\d{4})$",
    r"^(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})[T\s](?P<hour>\d{2}):?(?P<minute>\d{2})"
    r"(?::?(?P<second>\d{2}))?Z?$",
)
# Digits alone, read as dates only in a column that is known to hold dates.
_DIGITS = {
    "year": r"^(?P<year>\d{4})(?:\.0)?$",
    "month": r"^(?P<year>\d{4})(?P<month>\d{2})(?:\.0)?$",
    "day": r"^(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})(?:\.0)?$",
    "moment": r"^(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})(?P<hour>\d{2})(?P<minute>\d{2})"
    r"(?P<second>\d{2})$",
}
_EPOCHS = {
    "s": (r"^(\d{9,10})(?:\.(\d{1,9}))?$", 10**6),
    "ms": (r"^(\d{12,13})(?:\.(\d{1,3}))?$", 10**3),
    "us": (r"^(\d{15,16})(?:\.0)?$", 1),
}
# Days since the end of 1899, as spreadsheets count them. Weeks (20205) and counters are smaller.
_SERIAL = r"^(\d{5})(?:[.,](\d{1,12}))?$"
_SERIALS = 25569, 62091  # 1970 to 2069
_UNIT_WORDS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_FIRST_YEAR, _LAST_YEAR = 1500, 2300  # of digits alone; others are numbers
_MONTH_YEARS = 1850, 2100


@dataclass(frozen=True)
class ParsedText:
    """Cells as instants, in UTC where they have an offset; null for what is no date.

    walls   the same without their offsets: what a clock on the wall showed
    order   of day, month and year where the cells left a choice, else "auto"
    assumed what was assumed on the way, in words
    """

    times: pl.Series
    walls: pl.Series
    order: DateOrder
    assumed: tuple[str, ...]


def parse_text(
    cells: pl.Series, order: DateOrder, *, digits: bool, serials: bool = True
) -> ParsedText:
    """Distinct cells without nulls as instants.

    order: of day, month and year, "auto" to decide it by the cells. digits: whether digits alone
    (20240131, 2024, seconds since 1970) are dates; serials: also days as Excel counts them. Raises
    TypeError where two orders fit.
    """
    text = cells.str.replace(WEEKDAY, "")
    triple = _fields(text, _TRIPLE)
    resolved, times, assumed = _triples(cells, triple, order)
    walls = times
    offset = _offsets(triple)
    for pattern in (*_NAMED, *_PERIODS):
        if not times.null_count():
            break
        fields = _fields(text, pattern)
        more = _instants(fields)
        walls, offset = _either(walls, more), _either(offset, _offsets(fields))
        times = walls
    if walls.null_count() == len(walls) > 0:
        walls, reading = _short_months(text)
        assumed = (*assumed, reading) if reading else assumed
    if digits and walls.null_count():
        more, reading = _digits(text.filter(walls.is_null()).to_frame("text"), serials)
        if reading:
            assumed = (*assumed, reading)
        joined = text.to_frame("text").join(more, on="text", how="left", maintain_order="left")
        walls = _either(walls, joined["time"])
    utc = walls - offset.fill_null(0).cast(pl.Duration("us"))
    return ParsedText(utc, walls, resolved, assumed)


def _short_months(text: pl.Series) -> tuple[pl.Series, str]:
    """Cells such as Jan-24 as months, and what was assumed; null where they are no clock of months
    or quarters without holes: 24 could be a day.
    """
    times = _instants(_fields(text, _SHORT_MONTH))
    months = np.unique(times.drop_nulls().to_numpy().astype("datetime64[M]").astype(int))
    steps = np.unique(np.diff(months))
    if times.null_count() or len(months) < 3 or len(steps) != 1 or steps[0] not in (1, 3):
        return pl.repeat(None, len(text), dtype=pl.Datetime("us"), eager=True), ""
    return times, f"{text[0]!r} is {times[0]:%Y-%m}"


def _fields(text: pl.Series, pattern: str) -> Mapping[str, pl.Series]:
    """The named groups of a pattern, a column each; null where it does not fit."""
    groups = text.str.extract_groups(pattern)
    if groups.is_null().all():
        return {name: pl.repeat(None, len(text), dtype=pl.String, eager=True)
                for name in groups.struct.fields}  # fmt: skip
    return {name: groups.struct.field(name) for name in groups.struct.fields}


def _either(first: pl.Series, second: pl.Series) -> pl.Series:
    return pl.select(pl.coalesce(first, second)).to_series()


def _number(fields: Mapping[str, pl.Series], name: str) -> pl.Series | None:
    return fields[name].cast(pl.Int64, strict=False) if name in fields else None


def _instants(fields: Mapping[str, pl.Series]) -> pl.Series:
    """Instants from year, month (or its name, quarter, week) and time of day; null where they make
    no date.
    """
    year = _number(fields, "year")
    assert year is not None
    year = _full_year(year, fields["year"].str.len_chars())
    if "week" in fields:
        return _weeks(year, fields)
    month, day = _number(fields, "month"), _number(fields, "day")
    if "name" in fields:
        names = fields["name"].str.to_lowercase()
        month = names.replace_strict(MONTH_OF, default=None, return_dtype=pl.Int64)
    elif "quarter" in fields:
        month = 3 * fields["quarter"].cast(pl.Int64, strict=False) - 2
    return _joined(year, month, day, fields)


def _full_year(year: pl.Series, digits: pl.Series) -> pl.Series:
    """Years of two digits as POSIX reads them: 69 to 99 are 1969 to 1999, 00 to 68 are 2000 to
    2068.
    """
    century = pl.when(year < 69).then(2000).otherwise(1900)
    return pl.select(pl.when(digits == 2).then(year + century).otherwise(year)).to_series()


def _joined(
    year: pl.Series, month: pl.Series | None, day: pl.Series | None, fields: Mapping[str, pl.Series]
) -> pl.Series:
    """Dates with the time of day of the fields, null where a number is out of its range."""
    one = pl.when(year.is_not_null()).then(1)
    month_number = one if month is None else pl.lit(month)
    day_number = one if day is None else pl.lit(day)
    # Built from text, which gives null for 31 February where a constructor raises an error.
    date = pl.format(
        "{}-{}-{}",
        year.cast(pl.String).str.zfill(4),
        month_number.cast(pl.String).str.zfill(2),
        day_number.cast(pl.String).str.zfill(2),
    ).str.to_datetime("%Y-%m-%d", time_unit="us", strict=False)
    moment = _time_of_day(fields)
    if moment is None:
        return pl.select(date).to_series()
    return pl.select(date + pl.lit(moment.cast(pl.Duration("us")))).to_series()


def _time_of_day(fields: Mapping[str, pl.Series]) -> pl.Series | None:
    """Microseconds since midnight, 0 without a time and null for a time that cannot be."""
    hour = _number(fields, "hour")
    if hour is None:
        return None
    minute, second = (
        (number if (number := _number(fields, name)) is not None else hour * 0).fill_null(0)
        for name in ("minute", "second")
    )
    micro = hour * 0
    if "fraction" in fields:
        fraction = fields["fraction"].str.pad_end(6, "0").str.slice(0, 6)
        micro = fraction.cast(pl.Int64, strict=False).fill_null(0)
    given_hour, limit = hour.fill_null(0), pl.lit(23)
    clock = pl.lit(given_hour)
    right = pl.lit(True)
    if "half" in fields:
        half = fields["half"].str.to_lowercase()
        twelve = pl.lit(given_hour) % 12 + pl.when(half == "p").then(12).otherwise(0)
        right = half.is_null() | pl.lit(given_hour).is_between(1, 12)
        clock = pl.when(half.is_not_null()).then(twelve).otherwise(given_hour)
    right = right & (clock <= limit) & (pl.lit(minute) <= 59) & (pl.lit(second) <= 59)
    total = ((clock * 60 + minute) * 60 + second) * 10**6 + pl.lit(micro).fill_null(0)
    return pl.select(pl.when(right).then(total)).to_series()


def _offsets(fields: Mapping[str, pl.Series]) -> pl.Series:
    """Microseconds that the clock of a cell is ahead of UTC; null where it does not say."""
    count = len(next(iter(fields.values())))
    if "offset" not in fields:
        return pl.repeat(None, count, dtype=pl.Int64, eager=True)
    text = fields["offset"]
    parts = text.str.extract_groups(r"^([+-])(\d{2}):?(\d{2})$")
    sign, hours, minutes = (parts.struct.field(name) for name in parts.struct.fields)
    seconds = (hours.cast(pl.Int64) * 60 + minutes.cast(pl.Int64)) * 60
    signed = pl.when(sign == "-").then(-seconds).otherwise(seconds)
    ahead = pl.when(hours.is_not_null()).then(signed).when(text.is_not_null()).then(0)
    return pl.select(ahead * 10**6).to_series()


def _weeks(year: pl.Series, fields: Mapping[str, pl.Series]) -> pl.Series:
    """The Monday of a week of ISO 8601, or the day of it that the cell names."""
    week = fields["week"].str.zfill(2)
    day = fields["weekday"].fill_null("1") if "weekday" in fields else pl.lit("1")
    written = pl.format("{}-W{}-{}", year.cast(pl.String), week, day)
    return pl.select(written.str.to_datetime("%G-W%V-%u", time_unit="us", strict=False)).to_series()


def _triples(
    cells: pl.Series, fields: Mapping[str, pl.Series], order: DateOrder
) -> tuple[DateOrder, pl.Series, tuple[str, ...]]:
    """The order of numbers such as 31/01/2024, their instants, and what was assumed."""
    lengths = [fields[name].str.len_chars() for name in "abc"]
    year_first = _ordered(fields, "ymd").zip_with(
        (lengths[0] == 4).fill_null(False), pl.Series([None], dtype=pl.Datetime("us"))
    )
    short = ((lengths[0] <= 2) & (lengths[2] <= 2)).fill_null(False)
    open_cells = ((lengths[0] <= 2) & (lengths[2] != 3)).fill_null(False)
    if not open_cells.any():
        return "auto", year_first, ()
    dotted = bool((fields["mark"].filter(open_cells) == ".").all())
    two_digits = bool(short.any())
    orders: list[DateOrder]
    if order != "auto":
        orders = [order]
    elif two_digits:
        orders = ["dmy", "ymd"] if dotted else ["ymd", "dmy", "mdy"]
    else:
        orders = ["dmy"] if dotted else ["dmy", "mdy"]
    readings: dict[DateOrder, pl.Series] = {name: _ordered(fields, name) for name in orders}
    missing = {name: times.filter(open_cells).null_count() for name, times in readings.items()}
    fitting: list[DateOrder] = [name for name in orders if missing[name] == 0]
    if len(fitting) > 1:
        fitting = _sensible(readings, fitting, open_cells, two_digits)
        if len(fitting) > 1:
            raise TypeError(_ambiguous(cells.filter(open_cells)[0], fitting, two_digits))
    best: DateOrder = fitting[0] if fitting else min(orders, key=missing.__getitem__)
    times = _either(year_first, readings[best].zip_with(
        open_cells, pl.Series([None], dtype=pl.Datetime("us"))))  # fmt: skip
    assumed = []
    example = repr(cells.filter(open_cells)[0])
    if two_digits:
        assumed.append(f"years of two digits are 1969 to 2068, as in {example}")
    if not (dotted and not two_digits):
        assumed.append(f"dates such as {example} are {ORDER_WORDS[best]}")
        return best, times, tuple(assumed)
    return "auto", times, tuple(assumed)


def _ordered(fields: Mapping[str, pl.Series], order: DateOrder) -> pl.Series:
    """The numbers a, b, c read in an order."""
    place = dict(zip(order, "abc", strict=True))
    year, month, day = (fields[place[unit]].cast(pl.Int64, strict=False) for unit in "ymd")
    full = _full_year(year, fields[place["y"]].str.len_chars())
    return _joined(full, month, day, fields)


def _sensible(
    readings: Mapping[DateOrder, pl.Series],
    orders: list[DateOrder],
    rows: pl.Series,
    two_digits: bool,
) -> list[DateOrder]:
    """The orders that remain where several fit all cells: the first one where all give the same
    instants; with years of two digits or times of the day, those in which the step between rows is
    always the same. Days alone decide nothing: 1 to 12 February are also 2 January to 2 December.
    """
    first = readings[orders[0]].filter(rows)
    if all(first.equals(readings[name].filter(rows)) for name in orders[1:]):
        return orders[:1]
    hours = readings[orders[0]].filter(rows).dt.time().n_unique()
    if not two_digits and hours == 1:
        return orders
    even: list[DateOrder] = [
        name for name in orders if _even(readings[name].filter(rows).to_numpy())
    ]
    return even if even else orders


def _even(times: np.ndarray) -> bool:
    """Whether distinct instants are a clock without holes."""
    sorted_times = np.unique(times)
    if len(sorted_times) < 3 or len(sorted_times) < len(times):
        return False
    if len(np.unique(np.diff(sorted_times))) == 1:
        return True
    months = sorted_times.astype("datetime64[M]")
    days = (sorted_times.astype("datetime64[D]") - months.astype("datetime64[D]")).astype(int)
    last = ((months + 1).astype("datetime64[D]") - months.astype("datetime64[D]")).astype(int) - 1
    same_day = len(np.unique(days)) == 1 or bool(np.all(days == last))
    return same_day and len(np.unique(np.diff(months.astype(int)))) == 1


def _ambiguous(example: object, orders: list[DateOrder], two_digits: bool) -> str:
    words = " or ".join(ORDER_WORDS[name].removesuffix("/year") for name in orders)
    if two_digits:
        words = " or ".join(ORDER_WORDS[name] for name in orders)
        words = f"{words}; write years with four digits"
    else:
        words = f"{words}; write dates as 2024-01-31"
    return f"holds dates such as {example!r} that could be {words}, or say --date-order"


def _digits(cells: pl.DataFrame, serials: bool) -> tuple[pl.DataFrame, str]:
    """Cells of digits alone as instants, and how they were read. All cells are of one kind, the one
    that fits most of them.
    """
    text = cells["text"]
    best, kind = pl.repeat(None, len(text), dtype=pl.Datetime("us"), eager=True), ""
    for name, pattern in _DIGITS.items():
        fields = _fields(text, pattern)
        times = _instants(fields)
        year = times.dt.year()
        # Six digits may be a day without its century, 220101; a month that far off is none.
        years = _MONTH_YEARS if name == "month" else (_FIRST_YEAR, _LAST_YEAR)
        times = times.zip_with(
            year.is_between(*years).fill_null(False), pl.Series([None], dtype=pl.Datetime("us"))
        )
        if times.null_count() < best.null_count():
            best, kind = times, ""
            reading = f"numbers such as {text.filter(times.is_not_null())[0]!r} are {name}s"
            kind = f"{reading} of the calendar" if name != "moment" else reading
    for unit, (pattern, length) in _EPOCHS.items():
        groups = text.str.extract_groups(pattern)
        ticks = groups.struct.field(groups.struct.fields[0]).cast(pl.Int64, strict=False)
        times = (ticks * length).cast(pl.Datetime("us"))
        if times.null_count() < best.null_count():
            best = times
            kind = (
                f"numbers such as {text.filter(times.is_not_null())[0]!r} are "
                f"{_UNIT_WORDS[unit]} since 1970 (UTC)"
            )
    serial = _serials(text)
    if serials and serial.null_count() < best.null_count():
        best = serial
        example, day = text.filter(serial.is_not_null())[0], serial.drop_nulls().dt.date()[0]
        kind = f"numbers such as {example!r} are days as Excel counts them ({day})"
    return pl.DataFrame({"text": text, "time": best}), kind


def _serials(text: pl.Series) -> pl.Series:
    """Days as Excel counts them as instants, to the second; null where one of them is too early or
    too late.
    """
    none = pl.repeat(None, len(text), dtype=pl.Datetime("us"), eager=True)
    fits = text.str.contains(_SERIAL)
    days = text.str.replace(",", ".", literal=True).cast(pl.Float64, strict=False)
    if not fits.any() or not days.filter(fits).is_between(*_SERIALS).all():
        return none
    seconds = ((days - _SERIALS[0]) * 86400).round(0).cast(pl.Int64, strict=False)
    return (seconds * 10**6).cast(pl.Datetime("us")).zip_with(fits, none)
