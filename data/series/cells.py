"""The cells of a file as arrays, not yet checked."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl

from ...base.account import note
from ...base.errors import InputError, fail, reason, shown
from ..formats.tables import (
    MISSING_WORDS,
    TABLE_SUFFIXES,
    UNPACKED_CAP,
    check_file,
    collect,
    require_columns,
    scan_table,
    stem_of,
    suffix_of,
)
from .columns import ColumnChoice, Columns, find_columns
from .date_parts import joined_parts
from .dates import DateOrder, ReadTimes, read_times
from .ids import id_parts, id_text
from .number_form import NumberForm, form_of_file, read_column, resolved
from .rows import data_rows

NAME = "\x1fname"  # a column that no header has: nobody types a control character
SERIES_SUFFIXES = (*TABLE_SUFFIXES, ".npz")


@dataclass(frozen=True)
class Cells:
    """A table of n rows as arrays.

    where        the file, for messages
    names        of the series; several columns of ids are joined (`ids.id_text`)
    rows         of each series: the rows of the table, in its order
    times        (n,) datetime64[us], NaT where a cell is no date; None for a table without dates
    values       (n, C + K), targets and known columns, NaN where a cell is no number
    bad          (n,), whether a cell of the row is text
    table        the cells themselves
    row_numbers  (n,) rows of the file, where the table has only some of them
    order, local as in `dates.ReadTimes`
    assumed      what was assumed of the dates, in words
    form         how numbers are written, as the entire file says
    """

    where: object
    columns: Columns
    names: list[str]
    rows: list[np.ndarray]
    times: np.ndarray | None
    values: np.ndarray
    bad: np.ndarray
    table: pl.DataFrame
    row_numbers: np.ndarray | None = None
    order: DateOrder = "auto"
    local: bool = False
    assumed: tuple[str, ...] = ()
    form: NumberForm = field(default_factory=NumberForm)

    def row_label(self, row: int) -> str:
        """A row's name in messages: rows of a file are counted from 1, below its header."""
        return f"row {(row if self.row_numbers is None else int(self.row_numbers[row])) + 1}"


def read_cells(path: str | Path, choice: ColumnChoice, frequency: str | None) -> Cells:
    """Read an entire file into arrays. Raises InputError as `series.read_panel` does."""
    if suffix_of(Path(path)) == ".npz":
        return _read_npz(path, choice.targets, choice.known, frequency)
    frame, names = scan_table(check_file(path, SERIES_SUFFIXES))
    columns = find_columns(path, frame, names, choice, frequency)
    table = collect(path, with_names(frame, columns))
    of_numbers = [*columns.targets, *columns.known]
    in_file = form_of_file(path, table.lazy(), of_numbers)
    return cells_of(path, table, columns, resolved(path, choice.form, in_file, of_numbers))


def with_names(frame: pl.LazyFrame, columns: Columns, *others: str) -> pl.LazyFrame:
    """The columns to read, other ones and, for a long table, the name of each row's series as
    `NAME`.
    """
    names = [id_text(frame, columns.ids).alias(NAME)] if columns.ids else []
    return frame.select(*others, *columns.names, *names)


def read_dates(where: object, table: pl.DataFrame, columns: Columns) -> ReadTimes | None:
    """The instants of the rows; None for a table without dates. Raises InputError for a column that
    cannot hold dates or could be read in two ways.
    """
    if columns.date is None:
        return None
    column = table[columns.date]
    if columns.parts:
        column = table.select(joined_parts(columns.parts).alias(columns.date)).to_series()
    if columns.clock is not None:
        column = _joined(column, table[columns.clock])
    try:
        return read_times(column, order=columns.order, local=columns.local)
    except TypeError as error:
        raise fail(where, f"column {shown(columns.date)} {error}") from error


def _joined(dates: pl.Series, clock: pl.Series) -> pl.Series:
    """Dates with their time of the day, as text."""
    written = dates if dates.dtype == pl.String else dates.cast(pl.Date, strict=False)
    text = written.cast(pl.String).str.strip_chars()
    time = clock.cast(pl.String).str.strip_chars()
    time = time.str.replace(r"^(\d{1,2})(?:\.0)?$", "$1:00")  # hours alone
    both = pl.concat_str(pl.lit(text), pl.lit(time), separator=" ")
    return pl.select(both.alias(dates.name)).to_series()


