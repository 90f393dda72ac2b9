"""Which column of a table is what."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from ...base.errors import fail, shown
from ..formats.tables import collect, require_columns
from .dates import read_times

DATE_NAMES = ("date", "ds", "timestamp", "time", "datetime")
ID_NAME = "unique_id"


@dataclass(frozen=True)
class ColumnChoice:
    """The columns that the user names; None: to be recognised. As in `series.read_panel`."""

    date: str | None = None
    id: str | None = None
    targets: Sequence[str] | None = None
    known: Sequence[str] = ()


@dataclass(frozen=True)
class Columns:
    """The role of each column. date None: the table has no dates; id None: the table is wide."""

    date: str | None
    id: str | None
    targets: tuple[str, ...]
    known: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """All columns to read."""
        return [n for n in (self.id, self.date) if n is not None] + [*self.targets, *self.known]


def find_columns(
    where: object,
    frame: pl.LazyFrame,
    names: Sequence[str],
    choice: ColumnChoice,
    frequency: str | None,
) -> Columns:
    """Decide what each column is.

    frequency: None where a table must have dates. Raises InputError for columns that are missing,
    have two roles or cannot be recognised.
    """
    names = [n for n in names if not n.startswith("__index_level_")]  # what pandas adds to parquet
    named = [name for name in (choice.date, choice.id) if name is not None]
    require_columns(where, [*named, *(choice.targets or ()), *choice.known], names)
    id_column = ID_NAME if choice.id is None and ID_NAME in names else choice.id
    taken = {id_column, *(choice.targets or ()), *choice.known}
    date = choice.date or _date_column(where, frame, names, taken)
    if date is None and frequency is None:
        raise fail(
            where,
            f"there is no column of dates ({', '.join(DATE_NAMES)}); name it with --date, or state "
            "the clock of a table without dates with --frequency 5m",
        )
    if choice.targets is not None:
        targets = tuple(choice.targets)
    else:
        targets = tuple(n for n in names if n not in {date, id_column, *choice.known})
    if not targets:
        raise fail(where, "there is no column left to forecast; name some with --targets")
    roles = Counter([date, id_column, *choice.known, *targets])
    for name, count in roles.items():
        if count > 1 and name is not None:
            raise fail(where, f"column {shown(name)} is asked for twice, in two roles; use it once")
    return Columns(date, id_column, targets, tuple(choice.known))


def _date_column(
    where: object, frame: pl.LazyFrame, names: Sequence[str], taken: set[str | None]
) -> str | None:
    """The column with a usual name for dates, else the first one if it holds dates."""
    by_lower = {name.lower(): name for name in reversed(names)}
    for usual in DATE_NAMES:
        if usual in by_lower and by_lower[usual] not in taken:
            return by_lower[usual]
    if names and names[0] not in taken and _holds_dates(where, frame, names[0]):
        return names[0]
    return None


def _holds_dates(where: object, frame: pl.LazyFrame, name: str) -> bool:
    """Whether the first rows of a column are all dates (digits alone are a number, not a date)."""
    column = collect(where, frame.select(name).head(100))[name].drop_nulls()
    try:
        return len(column) > 0 and read_times(column).null_count() == 0
    except TypeError as error:
        return "month/day" in str(error)  # dates with two readings: refused when they are read
