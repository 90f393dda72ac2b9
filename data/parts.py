"""The names that people give to the parts of a data set, in folders, file names and columns."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np
import polars as pl

from ..base.account import note
from ..base.errors import fail, shown
from .columns import is_named, plain_name

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
    names: Sequence[str],
    cells: Callable[[str], Iterable[str | None]],
    parts: Mapping[str, str] = PARTS,
    *,
    fields: Sequence[str] = (),
    chosen: Collection[str] = (),
) -> list[str]:
    """The names of columns without those that are called like parts (fold, set, ...) but hold
    mostly other words; they go into the account as not used. Columns called part or split always
    stay.

    cells: gives those of a column, as text. fields: names that mean something else. chosen: columns
    that the user named, which stay.
    """
    remaining, other = [], []
    for name in names:
        settled = name in chosen or plain_name(name) in (*_PART_NAMES, *fields)
        doubtful = called_like_parts(name) and not settled
        words = {cell.strip().lower() for cell in cells(name) if cell} - {""} if doubtful else set()
        # One wrong word among those of parts is a mistake, which is said when the parts are read.
        fits = not doubtful or len(words & set(parts)) * 2 >= max(1, len(words))
        (remaining if fits else other).append(name)
    if other:
        note("columns", "not used as parts, since they hold other words", other)
    return remaining


def called_like_parts(name: str) -> bool:
    """Whether a column has one of the names that columns of parts have."""
    return is_named(name, "part")


def text_of(table: pl.DataFrame) -> Callable[[str], list[str | None]]:
    """The distinct cells of a column of text, for `without_other_parts`."""
    return lambda name: table[name].unique().to_list()


def note_other_folders(names: Sequence[str], parts: Sequence[str]) -> None:
    """Name the folders whose items are of no part where others lie in folders of parts: eval/, for
    one, is validation to some people and test to others.

    names: of the items, below the folder of the data; parts: of each, "" for none.
    """
    if not any(parts):
        return
    other = {name.split("/")[0]: None for name, part in zip(names, parts) if not part}
    if other:
        note("items", "folders that are called like no part, beside those of parts", other)


def rows_in(parts: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """The rows whose part is one of `names`, in their order, int64 (n,); all rows for no names."""
    return np.array([row for row, part in enumerate(parts) if not names or part in names], np.int64)
