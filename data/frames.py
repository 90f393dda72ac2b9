"""Tables that Python holds in memory (polars, pandas, arrays by name), written for the readers."""

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from ..base.account import note
from ..base.errors import InputError, reason, shown
from ..base.files import write_aside


def write_frame(frame: object, path: Path) -> None:
    """Write a table in memory as a parquet file, with its columns in order.

    frame: a polars DataFrame, LazyFrame, a pandas DataFrame, or a mapping of names
    to arrays or lists of one length. An index of pandas that has a name, or holds dates,
    becomes the first column; another one is left out (noted in the account unless it only counts
    the rows). Names of columns become text.

    Raises InputError for anything else, for columns of unequal length or mixed kinds, for two
    columns of one name, and where the file cannot be written.
    """
    try:
        if isinstance(frame, pl.LazyFrame):
            lazy = frame
            write_aside(path, lambda temporary: lazy.sink_parquet(temporary))
            return
        table = _as_polars(frame)
    except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the table cannot be taken ({reason(error)})") from error
    if not table.width:
        raise InputError("the table has no columns")
    write_aside(path, lambda temporary: table.write_parquet(temporary))


def is_frame(value: object) -> bool:
    """Whether `write_frame` takes a value of this type."""
    if isinstance(value, pl.DataFrame | pl.LazyFrame | Mapping):
        return True
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.DataFrame)


def _as_polars(frame: object) -> pl.DataFrame:
    if isinstance(frame, pl.DataFrame):
        return frame
    if isinstance(frame, Mapping):
        return pl.DataFrame({str(name): _column(str(name), frame[name]) for name in frame})
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(frame, pandas.DataFrame):
        return _from_pandas(frame, pandas)
    kinds = "give a DataFrame of polars or pandas, arrays by name, or a file"
    raise InputError(f"a {type(frame).__name__} is no table; {kinds}")


# pandas is no dependency: its objects are reached through the module that the caller imported.
def _from_pandas(frame, pandas) -> pl.DataFrame:
    frame = _index_as_columns(frame, pandas)
    names = ["_".join(map(str, n)) if isinstance(n, tuple) else str(n) for n in frame.columns]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"the table has two columns {shown(twice[0])}; rename one of them")
    columns = [_pandas_column(name, frame.iloc[:, k], pandas) for k, name in enumerate(names)]
    return pl.DataFrame(columns)


def _index_as_columns(frame, pandas):
    """A pandas table whose index has become columns, or is left out."""
    index = frame.index
    dates = isinstance(index, pandas.DatetimeIndex | pandas.PeriodIndex)
    if index.nlevels == 1 and index.name is None and dates:
        index = index.rename("date" if "date" not in frame.columns else "index")
    if index.nlevels > 1 or index.name is not None:
        named = [name for name in index.names if name is not None]
        if twice := [name for name in named if name in frame.columns]:
            raise InputError(
                f"the table has {shown(twice[0])} as a column and as its index; rename one"
            )
        if len(named) < index.nlevels:
            cure = "name it or call reset_index()"
            raise InputError(f"the table: a level of its index has no name; {cure}")
        return frame.set_axis(index).reset_index()
    if not isinstance(index, pandas.RangeIndex) and index.dtype.kind not in "iu":
        note("left out", "index without a name; name it to have it read", count=1)
    return frame.reset_index(drop=True)


def _pandas_column(name: str, column, pandas) -> pl.Series:
    """A column of pandas: numbers and times as they are, NaN and NaT missing, all else as text or
    whatever its cells are.
    """
    if isinstance(column.dtype, pandas.PeriodDtype):
        column = column.dt.to_timestamp()
    if isinstance(column.dtype, pandas.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    zone = getattr(column.dt, "tz", None) if column.dtype.kind == "M" else None
    if zone is not None:
        plain = column.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()
        return pl.Series(name, plain).dt.replace_time_zone("UTC")
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biufmM":
        return pl.Series(name, column.to_numpy(), nan_to_null=True)
    cells = [None if missing else cell for cell, missing in zip(column, column.isna(), strict=True)]
    return _column(name, cells)


def _column(name: str, cells: object) -> pl.Series:
    """A column of an array, a list or a Series. Raises InputError for cells of several kinds."""
    try:
        if isinstance(cells, pl.Series):
            return cells.alias(name)
        if hasattr(cells, "to_numpy") and not isinstance(cells, np.ndarray):
            cells = cells.to_numpy()  # type: ignore[union-attr]  (a Series of pandas)
        array = isinstance(cells, np.ndarray)
        if array and cells.dtype.kind in "biufmM":
            return pl.Series(name, cells, nan_to_null=cells.dtype.kind == "f" and cells.ndim == 1)
        return pl.Series(name, cells.tolist() if array else list(cells))  # type: ignore[call-overload]
    except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError) as error:
        problem = f"column {shown(name)} of the table cannot be read ({reason(error)})"
        raise InputError(f"{problem}; give all its cells one type") from error
