"""Decimal marks and units of the numbers in a log's text files, which hold for a file as one.

What a file does not say (all its prices are like 1.234) is read as the other files of the log, or
the log of the run, were read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import polars as pl

from ...base.errors import fail, reason, shown
from ..formats.tables import has_semicolons
from ..formats.tables_numbers import decimal_marks, numbers
from ..formats.tables_units import column_units
from .log import Log, scan_log
from .schema import Schema

ROWS = 500_000  # of the beginning of a file, which decide


@dataclass(frozen=True)
class NumberMarks:
    """commas: whether numbers of columns have a decimal comma; units: of columns that have one."""

    commas: Mapping[str, bool] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)

    def before(self, other: NumberMarks) -> NumberMarks:
        """These marks, and those of `other` for columns that have none here."""
        return NumberMarks({**other.commas, **self.commas}, {**other.units, **self.units})


def number_columns(schema: Schema) -> list[str]:
    """The columns that numbers are read from, and nothing else, but for the time."""
    columns = [field.column for field in schema.numeric.values()]
    conditions = [task.label for task in schema.tasks.values()]
    conditions += [task.only_where for task in schema.tasks.values() if task.only_where]
    conditions += [s.where for s in schema.sequences.values() if s.where]
    columns += [c.column for c in conditions if not isinstance(c.equals, str)]
    others = {*schema.id_columns, *(field.column for field in schema.categorical.values())}
    return [column for column in dict.fromkeys(columns) if column not in others]


def marks_of(files: Sequence[str], columns: Sequence[str]) -> NumberMarks:
    """How files write the numbers of columns, as far as they say it; the first file counts.

    Raises InputError for a file that cannot be read.
    """
    decided = NumberMarks()
    for file in files:
        status = os.stat(file)
        newer = _marks(file, tuple(columns), status.st_mtime_ns, status.st_size)
        decided = decided.before(newer)
    return decided


@lru_cache(maxsize=256)
def _marks(file: str, columns: tuple[str, ...], _changed: int, _size: int) -> NumberMarks:
    frame, names = scan_log(file)
    present = [name for name in columns if name in names]
    if not present:
        return NumberMarks()
    head = frame.select(present).head(ROWS)
    try:
        commas = decimal_marks(head, present, semicolons=has_semicolons(file)).commas
        return NumberMarks(commas, column_units(head, present))
    except pl.exceptions.PolarsError as error:
        raise fail(file, f"it cannot be read ({reason(error)})") from error


def with_points(
    frame: pl.DataFrame, columns: Sequence[str], file: str, usual: NumberMarks
) -> pl.DataFrame:
    """A part of a file whose numbers have decimal points and no units. usual: what holds where the
    file does not say it. Raises InputError for another unit than the usual one.
    """
    texts = [name for name in columns if name in frame.columns and frame[name].dtype == pl.String]
    if not texts:
        return frame
    of_file = marks_of([file], sorted(texts))
    for name, unit in of_file.units.items():
        if unit and (usual.units.get(name) or unit) != unit:
            problem = f"column {shown(name)} is in {shown(unit)}, not in {shown(usual.units[name])}"
            raise fail(file, f"{problem} as the other rows of the log; convert it")
    decided, changed = of_file.before(usual), []
    for name in texts:
        column, comma, unit = frame[name], decided.commas.get(name), of_file.units.get(name)
        plain_ones = not comma and not unit
        if plain_ones and not column.str.contains(r"\d[,.\s'\u2019]\d|[()]|\d-").any():
            continue
        values, bad = numbers(column, comma=comma, unit=unit)
        plain = pl.Series(name, values, nan_to_null=True).cast(pl.String)
        changed.append(pl.select(pl.when(pl.Series(bad)).then(column).otherwise(plain)).to_series())
    return frame.with_columns(column.alias(column.name) for column in changed)


def number_parts(
    log: Log, schema: Schema, columns: Sequence[str], marks: NumberMarks
) -> Iterator[tuple[pl.DataFrame, str]]:
    """`Log.parts` whose numbers have decimal points. marks: what holds where a file does not say
    it.
    """
    numeric = number_columns(schema)
    for frame, file in log.parts(columns):
        yield with_points(frame, numeric, file, marks), file
