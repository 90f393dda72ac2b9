"""The names that people give to the parts of a data set, in folders, file names and columns."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from ..base.account import note
from ..base.errors import fail, shown
from .columns import SYNONYMS, plain_name

PARTS: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "validate": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""The part (train, validation or test) that a word in lower case means."""
SEARCH_PARTS: Mapping[str, str] = {**PARTS, "query": "query", "gallery": "gallery"}
"""`PARTS`, and the two parts of a test in which pictures are searched for."""

_PART_NAMES = ("part", "split")


def read_part(where: object, cell: str, parts: Mapping[str, str] = PARTS) -> str:
    """The part that a cell of a table names, in upper or lower case.

    Raises `InputError` at `where` for any other text.

    >>> read_part("a.csv: row 1", "Dev")
    'validation'
    """
    if cell.lower() not in parts:
        names = ", ".join(dict.fromkeys(parts.values()))
        raise fail(where, f"{shown(cell)} is none of {names}")
    return parts[cell.lower()]


def without_other_parts(
    table: pl.DataFrame,
    names: Sequence[str],
    parts: Mapping[str, str] = PARTS,
    *,
    fields: Sequence[str] = (),
) -> list[str]:
    """The names of columns without those that are called like parts (fold, set, ...) but hold other
    words; they go into the account as not used. Columns called part or split always stay.

    table: the cells as text. names: of its columns. fields: names that mean something else.
    """
    remaining, other = [], []
    for name in names:
        called = plain_name(name) in SYNONYMS["part"]
        doubtful = called and plain_name(name) not in (*_PART_NAMES, *fields)
        cells = table[name].drop_nulls().unique().to_list() if doubtful else []
        fits = not doubtful or all(cell.lower() in parts for cell in cells if cell)
        (remaining if fits else other).append(name)
    if other:
        note("columns", "not used as parts, since they hold other words", other)
    return remaining


def rows_in(parts: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """The rows whose part is one of `names`, in their order, int64 (n,); all rows for no names."""
    return np.array([row for row, part in enumerate(parts) if not names or part in names], np.int64)
