"""Cells of a click log as numbers, times, lists, labels and places of ids.

Shapes: n rows of a table, S tasks. All functions take `where`, the file for the error message, and
raise InputError for cells that cannot be what they should be.
"""

import numpy as np
import polars as pl

from ...base.errors import fail, nearest, shown
from ..formats.tables import numbers
from .schema import UNITS, Categorical, Condition, Schema
from .vocabulary import FIRST, MISSING, Vocabulary, clean

NOW = (1 << 32) - 1  # the second of a row without a time: after all events


def take(frame: pl.DataFrame, column: str, where: object) -> pl.Series:
    """A column that the table must have."""
    if column not in frame.columns:
        raise fail(where, f"there is no column {shown(column)}{nearest(column, frame.columns)}")
    return frame[column]


def texts(field: Categorical, column: pl.Series) -> pl.Series:
    """The column, cut to its first characters where the field has a prefix."""
    return clean(column).cast(pl.String).str.slice(0, field.prefix) if field.prefix else column


def lists_of(column: pl.Series, mark: str) -> pl.Series:
    """Lists of a column that holds lists, or text with `mark` between the values."""
    if isinstance(column.dtype, pl.List | pl.Array):
        return column.cast(pl.List(column.dtype.inner))  # type: ignore[attr-defined]
    lists = clean(column).cast(pl.String).str.split(mark)
    return lists.list.eval(pl.element().filter(pl.element() != ""))


def lengths_of(lists: pl.Series) -> np.ndarray:
    """int64 (n,): how many values each list has."""
    return lists.list.len().fill_null(0).to_numpy().astype(np.int64)


def flat(lists: pl.Series) -> pl.Series:
    """The values of all lists, one list after the other."""
    return lists.explode(empty_as_null=False, keep_nulls=False)


def read_numbers(column: pl.Series, where: object, name: str) -> tuple[np.ndarray, np.ndarray]:
    """float64 (n,), NaN where missing, and a mask (n,) of the cells that are not numbers."""
    try:
        return numbers(column)
    except TypeError as error:
        problem = f"column {shown(column.name)} of {name} holds {error}, not numbers"
        raise fail(where, problem) from None


def places(vocabulary: Vocabulary, frame: pl.DataFrame, column: str, where: object) -> np.ndarray:
    """int32 (n,) places of ids in a vocabulary, -1 for unknown or missing ones."""
    return np.maximum(vocabulary.codes(take(frame, column, where)) - FIRST, -1)


def seconds(
    frame: pl.DataFrame, schema: Schema, where: object, *, needed: bool
) -> tuple[np.ndarray, np.ndarray]:
    """int64 (n,) seconds since 1970, and a mask (n,) of the cells that are not times.

    A row without a time is NOW. needed: raise InputError for such rows instead.
    """
    rows = frame.height
    if schema.time is None or (schema.time not in frame.columns and not needed):
        return np.full(rows, NOW), np.zeros(rows, bool)
    column = take(frame, schema.time, where)
    if column.dtype.is_temporal():
        column = column.cast(pl.Datetime("us")).dt.epoch("s")
        values, bad = numbers(column)
    elif column.dtype.is_integer():
        values, bad = column.cast(pl.Int64).to_numpy(), np.zeros(rows, bool)
        integers = values // UNITS[schema.unit] if column.null_count() == 0 else None
        if integers is not None and len(integers) and integers.min() >= 0 and integers.max() < NOW:
            return integers, bad
        values = values / UNITS[schema.unit]
    else:
        values, bad = read_numbers(column, where, "time")
        values = np.floor(values / UNITS[schema.unit])
    wrong = bad | np.isnan(values) | (values < 0) | (values >= NOW)
    if needed and wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        cell = f"time {shown(column.name)}: {_cell(column, row)}"
        problem = f"{cell}, not a time in {schema.unit} since 1970"
        raise fail(where, f"{problem}; mend or remove such rows, or name the unit")
    return np.where(wrong, NOW, np.nan_to_num(values)).astype(np.int64), bad


def _cell(column: pl.Series, row: int) -> str:
    return f"row {row + 1} of this part holds {shown(column[row])}"


def time_codes(name: str, time: np.ndarray) -> np.ndarray:
    """int32 codes (n,) of the hour, weekday or month of seconds (n,), in UTC."""
    moment = pl.from_epoch(pl.Series(time), "s")
    part = {"hour": moment.dt.hour, "weekday": moment.dt.weekday, "month": moment.dt.month}[name]()
    codes = part.to_numpy().astype(np.int32) + FIRST - (0 if name == "hour" else 1)
    codes[time == NOW] = MISSING
    return codes


def holds(
    frame: pl.DataFrame, condition: Condition, where: object
) -> tuple[np.ndarray, np.ndarray]:
    """Masks (n,): where a condition holds, and where it has no answer, as the cell is empty."""
    column = take(frame, condition.column, where)
    if isinstance(condition.equals, str):
        text = clean(column).cast(pl.String)
        return (text == condition.equals).fill_null(False).to_numpy(), text.is_null().to_numpy()
    values, bad = read_numbers(column, where, "a condition")
    if bad.any():
        cell = _cell(column, int(np.flatnonzero(bad)[0]))
        raise fail(where, f"column {shown(condition.column)}: {cell}, not a number")
    empty = np.isnan(values)
    if condition.at_least is not None:
        return values >= condition.at_least, empty
    if condition.at_most is not None:
        return values <= condition.at_most, empty
    if condition.equals is not None:
        return values == condition.equals, empty
    odd = ~empty & (values != 0) & (values != 1)
    if odd.any():
        row = int(np.flatnonzero(odd)[0])
        cell = f"row {row + 1} of this part holds {values[row]:g}"
        raise fail(
            where,
            f"column {shown(condition.column)}: {cell}, not 0 or 1; "
            "say at_least or equals in the schema",
        )
    return values == 1, empty


def task_labels(frame: pl.DataFrame, schema: Schema, where: object) -> np.ndarray:
    """int8 (n, S): 1, 0, or -1 where a task does not count."""
    labels = np.empty((frame.height, len(schema.tasks)), np.int8)
    for place, task in enumerate(schema.tasks.values()):
        positive, empty = holds(frame, task.label, where)
        if task.only_where is not None:
            counts, _ = holds(frame, task.only_where, where)
            empty = empty | ~counts
        labels[:, place] = np.where(empty, -1, positive)
    return labels
