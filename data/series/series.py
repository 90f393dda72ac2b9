"""Time series from files: wide tables, long tables and PEMS arrays, read strictly.

No value is guessed: text in a column of numbers, missing or infinite values, missing steps and
repeated timestamps are errors that name the place, unless a way to fill is declared. Rows may come
in any order. What was read and assumed goes into the account.

Shapes: T rows, C target columns, K known columns.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from ...base.errors import fail, shown
from ..formats.tables import stem_of
from .cells import Cells, parts_of, read_cells
from .clock import check_anchor, grid, infer_step, month_day_of, synthetic_times
from .columns import ColumnChoice
from .dates import ORDER_WORDS, DateOrder
from .frequency import MICROSECONDS, Step, parse_frequency
from .number_form import NumberForm, check_codes, read_column, why_not
from .told import Tally, note_table

Fill = Literal["error", "forward", "linear", "zero", "as-is"]


@dataclass(frozen=True)
class Series:
    """One item to forecast: C channels on one clock without holes, in original units.

    name    the unique_id, or the stem of a wide file ("ETTh1" for ETTh1.csv.gz)
    times   (T,) datetime64[us], strictly increasing (unless read "as-is"); without dates, from
            2000-01-01
    values  (T, C) float64, finite
    known   (T + F, K) float64, finite: columns known in advance, with F >= 0 rows past the end of
            `values`
    month_day  of a clock in months: the day that its dates have, `MONTH_END` for the last one; 0
            for other clocks
    parts   what each column of ids holds, where there are several
    """

    name: str
    times: np.ndarray
    values: np.ndarray
    known: np.ndarray
    month_day: int = 0
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Panel:
    """Series with the same channels and the same clock.

    channels, known  names of the columns of `Series.values` and `Series.known`
    frequency        duration between rows: "15m", "1h", "1d", "1b", "1w", "1mo", "1q", "1y"
    ids              columns that name the series of a long table
    order, local     how dates were read, as in `dates.ReadTimes`
    form             how numbers were read
    columns          of the table that hold numbers
    """

    channels: tuple[str, ...]
    known: tuple[str, ...]
    frequency: str
    layout: Literal["wide", "long"]
    series: tuple[Series, ...]
    ids: tuple[str, ...] = ()
    order: DateOrder = "auto"
    local: bool = False
    form: NumberForm = field(default_factory=NumberForm)
    columns: tuple[str, ...] = ()


def read_panel(
    path: str | Path,
    *,
    date: str | None = None,
    id_column: str | Sequence[str] | None = None,
    usual_ids: Sequence[str] = (),
    targets: Sequence[str] | None = None,
    known: Sequence[str] = (),
    frequency: str | None = None,
    fill: Fill = "error",
    series: Literal["apart", "together"] = "apart",
    order: DateOrder = "auto",
    local: bool = False,
    month_day: int = 0,
    form: NumberForm | None = None,
) -> Panel:
    """Read the series of one file.

    path       .csv, .tsv, .txt (comma), or these with .gz; .parquet; .npz with an array `data` of
               shape (T, N) or (T, N, F), of which feature 0 is read (PEMS)
    date       column of dates; None: `date`, `ds`, `timestamp`, `time` or `datetime`, or the first
               column if it holds dates, or one with another usual name that does. A table without
               dates needs `frequency`, and its clock starts at 2000-01-01 by convention
    id_column  makes the table long: one series per value, or per combination of values of several
               columns; None: `unique_id` if there is one, or columns with other usual names where
               dates repeat
    usual_ids  columns that name the series where the table has all of them and `id_column` is None
    targets    columns to forecast; None: all that have no other role
    known      columns known in advance; their future part is the rows at the end where only they
               are filled
    frequency  duration between rows; None: the most common step of the file
    fill       what to do about missing steps and missing or infinite values. "error": refuse them.
               "forward": repeat the last value (never looks ahead; a gap at the start stays an
               error). "linear": interpolate between the values on both sides (it looks ahead, and
               is for cleaning history only). "zero": write 0. "as-is": take the rows as they are,
               with missing and repeated steps, as the published protocols do (Weather has both),
               but refuse missing values
    series     of a long table: "apart": each id is a series, with the targets as its channels;
               "together": the ids are the channels of one series and must share all timestamps
    order      of day, month and year in dates such as 01/02/2024; "auto": the only one that fits
    local      take the time on the wall where dates have an offset, as a run on local days does
    month_day  the day of the month that a clock in months is known to have; 0: that of the dates
    form       how numbers are written and which of them are missing; None: as the file says

    Raises InputError (one line: what, where, what to do).
    """
    if fill not in get_args(Fill):
        raise fail("fill", f"{shown(fill)} is none of {', '.join(get_args(Fill))}")
    if series not in ("apart", "together"):
        raise fail("series", f"{shown(series)} is none of apart, together")
    stated = None if frequency is None else parse_frequency(frequency)
    choice = ColumnChoice(date, id_columns(id_column), targets, known, order, local, usual_ids)
    choice = replace(choice, form=form or NumberForm())
    cells = read_cells(path, choice, frequency)
    check_codes(path, [*cells.columns.targets, *cells.columns.known], cells.values, cells.form)
    step = stated or _common_step(cells, business=fill == "error")
    tally = Tally()
    members = tuple(
        one_series(cells, i, step, fill, month_day=month_day, tally=tally)
        for i in range(len(cells.names))
    )
    note_table(cells, [member.times for member in members], step, tally, fill, stated is not None)
    columns = cells.columns
    channels = columns.targets
    if series == "together" and columns.ids:
        channels, members = _together(cells, members)
    layout = "long" if columns.ids else "wide"
    return Panel(
        channels,
        columns.known,
        step.text,
        layout,
        members,
        columns.ids,
        cells.order,
        cells.local,
        cells.form,
        (*columns.targets, *columns.known),
    )


def id_columns(columns: str | Sequence[str] | None) -> tuple[str, ...]:
    """The names of columns that one name, several or none stand for."""
    if columns is None:
        return ()
    return (columns,) if isinstance(columns, str) else tuple(columns)


def _common_step(cells: Cells, *, business: bool) -> Step:
    """The step of most series of the file; two hundred of them decide. Raises InputError for a cell
    that is no date, and where no series has two dates.
    """
    assert cells.times is not None, "find_columns asks for the frequency of a table without dates"
    if np.isnat(cells.times).any():
        _refuse_date(cells, int(np.flatnonzero(np.isnat(cells.times))[0]), cells.where)
    steps: Counter[Step] = Counter()
    for rows in cells.rows[:200]:
        times = cells.times[rows]
        step = infer_step(np.unique(times), business=business)
        if step is not None:
            steps[step] += 1
    if not steps:
        cure = "state it with --frequency 1h"
        raise fail(cells.where, f"too few dates to tell the step between rows; {cure}")
    return steps.most_common(1)[0][0]


def one_series(
    cells: Cells,
    index: int,
    step: Step,
    fill: Fill,
    *,
    month_day: int = 0,
    tally: Tally | None = None,
) -> Series:
    """One series of a table, checked and, if `fill` says so, filled.

    month_day: as in `read_panel`. tally: counts what was filled. Raises InputError with file,
    series, column and time.
    """
    tally = tally or Tally()
    columns, name, rows = cells.columns, cells.names[index], cells.rows[index]
    where = f"{cells.where}: series {shown(name)}" if columns.ids else cells.where
    if columns.ids and not name:
        id_names = " or ".join(map(shown, columns.ids))
        cell = f"{cells.row_label(int(rows[0]))}: column {id_names}"
        raise fail(cells.where, f"{cell} is empty; every row needs an id")
    _refuse_text(cells, rows, where)
    values = cells.values[rows]
    if cells.times is None:
        times = synthetic_times(len(rows), step)
    else:
        order = np.argsort(cells.times[rows], kind="stable")
        times, values = cells.times[rows][order], values[order]
        same = np.flatnonzero(times[1:] == times[:-1])
        if len(same) and fill != "as-is":
            cure = "remove them, or take rows as they are with --fill as-is"
            cure += "" if columns.ids else ", or name the columns of ids with --id-column"
            problem = f"timestamp {_instant(times[same[0]])} appears more than once"
            if 0 < step.microseconds < MICROSECONDS["d"] and _set_back(times[same]):
                cure += ", or write times with their offset if a clock was set back"
            raise fail(where, f"{problem} ({_rows(len(same))} too many); {cure}")
        tally.repeated += len(same)
        check_anchor(where, times, step)
    channels = len(columns.targets)
    filled = np.flatnonzero(~np.isnan(values[:, :channels]).all(axis=1))
    if not len(filled):
        raise fail(where, f"column {shown(columns.targets[0])} holds no value at all")
    day = month_day_of(times, month_day) if step.months else 0
    times, values, place = _on_clock(where, times, values, step, fill, day)
    end = place[filled[-1]] + 1 if columns.known else len(times)
    missing_steps = len(times) - len(place)
    tally.steps += missing_steps
    missing = np.isnan(values[:end, :channels]).sum() + np.isnan(values[:, channels:]).sum()
    tally.values += int(missing) - missing_steps * values.shape[1]
    _fill(where, times[:end], values[:end, :channels], columns.targets, fill)
    _fill(where, times, values[:, channels:], columns.known, fill)
    parts = tuple(parts_of(cells, index)) if len(columns.ids) > 1 else ()
    past, known = values[:end, :channels].copy(), values[:, channels:].copy()
    return Series(name, times[:end], past, known, day, parts)


def _set_back(times: np.ndarray) -> bool:
    """Whether repeated times may be the hour that comes twice when summer time ends."""
    month = times.astype("datetime64[M]").astype(np.int64) % 12 + 1
    hour = (times - times.astype("datetime64[D]")) // np.timedelta64(1, "h")
    return bool(np.isin(month, (3, 4, 9, 10, 11)).all() and (hour <= 3).all())


def _instant(time: object) -> str:
    return str(time).replace("T", " ").removesuffix(".000000")


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _refuse_date(cells: Cells, row: int, where: object) -> None:
    """Raise for a cell that is no date."""
    columns = cells.columns
    cell = cells.table[columns.date][row] if columns.date else None
    if len(columns.dates) > 1 and cell is not None:
        cell = " ".join(str(cells.table[name][row]) for name in columns.dates)
    problem = f"{cells.row_label(row)}: column {shown(columns.date)} "
    problem += "is empty" if cell is None else f"holds {shown(cell)}"
    problem += ", not a date like 2024-01-31 13:00:00"
    if cells.order != "auto":
        problem += f" (or in the order {ORDER_WORDS[cells.order]}; --date-order names another)"
    elif isinstance(cell, int | float) or str(cell or "").isdigit():
        problem += "; a table without dates is read with --frequency and --targets"
    raise fail(where, problem)


def _refuse_text(cells: Cells, rows: np.ndarray, where: object) -> None:
    """Raise for the first row with a date or a number that cannot be read."""
    columns, table = cells.columns, cells.table
    if cells.times is not None and np.isnat(cells.times[rows]).any():
        _refuse_date(cells, int(rows[np.isnat(cells.times[rows])][0]), where)
    if not cells.bad[rows].any():
        return
    row = int(rows[cells.bad[rows]][0])
    for name in (*columns.targets, *columns.known):
        # A decimal mark and a unit are those of the entire column.
        if read_column(table[name], cells.form)[1][row]:
            time = "" if cells.times is None else f" ({_instant(cells.times[row])})"
            cell = f"column {shown(name)}, {cells.row_label(row)}{time}"
            problem = (
                f"{cell} holds {shown(table[name][row])}, {why_not(table[name], row, cells.form)}"
            )
            cure = "correct it, say --missing if it means missing, or choose columns"
            raise fail(where, f"{problem}; {cure} with --targets")


def _on_clock(
    where: object, times: np.ndarray, values: np.ndarray, step: Step, fill: Fill, month_day: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sorted rows on the full clock: times, values with NaN in missing steps, and the rows' places.

    Raises InputError for rows off the clock, and for missing steps where `fill` refuses them.
    """
    if fill == "as-is":
        return times, values.copy(), np.arange(len(times))
    try:
        full, place = grid(times, step, month_day)
    except OverflowError as error:
        raise fail(where, f"{error}; is a date wrong?") from error
    if (place < 0).any():
        off = np.flatnonzero(place < 0)
        first, start = _instant(times[off[0]]), _instant(times[0])
        raise fail(
            where,
            f"timestamp {first} is off the {step.text} clock that starts at {start} "
            f"({_rows(len(off))} in all); correct it, or state another step with --frequency",
        )
    if len(full) == len(times):
        return times, values.copy(), place
    if fill == "error":
        hole = np.setdiff1d(np.arange(len(full)), place, assume_unique=True)
        problem = f"{len(hole):,} of {len(full):,} steps of {step.text} are missing"
        cure = "--fill forward, linear or zero, or take rows as they are with as-is"
        cure = f"complete the file, or fill with {cure}{_workdays(times, step)}"
        raise fail(where, f"{problem}, the first at {_instant(full[hole[0]])}; {cure}")
    spread = np.full((len(full), values.shape[1]), np.nan)
    spread[place] = values
    return full, spread, place


