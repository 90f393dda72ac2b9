"""Dates that a table spreads over columns: year, month, day, hour; year and quarter or week."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import polars as pl

from ...base.account import note
from ...base.errors import fail, shown
from ..columns import plain_name
from ..formats.tables import collect
from .date_words import MONTH_OF
from .dates import read_times

Parts = tuple[tuple[str, str], ...]
"""Pairs of a unit (year, month, ...) and the column that holds it, the year first."""

_NAMES: Mapping[str, tuple[str, ...]] = {
    "year": ("year", "yr", "yyyy", "jahr", "annee", "année", "an", "año", "anio", "anno", "ano",
             "jaar"),
    "month": ("month", "mon", "mo", "mm", "mnth", "monat", "mois", "mes", "mese", "mês", "maand"),
    "day": ("day", "dd", "dy", "day_of_month", "tag", "jour", "día", "dia", "giorno", "dag"),
    "hour": ("hour", "hr", "hh", "stunde", "heure", "hora", "ora", "uur"),
    "minute": ("minute", "min", "mn"),
    "quarter": ("quarter", "qtr", "quartal", "trimestre", "trimester", "kwartaal"),
    "week": ("week", "iso_week", "isoweek", "wk", "kw", "woche", "kalenderwoche", "semaine",
             "semana", "settimana"),
    "yearday": ("day_of_year", "dayofyear", "doy", "yday", "julian_day"),
}  # fmt: skip
_RANGES = {
    "year": (1500, 2300), "month": (1, 12), "day": (1, 31), "hour": (0, 24), "minute": (0, 59),
    "quarter": (1, 4), "week": (1, 53), "yearday": (1, 366),
}  # fmt: skip
_TURN = "turn the table, so that each row is a date (columns unique_id, ds, y)"
_CHAINS = (
    ("month", "day", "hour", "minute"),
    ("yearday", "hour", "minute"),
    ("quarter",),
    ("week",),
)


def date_parts(where: object, frame: pl.LazyFrame, names: Sequence[str], taken: set[str]) -> Parts:
    """The columns that make a date together; () where there are none. taken: columns with another
    role.
    """
    by_plain = {plain_name(name): name for name in reversed(names) if name not in taken}
    column = {
        unit: by_plain[usual[0]]
        for unit, among in _NAMES.items()
        if (usual := [name for name in among if name in by_plain])
    }
    if "year" not in column:
        return ()
    for chain in _CHAINS:
        if chain[0] not in column:
            continue
        units = ["year"]
        for unit in chain:
            if unit not in column:
                break
            units.append(unit)
        parts = tuple((unit, column[unit]) for unit in units)
        head = collect(where, frame.select(name for _, name in parts).head(100))
        if all(_fits(unit, head[name]) for unit, name in parts):
            return parts
    return ()


def refuse_turned(where: object, names: Sequence[str], date: str | None) -> None:
    """Raise InputError for a table whose columns are dates: years, days, or the months of a year in
    each row.
    """
    months = [name for name in names if plain_name(name) in MONTH_OF]
    if date is not None and len({MONTH_OF[plain_name(name)] for name in months}) == 12:
        problem = f"columns {shown(months[0])} to {shown(months[-1])} are the months of a year"
        raise fail(where, f"{problem}; {_TURN}, or name columns with --targets")
    if date is not None:
        return
    try:
        times = read_times(pl.Series([str(name) for name in names])).times
    except TypeError:
        return
    dates = [name for name, time in zip(names, times, strict=True) if _is_recent(time)]
    distinct = times.drop_nulls().unique()
    if len(dates) >= 3 and len(dates) == len(distinct) and 2 * len(dates) >= len(names):
        problem = f"columns {shown(dates[0])} to {shown(dates[-1])} are dates, and series are rows"
        raise fail(where, f"{problem}; {_TURN}")


def _is_recent(time: datetime | None) -> bool:
    return time is not None and 1900 <= time.year <= 2100


def _fits(unit: str, cells: pl.Series) -> bool:
    """Whether cells are numbers of a unit (or names of months)."""
    number = pl.select(_number(unit, pl.lit(cells))).to_series()
    present = cells.drop_nulls()
    low, high = _RANGES[unit]
    fitting = number.is_between(low, high).fill_null(False)
    return len(present) > 0 and int(fitting.sum()) == len(present)


def _number(unit: str, cell: pl.Expr) -> pl.Expr:
    text = cell.cast(pl.String).str.strip_chars().str.replace(r"\.0+$", "")
    if unit == "month":
        word = text.str.to_lowercase().str.strip_chars(".")
        named = word.replace_strict(MONTH_OF, default=None, return_dtype=pl.Int64)
        return pl.coalesce(text.cast(pl.Int64, strict=False), named)
    if unit == "quarter":
        text = text.str.strip_chars("QqTt ")
    if unit == "hour":
        text = text.str.replace(r":00(:00)?$", "")
    return text.cast(pl.Int64, strict=False)


def joined_parts(parts: Parts) -> pl.Expr:
    """The date as text, such as 2024-01-31 13:00; null where a part is missing."""
    number = {unit: _number(unit, pl.col(name)) for unit, name in parts}
    year, clock = number["year"], ""
    if "quarter" in number:
        return pl.format("{}Q{}", year, number["quarter"])
    if "week" in number:
        return pl.format("{}-W{}", year, number["week"].cast(pl.String).str.zfill(2))
    if "yearday" in number:
        day = number["yearday"].cast(pl.String).str.zfill(3)
        date = pl.format("{}-{}", year, day).str.to_date("%Y-%j", strict=False).cast(pl.String)
    else:
        day = number.get("day", pl.lit(1))
        date = pl.format(
            "{}-{}-{}",
            year,
            number["month"].cast(pl.String).str.zfill(2),
            day.cast(pl.String).str.zfill(2),
        )
    if "hour" not in number:
        return date
    minute = number.get("minute", pl.lit(0)).cast(pl.String).str.zfill(2)
    clock = pl.format("{}:{}", number["hour"].cast(pl.String).str.zfill(2), minute)
    return pl.format("{} {}", date, clock)


def note_parts(parts: Parts) -> None:
    """Note which columns are the date."""
    listed = [shown(name) for _, name in parts]
    note("columns", f"{', '.join(listed[:-1])} and {listed[-1]} are together the date")
    if parts[-1][0] == "week":
        note("assumed", "weeks are those of ISO 8601, and begin on Monday")
