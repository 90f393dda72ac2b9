"""Decimal marks of the numbers in a log's text files, which hold for a file as one.

What a file does not say (all its prices are like 1.234) is read as the other files of the log, or
the log of the run, were read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import polars as pl

from ...base.errors import fail, reason
from ..formats.tables_numbers import decimal_commas, numbers
from .log import Log, scan_log
from .schema import Schema

ROWS = 500_000  # of the beginning of a file, which decide


def number_columns(schema: Schema) -> list[str]:
    """The columns that numbers are read from, and nothing else, but for the time."""
    columns = [field.column for field in schema.numeric.values()]
    conditions = [task.label for task in schema.tasks.values()]
    conditions += [task.only_where for task in schema.tasks.values() if task.only_where]
    conditions += [s.where for s in schema.sequences.values() if s.where]
    columns += [c.column for c in conditions if not isinstance(c.equals, str)]
    others = {*schema.id_columns, *(field.column for field in schema.categorical.values())}
    return [column for column in dict.fromkeys(columns) if column not in others]


def commas_of(files: Sequence[str], columns: Sequence[str]) -> dict[str, bool]:
    """Whether numbers of columns have a decimal comma, where files say it; the first one counts.

    Raises InputError for a file that cannot be read.
    """
    decided: dict[str, bool] = {}
    for file in files:
        status = os.stat(file)
        decided = {**_commas(file, tuple(columns), status.st_mtime_ns, status.st_size), **decided}
    return decided


@lru_cache(maxsize=256)
def _commas(file: str, columns: tuple[str, ...], _changed: int, _size: int) -> dict[str, bool]:
    frame, names = scan_log(file)
    present = [name for name in columns if name in names]
    try:
        return decimal_commas(frame.select(present).head(ROWS), present) if present else {}
    except pl.exceptions.PolarsError as error:
        raise fail(file, f"it cannot be read ({reason(error)})") from error


def with_points(
    frame: pl.DataFrame, columns: Sequence[str], file: str, usual: Mapping[str, bool]
) -> pl.DataFrame:
    """A part of a file whose numbers have decimal points. usual: what holds where the file does not
    say it.
    """
    texts = [name for name in columns if name in frame.columns and frame[name].dtype == pl.String]
    if not texts:
        return frame
    decided = {**usual, **commas_of([file], sorted(texts))}
    changed = []
    for name in texts:
        column = frame[name]
        if not decided.get(name) and not column.str.contains(r"\d[,.\s'\u2019]\d").any():
            continue
        values, bad = numbers(column, comma=decided.get(name))
        plain = pl.Series(name, values, nan_to_null=True).cast(pl.String)
        changed.append(pl.select(pl.when(pl.Series(bad)).then(column).otherwise(plain)).to_series())
    return frame.with_columns(column.alias(column.name) for column in changed)


def number_parts(
    log: Log, schema: Schema, columns: Sequence[str], commas: Mapping[str, bool]
) -> Iterator[tuple[pl.DataFrame, str]]:
    """`Log.parts` whose numbers have decimal points. commas: what holds where a file does not say
    it.
    """
    numeric = number_columns(schema)
    for frame, file in log.parts(columns):
        yield with_points(frame, numeric, file, commas), file
