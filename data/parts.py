"""The names that people give to the parts of a data set, in folders, file names and columns."""

from collections.abc import Mapping, Sequence

import numpy as np

from ..base.errors import fail, shown

PARTS: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""The part (train, validation or test) that a word in lower case means."""
SEARCH_PARTS: Mapping[str, str] = {**PARTS, "query": "query", "gallery": "gallery"}
"""`PARTS`, and the two parts of a test in which pictures are searched for."""


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


def rows_in(parts: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """The rows whose part is one of `names`, in their order, int64 (n,); all rows for no names."""
    return np.array([row for row, part in enumerate(parts) if not names or part in names], np.int64)
