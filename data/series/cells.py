"""The cells of a file as arrays, not yet checked."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from ...base.errors import InputError, fail, reason, shown
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
from .columns import ColumnChoice, Columns, find_columns
from .dates import read_times

SERIES_SUFFIXES = (*TABLE_SUFFIXES, ".npz")


@dataclass(frozen=True)
class Cells:
    """A table of n rows as arrays.

    where        the file, for messages
    names        of the series
    rows         of each series: the rows of the table, in its order
    times        (n,) datetime64[us], NaT where a cell is no date; None for a table without dates
    values       (n, C + K), targets and known columns, NaN where a cell is no number
    bad          (n,), whether a cell of the row is text
    table        the cells themselves
    row_numbers  (n,) rows of the file, where the table has only some of them
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

    def row_label(self, row: int) -> str:
        """A row's name in messages: rows of a file are counted from 1, below its header."""
        return f"row {(row if self.row_numbers is None else int(self.row_numbers[row])) + 1}"


def read_cells(path: str | Path, choice: ColumnChoice, frequency: str | None) -> Cells:
    """Read an entire file into arrays. Raises InputError as `series.read_panel` does."""
    if suffix_of(Path(path)) == ".npz":
        return _read_npz(path, choice.targets, choice.known, frequency)
    frame, names = scan_table(check_file(path, SERIES_SUFFIXES))
    columns = find_columns(path, frame, names, choice, frequency)
    return cells_of(path, collect(path, frame.select(columns.names)), columns)


def cells_of(
    where: object, table: pl.DataFrame, columns: Columns, *, slashed: bool = True
) -> Cells:
    """The rows of a table as arrays, with the rows of each series, in order of appearance.

    slashed: as in `dates.read_times`. Raises InputError for columns of the wrong kind.
    """
    if table.height == 0:
        raise fail(where, "has column names but no rows")
    times = None
    if columns.date is not None:
        try:
            instants = read_times(table[columns.date], slashed=slashed)
            times = instants.to_numpy().astype("datetime64[us]")
        except TypeError as error:
            raise fail(where, f"column {shown(columns.date)} {error}") from error
    values = np.empty((table.height, len(columns.targets) + len(columns.known)))
    bad = np.zeros(table.height, dtype=bool)
    for index, name in enumerate((*columns.targets, *columns.known)):
        try:
            values[:, index], wrong = numbers(table[name])
        except TypeError as error:
            problem = f"column {shown(name)} holds {error}, not numbers"
            raise fail(where, f"{problem}; leave it out with --targets") from error
        bad |= wrong
    if columns.id is None:
        name, rows = stem_of(str(where)), np.arange(table.height)
        return Cells(where, columns, [name], [rows], times, values, bad, table)
    ids = table[columns.id].cast(pl.String).fill_null("")
    codes = ids.rank("dense").to_numpy()
    order = np.argsort(codes, kind="stable")
    by_id = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
    by_id.sort(key=lambda rows: int(rows[0]))
    series = [ids[int(rows[0])] for rows in by_id]
    return Cells(where, columns, series, by_id, times, values, bad, table)


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
    columns, rows = Columns(None, None, chosen, ()), np.arange(len(flow))
    bad = np.zeros(len(flow), dtype=bool)
    return Cells(path, columns, [stem_of(path)], [rows], None, flow, bad, pl.DataFrame())
