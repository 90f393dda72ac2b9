"""A folder of items with a table that lists some of them: which are read, and what is said of it.

The rule is one for all tasks: a training on such a folder reads what its table lists and names what
it does not; a prediction for a folder takes all of its items, and one for a table those it lists.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from ..base.account import note, opened
from ..base.errors import InputError, fail, reason
from ..base.own_files import own_names
from .columns import find_columns
from .formats.tables import TABLE_SUFFIXES, scan_table, stem_of, suffix_of

LABELS = "labels"
"""How the table of a folder is called, with the ending of any table."""


def labels_table(folder: str | os.PathLike[str]) -> Path | None:
    """The table labels.csv (.xlsx, .parquet, ...) in a folder, None where there is none.

    Raises InputError where the folder cannot be listed.
    """
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise fail(folder, f"cannot be listed ({reason(error)}); check the permissions") from error
    tables = (
        Path(folder, name)
        for name in sorted(names, key=lambda name: not name.lower().endswith(".csv"))
        if stem_of(Path(name)).lower() == LABELS and suffix_of(Path(name)) in TABLE_SUFFIXES
    )
    return next((path for path in tables if path.suffix.lower() != ".txt" and path.is_file()), None)


def fitting_table(
    folder: str | os.PathLike[str], required: Sequence[str], chosen: Mapping[str, str]
) -> Path | None:
    """The table of a folder, if it has the columns that are required; one without them goes into
    the account, since a folder may have a table for another purpose.

    required: fields of `columns.SYNONYMS`. chosen: columns that the user named, by field.
    """
    table = labels_table(folder)
    if table is None or chosen:
        return table
    try:
        with opened():  # what the columns are is noted when the table is read
            find_columns(table.name, scan_table(table)[1], required, required=required)
    except InputError as error:
        note("left out", f"{table.name} is not read: {str(error).removeprefix(f'{table.name}: ')}")
        return None
    return table


def note_whole_folder(path: str | os.PathLike[str], items: str) -> None:
    """Note that a prediction for a folder takes all of its items, where a table in it lists some.

    items: what they are called, in the plural.
    """
    if os.path.isdir(path) and (table := labels_table(path)) is not None:
        note(
            "assumed",
            f"all {items} of the folder are predicted; {table.name}, as --input, gives those that "
            "it lists",
        )


def note_unlisted(
    where: str | os.PathLike[str],
    files: Iterable[str],
    suffixes: Collection[str],
    items: str,
    *,
    belongs: Callable[[str], bool] = lambda name: True,
) -> None:
    """Note the files that lie in the folders of listed items and are not listed themselves.

    where: the table, or the folder of several. files: those that are listed. suffixes: endings of
    such files, in lower case. belongs: whether a file, by its path, is one of the items at all.
    """
    folders: dict[str, set[str]] = {}
    for file in files:
        home, name = os.path.split(file)
        folders.setdefault(home, set()).add(name)
    base = where if os.path.isdir(where) else os.path.dirname(where) or "."
    unlisted: list[str] = []
    for folder, listed in folders.items():
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue  # what is listed there fails when it is read
        results = own_names(folder or ".", names)
        unlisted += (
            os.path.relpath(os.path.join(folder, name), base).replace(os.sep, "/")
            for name in names
            if name.lower().endswith(tuple(suffixes))
            and not name.startswith(".")
            and name not in listed
            and name not in results
            and belongs(os.path.join(folder, name))
        )
    if unlisted:
        table = "no table of the folder lists"
        if not os.path.isdir(where):
            table = f"{os.path.basename(where)} does not list"
        note("left out", f"{items} that {table}", sorted(unlisted))
