"""Which column of a table is what."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl

from ...base.account import note
from ...base.errors import fail, shown
from ..columns import SYNONYMS, plain_name
from ..formats.tables import collect, require_columns
from .date_parts import Parts, date_parts, joined_parts, note_parts, refuse_turned
from .dates import DateOrder, read_times
from .ids import ID_NAME, present_ids, recognised_ids
from .number_form import NumberForm

DATE_NAMES = ("date", "ds", "timestamp", "time", "datetime")
_CLOCK_NAMES = (
    "time", "hour", "time_of_day", "uhrzeit", "zeit", "stunde", "hora", "heure", "ora", "uur",
    "tijd", "hr",
)  # fmt: skip
_STRANGE = 0.1  # of the cells of a column of dates that may be none
_MOST_HOURS = 0.8  # of the hours of all days
_TIME_OF_DAY = r"^\s*\d{1,2}:\d{2}(?::\d{2})?\s*(?:[AaPp]\.?[Mm]\.?)?$"
_ROW_NAMES = (
    "id", "index", "idx", "row", "row_id", "row_number", "row_num", "rownum", "rownames", "no",
    "nr", "lfd_nr", "obs", "record", "record_id",
)  # fmt: skip
_ROW_NUMBER = re.compile(r"__index_level_\d+__|Unnamed: ?\d+|level_0")  # what pandas adds


@dataclass(frozen=True)
class ColumnChoice:
    """The columns that the user names; None or empty: to be recognised. As in `series.read_panel`.

    usual_ids: columns of ids where the table has all of them and none is named. order, local: as in
    `dates.read_times`. form: how numbers are written.
    """

    date: str | None = None
    ids: Sequence[str] = ()
    targets: Sequence[str] | None = None
    known: Sequence[str] = ()
    order: DateOrder = "auto"
    local: bool = False
    usual_ids: Sequence[str] = ()
    form: NumberForm = field(default_factory=NumberForm)


@dataclass(frozen=True)
class Columns:
    """The role of each column. date None: the table has no dates; no ids: the table is wide.

    clock: a column of times of the day next to the one of dates. free: whether the targets are all
    columns that have no other role, not chosen ones. parts: the columns that the date is spread
    over; `date` is that of the years.
    """

    date: str | None
    ids: tuple[str, ...]
    targets: tuple[str, ...]
    known: tuple[str, ...]
    order: DateOrder = "auto"
    local: bool = False
    clock: str | None = None
    free: bool = False
    parts: Parts = ()

    @property
    def dates(self) -> list[str]:
        """The columns of dates and times of the day."""
        days = [name for _, name in self.parts] or [self.date]
        return [name for name in (*days, self.clock) if name is not None]

    @property
    def names(self) -> list[str]:
        """All columns to read."""
        return [*self.ids, *self.dates, *self.targets, *self.known]


def find_columns(
    where: object,
    frame: pl.LazyFrame,
    names: Sequence[str],
    choice: ColumnChoice,
    frequency: str | None,
) -> Columns:
    """Decide what each column is, and note what is taken under another name or not used.

    frequency: None where a table must have dates. Raises InputError for columns that are missing,
    have two roles or cannot be recognised.
    """
    named = [*([] if choice.date is None else [choice.date]), *choice.ids]
    require_columns(where, [*named, *(choice.targets or ()), *choice.known], names)
    taken = {*choice.ids, *(choice.targets or ()), *choice.known}
    if not choice.ids and ID_NAME in names:
        taken.add(ID_NAME)
    parts: Parts = ()
    date = choice.date or _date_column(where, frame, names, taken)
    if choice.date is None and (date is None or plain_name(date) not in DATE_NAMES):
        parts = _spread_date(where, frame, names, taken, date)
    if parts:
        date = parts[0][1]
        frame = frame.with_columns(joined_parts(parts).alias(date))
        others = {name for _, name in parts[1:]}
        names = [name for name in names if name not in others]
    if choice.targets is None:
        refuse_turned(where, names, date)
    if date is None and frequency is None:
        _refuse_strange(where, frame, [name for name in names if name not in taken])
        raise fail(
            where,
            f"there is no column of dates ({', '.join(DATE_NAMES)}); name it with --date, or state "
            "the clock of a table without dates with --frequency 5m",
        )
    row_numbers = [n for n in names if _ROW_NUMBER.fullmatch(n) and n not in {date, *taken}]
    names = [name for name in names if name not in row_numbers]
    used = {*(choice.targets or ()), *choice.known}
    clock = _clock_column(where, frame, names, date, {*taken, *choice.ids})
    names = [name for name in names if name != clock]
    if date is not None and clock is not None:
        moment = pl.concat_str(pl.col(date, clock).cast(pl.String), separator=" ")
        frame = frame.with_columns(moment.alias(date))
    ids = present_ids([name for name in names if name not in used], choice.ids, choice.usual_ids)
    ids = ids or recognised_ids(where, frame, names, date, used)
    if choice.targets is not None:
        targets = tuple(choice.targets)
    else:
        others = [n for n in names if n not in {date, *ids, *choice.known}]
        counting = _counters(where, frame, others)
        targets = tuple(name for name in others if name not in counting)
        names = [name for name in names if name not in counting]
    if not targets:
        raise fail(where, "there is no column left to forecast; name some with --targets")
    roles = Counter([date, *ids, *choice.known, *targets])
    for name, count in roles.items():
        if count > 1 and name is not None:
            raise fail(where, f"column {shown(name)} is asked for twice, in two roles; use it once")
    free = choice.targets is None
    columns = Columns(
        date, ids, targets, tuple(choice.known), choice.order, choice.local, clock, free, parts
    )
    _note_columns(choice, columns, [*names, *row_numbers])
    return columns


def _counters(where: object, frame: pl.LazyFrame, names: Sequence[str]) -> list[str]:
    """Columns named like a number of the row that count the rows (noted), unless there are no
    others.
    """
    usual = [name for name in names if plain_name(name) in _ROW_NAMES]
    if not usual or len(usual) == len(names):
        return []
    table = collect(
        where, frame.select(pl.col(usual).cast(pl.String).cast(pl.Float64, strict=False))
    )
    counting = [name for name in usual if bool((table[name].diff().drop_nulls() == 1).all())]
    counting = [name for name in counting if table[name].null_count() == 0 and table.height > 1]
    if counting:
        note("columns", "that only count the rows, not used", counting)
    return counting


def _note_columns(choice: ColumnChoice, columns: Columns, names: Sequence[str]) -> None:
    if columns.parts:
        note_parts(columns.parts)
    elif choice.date is None and columns.date and plain_name(columns.date) not in DATE_NAMES:
        note("columns", f"{shown(columns.date)} is taken as the date")
    if not choice.ids and columns.ids and columns.ids != (ID_NAME,):
        listed = " and ".join(map(shown, columns.ids))
        verb = "is" if len(columns.ids) == 1 else "are"
        note("columns", f"{listed} {verb} taken as the name of the series")
    if columns.clock is not None:
        note("columns", f"{shown(columns.clock)} is taken as the time of the day")
    unused = [name for name in names if name not in columns.names]
    if unused:
        note("columns", "not used", unused)


def _date_column(
    where: object, frame: pl.LazyFrame, names: Sequence[str], taken: set[str]
) -> str | None:
    """The column with a usual name for dates, else the first one if it holds dates, else one with a
    name such as "month" if it does.
    """
    by_plain = {plain_name(name): name for name in reversed(names) if name not in taken}
    for usual in DATE_NAMES:
        if usual in by_plain and not (
            usual == "time" and "year" in by_plain and _is_clock(where, frame, by_plain[usual])
        ):
            return by_plain[usual]
    if names and names[0] not in taken and _holds_dates(where, frame, names[0], digits=False):
        return names[0]
    for usual in SYNONYMS["date"]:
        if usual in by_plain and _holds_dates(where, frame, by_plain[usual], digits=True):
            return by_plain[usual]
    return None


def _refuse_strange(where: object, frame: pl.LazyFrame, names: Sequence[str]) -> None:
    """Raise InputError for a column that is named like one of dates and holds something else."""
    for name in names:
        if plain_name(name) in SYNONYMS["date"]:
            cells = collect(where, frame.select(name).head(100))[name].drop_nulls()
            if len(cells):
                problem = (
                    f"column {shown(name)} holds {shown(cells[0])}, not a date like 2024-01-31"
                )
                raise fail(where, f"{problem}; write it so, or name another column with --date")


def _spread_date(
    where: object, frame: pl.LazyFrame, names: Sequence[str], taken: set[str], date: str | None
) -> Parts:
    """The columns that the date is spread over, unless another column holds all of it."""
    parts = date_parts(where, frame, names, taken)
    return parts if date is None or date in {name for _, name in parts} else ()


def _clock_column(
    where: object, frame: pl.LazyFrame, names: Sequence[str], date: str | None, taken: set[str]
) -> str | None:
    """A column "time" with times of the day, next to a column of dates."""
    if date is None or plain_name(date) == "time":
        return None
    for name in names:
        usual = plain_name(name) in _CLOCK_NAMES and name not in taken and name != date
        if usual and (_is_clock(where, frame, name) or _is_hour(where, frame, date, name)):
            return name
    return None


def _is_hour(where: object, frame: pl.LazyFrame, date: str, name: str) -> bool:
    """Whether a column holds the hours of days: the same ones on nearly all days."""
    pairs = collect(where, frame.select(pl.col(date, name).cast(pl.String)).unique())
    hours, days = pairs[name].str.strip_chars(), pairs[date]
    if days.str.contains(":[0-5]").any() or not hours.str.contains(r"^\d{1,2}(\.0)?$").all():
        return False
    count, full_days = hours.n_unique(), max(days.n_unique() - 2, 1)
    covered = len(pairs) >= max(_MOST_HOURS * count * full_days, 1.5 * days.n_unique())
    return count > 1 and covered and bool(hours.cast(pl.Float64).is_between(0, 24).all())


def _is_clock(where: object, frame: pl.LazyFrame, name: str) -> bool:
    """Whether the first rows of a column are times of the day."""
    column = collect(where, frame.select(name).head(100))[name].drop_nulls()
    is_text = len(column) > 0 and column.dtype == pl.String
    return column.dtype == pl.Time or (is_text and bool(column.str.contains(_TIME_OF_DAY).all()))


def _holds_dates(where: object, frame: pl.LazyFrame, name: str, *, digits: bool) -> bool:
    """Whether the first rows of a column are dates."""
    column = collect(where, frame.select(name).head(100))[name].drop_nulls()
    try:
        times = read_times(column, digits=digits).times
        # A few that are none, such as a total, are named when all are read.
        return times.null_count() <= _STRANGE * len(column) < len(column)
    except TypeError as error:
        return "month/day" in str(error)  # dates with two readings: refused when they are read