def _workdays(times: np.ndarray, step: Step) -> str:
    """A hint where rows are business days, of which holidays are missing."""
    if step.business:
        return " (business days: name them with --frequency B, too, so that weekends stay out)"
    days = times.astype("datetime64[D]")
    if step.text == "1d" and len(times) > 1 and bool(np.is_busday(days).all()):
        return " (rows on business days only: --frequency B)"
    return ""


def _fill(
    where: object, times: np.ndarray, values: np.ndarray, names: Sequence[str], fill: Fill
) -> None:
    """Fill the NaNs of (T, C) in place, or raise for the first one."""
    missing, strict = np.isnan(values), fill in ("error", "as-is")
    for column in np.flatnonzero(missing.any(axis=0)).tolist():
        holes = missing[:, column]
        filled = np.flatnonzero(~holes)
        last = filled[-1] if len(filled) and fill == "linear" else len(times) - 1
        at_edge = not len(filled) or filled[0] > 0 or last < len(times) - 1
        if fill != "zero" and (strict or at_edge):
            first = int(np.flatnonzero(holes)[0 if strict or holes[0] else -1])
            cure = "complete it, or fill with --fill forward, linear or zero"
            if not strict:
                side = "before" if holes[0] else "after"
                cure = f"--fill {fill} has no value {side} it; use --fill zero or cut the rows"
            raise fail(
                where,
                f"column {shown(names[column])} has no finite value at {_instant(times[first])} "
                f"({_rows(int(holes.sum()))} in all); {cure}",
            )
        if fill == "zero":
            values[holes, column] = 0.0
        elif fill == "forward":
            latest = np.maximum.accumulate(np.where(holes, 0, np.arange(len(times))))
            values[:, column] = values[latest, column]
        else:
            values[holes, column] = np.interp(np.flatnonzero(holes), filled, values[filled, column])


def _together(
    cells: Cells, members: tuple[Series, ...]
) -> tuple[tuple[str, ...], tuple[Series, ...]]:
    """The channels and the one series that join the series of a long table."""
    first = members[0]
    for series in members[1:]:
        if not np.array_equal(first.times, series.times):
            odd = np.setxor1d(first.times, series.times)[0]
            lacking = series.name if odd in first.times else first.name
            raise fail(
                cells.where,
                f"series {shown(lacking)} has no row at {_instant(odd)} but others have; "
                "forecasting together needs the same timestamps in all; complete it, or forecast "
                "the series apart",
            )
        if not np.array_equal(first.known, series.known):
            both = f"{shown(first.name)} and {shown(series.name)}"
            raise fail(
                cells.where,
                f"known columns differ between series {both}; forecasting together needs them "
                "equal; forecast the series apart",
            )
    targets = cells.columns.targets
    names = (s.name if len(targets) == 1 else f"{s.name}:{t}" for s in members for t in targets)
    values = np.concatenate([series.values for series in members], axis=1)
    return tuple(names), (Series(stem_of(str(cells.where)), first.times, values, first.known),)
