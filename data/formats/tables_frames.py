"""Tables in memory, of polars or pandas, written to a file that the readers of tables take."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import polars as pl

from ...base.errors import InputError, reason, shown
from ...base.files import write_aside


def is_frame(value: object) -> bool:
    """Whether a value is a table of polars or pandas."""
    if isinstance(value, pl.DataFrame | pl.LazyFrame):
        return True
    pandas = sys.modules.get("pandas")  # without it, no value is a table of it
    return pandas is not None and isinstance(value, pandas.DataFrame)


def write_frame(frame: object, path: Path) -> None:
    """Write a table of polars or pandas as Parquet, aside first.

    An index of pandas that is more than the numbers of the rows becomes a column: by its name, or
    "date" if it holds dates. Raises InputError for what is no such table.
    """
    table = _polars(frame)
    if not table.width:
        raise InputError("the table has no columns")
    write_aside(path, table.write_parquet)


def _polars(frame: object) -> pl.DataFrame:
    if isinstance(frame, pl.LazyFrame):
        return frame.collect()
    if isinstance(frame, pl.DataFrame):
        return frame
    if not is_frame(frame):
        kind = type(frame).__name__
        raise InputError(f"a {kind} is no table; give a DataFrame of polars or pandas, or a file")
    import pandas as pd

    assert isinstance(frame, pd.DataFrame)
    if not isinstance(frame.index, pd.RangeIndex):
        dates = isinstance(frame.index, pd.DatetimeIndex) and frame.index.name is None
        named = dates or any(name is not None for name in frame.index.names)
        frame = (frame.rename_axis("date") if dates else frame).reset_index(drop=not named)
    names = list(map(str, frame.columns))
    if doubled := [name for name, count in Counter(names).items() if count > 1]:
        raise InputError(f"the table has two columns {shown(doubled[0])}; rename one of them")
    columns = {}
    for place, name in enumerate(names):
        series = frame.iloc[:, place]
        try:
            columns[name] = pl.Series(name, pl.from_pandas(series, nan_to_null=True))
        except Exception as error:  # of pyarrow or polars, by what the cells are
            raise InputError(
                f"column {shown(name)} of the table cannot be read ({reason(error)}); give all its "
                "cells one type"
            ) from None
    return pl.DataFrame(columns)
