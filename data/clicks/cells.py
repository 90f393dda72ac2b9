"""Cells of a click log as numbers, labels and places of ids.

Shapes: n rows of a table, S tasks. All functions take `where`, the file for the error message, and
raise InputError for cells that cannot be what they should be.
"""

import numpy as np
import polars as pl

from ...base.account import note
from ...base.errors import fail, nearest, shown
from ..formats.tables import numbers
from ..formats.tables_codes import without_codes
from .schema import Categorical, Condition, Numeric, Schema
from .vocabulary import FIRST, Vocabulary, clean

# Answers in words to a question whose answer is 1 or 0.
ANSWERS = {"true": 1.0, "yes": 1.0, "t": 1.0, "y": 1.0, "false": 0.0, "no": 0.0, "f": 0.0, "n": 0.0}


def take(
    frame: pl.DataFrame, column: str, where: object, *, lists_allowed: bool = False
) -> pl.Series:
    """A column that the table must have, of a type that cells can be read from."""
    if column not in frame.columns:
        raise fail(where, f"there is no column {shown(column)}{nearest(column, frame.columns)}")
    kind = frame[column].dtype
    listed = isinstance(kind, pl.List | pl.Array)
    if (kind.is_nested() and not (lists_allowed and listed)) or kind in (pl.Binary, pl.Object):
        cure = "; say split in the schema" if listed else ""
        raise fail(where, f"column {shown(column)} holds {kind}, not one value a cell{cure}")
    return frame[column]


def texts(field: Categorical, column: pl.Series) -> pl.Series:
    """The column, cut to its first characters where the field has a prefix."""
    if not field.prefix:
        return column
    text = clean(column, missing_words=field.missing_words).cast(pl.String)
    return text.str.slice(0, field.prefix)


def read_numbers(column: pl.Series, where: object, name: str) -> tuple[np.ndarray, np.ndarray]:
    """float64 (n,), NaN where missing, and a mask (n,) of the cells that are not numbers."""
    if isinstance(column.dtype, pl.Categorical | pl.Enum):
        column = column.cast(pl.String)
    try:
        return numbers(column)
    except TypeError as error:
        problem = f"column {shown(column.name)} of {name} holds {error}, not numbers"
        raise fail(where, problem) from None


def field_numbers(
    field: Numeric, column: pl.Series, where: object, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """`read_numbers` of a field, NaN for what its schema counts as missing, too."""
    words, named = [str(word) for word in field.missing], 0
    if words and column.dtype == pl.String:
        mask = column.str.strip_chars().is_in(words).fill_null(False)
        column, named = column.set(mask, None), int(mask.sum())
    values, bad = read_numbers(column, where, name)
    values, coded = without_codes(values, words)
    if named + coded:
        note("values", f"fields with numbers that count as missing ({', '.join(words)})", [name])
    return values, bad


def places(
    vocabulary: Vocabulary,
    frame: pl.DataFrame,
    column: str,
    where: object,
    *,
    missing_words: bool = True,
) -> np.ndarray:
    """int32 (n,) places of ids in a vocabulary, -1 for unknown or missing ones."""
    codes = vocabulary.codes(take(frame, column, where), missing_words=missing_words)
    return np.maximum(codes - FIRST, -1)


def cell_of(column: pl.Series, row: int) -> str:
    """What a row holds, for an error message."""
    return f"row {row + 1} of this part holds {shown(column[row])}"


def holds(
    frame: pl.DataFrame, condition: Condition, where: object
) -> tuple[np.ndarray, np.ndarray]:
    """Masks (n,): where a condition holds, and where it has no answer, as the cell is empty."""
    column = take(frame, condition.column, where)
    if isinstance(condition.equals, str):
        text = clean(column).cast(pl.String)
        return (text == condition.equals).fill_null(False).to_numpy(), text.is_null().to_numpy()
    values, bad = _answers(column, where)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        problem = f"column {shown(condition.column)}: {cell_of(column, row)}, not a number"
        if condition == Condition(condition.column):
            problem += f" and no answer such as yes; say equals: {column[row]} in the schema"
        raise fail(where, problem)
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


def _answers(column: pl.Series, where: object) -> tuple[np.ndarray, np.ndarray]:
    """As `read_numbers`; true and yes are 1, false and no are 0."""
    values, bad = read_numbers(column, where, "a condition")
    if bad.any():
        words = column.cast(pl.String).str.strip_chars()
        lower = words.str.to_lowercase()
        answers = lower.replace_strict(ANSWERS, default=None, return_dtype=pl.Float64)
        answered = bad & answers.is_not_null().to_numpy()
        values[answered] = answers.to_numpy()[answered]
        for answer in (1, 0):
            used = answered & (values == answer)
            if used.any():
                spelled = words.filter(pl.Series(used)).unique().sort()
                note("values", f"words in {column.name} that count as {answer}", spelled)
        bad = bad & ~answered
    return values, bad


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
