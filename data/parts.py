"""The names that people give to the parts of a data set, in folders, file names and columns."""

from collections.abc import Mapping

from ..base.errors import InputError, fail, shown

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
    part = parts.get(cell.lower())
    if part is None:
        raise unknown_part(where, cell, parts)
    return part


def unknown_part(where: object, cell: str, parts: Mapping[str, str] = PARTS) -> InputError:
    """The error that a cell names none of the parts."""
    return fail(where, f"{shown(cell)} is none of {', '.join(dict.fromkeys(parts.values()))}")