def cells_of(where: object, table: pl.DataFrame, columns: Columns, form: NumberForm) -> Cells:
    """The rows of a table (of `with_names`) as arrays, with the rows of each series, in order of
    appearance.

    form: how the entire table writes numbers (`number_form.resolved`). Rows that are no data
    (`rows.data_rows`) are left out where the table has dates. Raises InputError for columns of the
    wrong kind.
    """
    if table.height == 0:
        raise fail(where, "has column names but no rows")
    row_numbers = None
    if columns.date is not None and not (mask := data_rows(table, columns)).all():
        row_numbers = np.flatnonzero(mask)
        table = table.filter(mask)
    read = read_dates(where, table, columns)
    times = None if read is None else read.times.to_numpy().astype("datetime64[us]")
    columns = _without_words(where, table, columns)
    values = np.empty((table.height, len(columns.targets) + len(columns.known)))
    bad = np.zeros(table.height, dtype=bool)
    for index, name in enumerate((*columns.targets, *columns.known)):
        try:
            values[:, index], wrong = read_column(table[name], form)
        except TypeError as error:
            problem = f"column {shown(name)} holds {error}, not numbers"
            raise fail(where, f"{problem}; leave it out with --targets") from error
        bad |= wrong
    series, by_id = [stem_of(str(where))], [np.arange(table.height)]
    if columns.ids:
        series, by_id = _grouped(table[NAME])
    cells = Cells(where, columns, series, by_id, times, values, bad, table, row_numbers, form=form)
    if read is not None:
        cells = replace(cells, order=read.order, local=read.local, assumed=read.assumed)
    return cells


def _grouped(ids: pl.Series) -> tuple[list[str], list[np.ndarray]]:
    """Names and rows of the series, in order of appearance."""
    codes = ids.rank("dense").to_numpy()
    order = np.argsort(codes, kind="stable")
    by_id = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
    by_id.sort(key=lambda rows: int(rows[0]))
    return [ids[int(rows[0])] for rows in by_id], by_id


def _without_words(where: object, table: pl.DataFrame, columns: Columns) -> Columns:
    """The columns without those that hold words only (remarks, names of weekdays), where the user
    did not choose the targets. A column with a digit in any cell is not left out.
    """
    if not columns.free:
        return columns
    words = [name for name in columns.targets if _only_words(table[name])]
    if not words or len(words) == len(columns.targets):
        return columns
    note("columns", "with words instead of numbers, not used", words)
    return replace(columns, targets=tuple(name for name in columns.targets if name not in words))


def _only_words(column: pl.Series) -> bool:
    if column.dtype != pl.String:
        return column.dtype in (pl.Categorical, pl.Enum)
    text = column.str.strip_chars().str.to_lowercase()
    cells = text.filter(text.is_not_null() & ~text.is_in(MISSING_WORDS))
    # An infinite value is a word to the eye only.
    digits = cells.str.contains(r"\d|^[+-]?inf(?:inity)?$")
    return len(cells) > 0 and not digits.any()


def parts_of(cells: Cells, index: int) -> list[str]:
    """What each column of ids holds for a series."""
    return id_parts(cells.names[index], len(cells.columns.ids))


def _read_npz(
    path: str | Path, targets: Sequence[str] | None, known: Sequence[str], frequency: str | None
) -> Cells:
    """PEMS: `data` of shape (T, N, F). The N sensors are channels "0", "1", ..., and only feature 0
    (flow) is read.
    """
    file = check_file(path, SERIES_SUFFIXES)
    try:
        with zipfile.ZipFile(file) as archive:
            if archive.getinfo("data.npy").file_size > UNPACKED_CAP:
                raise fail(path, f"unpacks to more than {UNPACKED_CAP / 2**30:g} GiB")
        with np.load(file, allow_pickle=False) as arrays:
            data = arrays["data"]
    except KeyError as error:
        raise fail(
            path, "holds no array named 'data'; save it with numpy.savez(file, data=...)"
        ) from error
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zipfile.error) as error:
        if isinstance(error, InputError):
            raise
        cure = "save plain numbers with numpy.savez"
        raise fail(path, f"cannot be read ({reason(error)}); {cure}") from error
    if data.dtype.kind not in "iufb" or data.ndim not in (2, 3) or 0 in data.shape:
        shape = f"'data' has shape {data.shape} of {data.dtype}"
        raise fail(path, f"{shape}; it must be numbers of shape (time, sensors[, features])")
    if known:
        raise fail(path, "an .npz file has no known columns")
    if frequency is None:
        raise fail(path, "an .npz file has no dates; state its clock with --frequency 5m")
    flow = (data if data.ndim == 2 else data[:, :, 0]).astype(np.float64)
    names = [str(i) for i in range(flow.shape[1])]
    require_columns(path, targets or (), names)
    chosen = tuple(targets or names)
    flow = flow[:, [int(name) for name in chosen]]
    flow[~np.isfinite(flow)] = np.nan
    columns, rows = Columns(None, (), chosen, ()), np.arange(len(flow))
    bad = np.zeros(len(flow), dtype=bool)
    return Cells(path, columns, [stem_of(path)], [rows], None, flow, bad, pl.DataFrame())
