"""Between a file and its series: which column is what, and the cells as arrays, not yet checked."""

import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from ...base.errors import InputError, fail, shown
from ..formats.tables import (
    TABLE_SUFFIXES,
    UNPACKED_CAP,
    check_file,
    collect,
    numbers,
    require_columns,
    scan_table,
    stem_of,
    suffix_of,
)
from .clock import read_times

SERIES_SUFFIXES = (*TABLE_SUFFIXES, ".npz")
DATE_NAMES = ("date", "ds", "timestamp", "time", "datetime")
ID_NAME = "unique_id"


@dataclass(frozen=True)
class Columns:
    """Which column of a table is what. `date` None: the table has no dates; `id` None: the table is
    wide.
    """

    date: str | None
    id: str | None
    targets: tuple[str, ...]
    known: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """All columns to read."""
        return [n for n in (self.id, self.date) if n is not None] + [*self.targets, *self.known]


@dataclass(frozen=True)
class Cells:
    """A table as arrays, checked for nothing yet: rows of each series, times (NaT = no date),
    numbers (NaN = none).
    """

    where: object
    columns: Columns
    names: list[str]
    rows: list[np.ndarray]
    times: np.ndarray | None
    values: np.ndarray  # (n, C + K)
    bad: np.ndarray  # (n,) a cell of the row is text
    table: pl.DataFrame
    row_numbers: np.ndarray | None = None  # (n,) rows of the file, when these are only some of them

    def row_label(self, row: int) -> str:
        """What to call a row in a message: rows of a file are counted from 1, below its header."""
        return f"row {(row if self.row_numbers is None else int(self.row_numbers[row])) + 1}"


def find_columns(
    where: object,
    frame: pl.LazyFrame,
    names: Sequence[str],
    date: str | None,
    id_column: str | None,
    targets: Sequence[str] | None,
    known: Sequence[str],
    frequency: str | None,
) -> Columns:
    """Decide what each column is (see `series.read_panel`); `InputError` for missing, repeated or
    undecided ones.
    """
    names = [n for n in names if not n.startswith("__index_level_")]  # what pandas adds to parquet
    require_columns(
        where, [n for n in (date, id_column) if n is not None] + [*(targets or ()), *known], names
    )
    if id_column is None and ID_NAME in names:
        id_column = ID_NAME
    if date is None:
        lower = {n.lower(): n for n in reversed(names)}
        taken = {id_column, *(targets or ()), *known}
        date = next((lower[n] for n in DATE_NAMES if lower.get(n, id_column) not in taken), None)
        if (
            date is None
            and names
            and names[0] not in taken
            and _holds_dates(where, frame, names[0])
        ):
            date = names[0]
    if date is None and frequency is None:
        raise fail(
            where,
            f"there is no column of dates ({', '.join(DATE_NAMES)}); name it with --date, or state the clock of a "
            "table without dates with --frequency 5m",
        )
    used = {date, id_column, *known}
    chosen = tuple(targets) if targets is not None else tuple(n for n in names if n not in used)
    if not chosen:
        raise fail(where, "there is no column left to forecast; name some with --targets")
    twice = [
        n
        for n, count in Counter([date, id_column, *known, *chosen]).items()
        if count > 1 and n is not None
    ]
    if twice:
        raise fail(where, f"column {shown(twice[0])} is asked for twice, in two roles; use it once")
    return Columns(date, id_column, chosen, tuple(known))


def _holds_dates(where: object, frame: pl.LazyFrame, name: str) -> bool:
    """Whether the first rows of a column are all dates (digits alone are a number, not a date)."""
    column = collect(where, frame.select(name).head(100))[name].drop_nulls()
    try:
        return len(column) > 0 and read_times(column).null_count() == 0
    except TypeError as error:
        return "month/day" in str(error)  # dates, though of two readings: said when they are read


def read_cells(
    path: str | Path,
    date: str | None,
    id_column: str | None,
    targets: Sequence[str] | None,
    known: Sequence[str],
    frequency: str | None,
) -> Cells:
    """Read a whole file into arrays; see `series.read_panel` for the arguments."""
    if suffix_of(Path(path)) == ".npz":
        return _read_npz(path, targets, known, frequency)
    frame, names = scan_table(check_file(path, SERIES_SUFFIXES))
    columns = find_columns(path, frame, names, date, id_column, targets, known, frequency)
    return cells_of(path, collect(path, frame.select(columns.names)), columns)


def cells_of(
    where: object, table: pl.DataFrame, columns: Columns, *, slashed: bool = True
) -> Cells:
    """Turn the rows of a table into arrays and find which rows belong to which series (in order of
    appearance).
    """
    if table.height == 0:
        raise fail(where, "has column names but no rows")
    times = None
    if columns.date is not None:
        try:
            times = (
                read_times(table[columns.date], slashed=slashed).to_numpy().astype("datetime64[us]")
            )
        except TypeError as error:
            raise fail(where, f"column {shown(columns.date)} {error}") from error
    values = np.empty((table.height, len(columns.targets) + len(columns.known)))
    bad = np.zeros(table.height, dtype=bool)
    for index, name in enumerate((*columns.targets, *columns.known)):
        try:
            values[:, index], wrong = numbers(table[name])
        except TypeError as error:
            kind = f"column {shown(name)} holds {error}, not numbers"
            raise fail(where, f"{kind}; leave it out with --targets") from error
        bad |= wrong
    if columns.id is None:
        return Cells(
            where,
            columns,
            [stem_of(str(where))],
            [np.arange(table.height)],
            times,
            values,
            bad,
            table,
        )
    ids = table[columns.id].cast(pl.String).fill_null("")
    codes = ids.rank("dense").to_numpy()
    order = np.argsort(codes, kind="stable")
    rows = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
    rows.sort(key=lambda r: int(r[0]))
    return Cells(where, columns, [ids[int(r[0])] for r in rows], rows, times, values, bad, table)


def _read_npz(
    path: str | Path, targets: Sequence[str] | None, known: Sequence[str], frequency: str | None
) -> Cells:
    """PEMS: `data` of shape (T, N, F); the N sensors are channels "0", "1", ..., and feature 0
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
        raise fail(
            path, f"cannot be read ({error}); save plain numbers with numpy.savez"
        ) from error
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
    flow = flow[:, [int(n) for n in chosen]]
    flow[~np.isfinite(flow)] = np.nan
    columns = Columns(None, None, chosen, ())
    rows = [np.arange(len(flow))]
    return Cells(
        path,
        columns,
        [stem_of(path)],
        rows,
        None,
        flow,
        np.zeros(len(flow), dtype=bool),
        pl.DataFrame(),
    )
