"""The files of a click log, read part by part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from ...base.account import note
from ...base.errors import fail, shown
from ..formats.tables import (
    TABLE_SUFFIXES,
    collect,
    list_files,
    require_columns,
    scan_table,
    unreadable,
)
from ..formats.tables_typed import DAMAGE
from .schema import Join
from .vocabulary import FIRST, UNSEEN, Vocabulary, clean

PART = 500_000  # rows read at once
LOG_SUFFIXES = (*TABLE_SUFFIXES, ".inter", ".inter.gz")


@dataclass(frozen=True)
class Log:
    """The files of a log in the order of their names, and the folder of the tables it joins."""

    files: tuple[str, ...]
    folder: Path

    @staticmethod
    def open(path: str | Path, folder: Path | None = None) -> Log:
        """The log of a file, a folder or a pattern. Raises InputError where there is none."""
        files = tuple(list_files(path, LOG_SUFFIXES))
        return Log(files, folder or Path(files[0]).parent)

    def parts(self, columns: Sequence[str]) -> Iterator[tuple[pl.DataFrame, str]]:
        """Parts of the log in order with these columns, each with the name of its file.

        Raises InputError for a file without one of the columns, or a damaged one.
        """
        for file in self.files:
            frame, names = scan_log(file)
            require_columns(file, columns, names)
            chosen = frame.select(list(dict.fromkeys(columns)))
            yield from ((part, file) for part in batches(file, chosen))


def scan_log(file: str | Path) -> tuple[pl.LazyFrame, list[str]]:
    """As `scan_table`, also for RecBole's files (tabs; `name:type` in the first line)."""
    frame, names = scan_table(file, (*LOG_SUFFIXES, ".user", ".item"))
    kinds = (":token", ":float", ":token_seq", ":float_seq")
    if all(name.endswith(kinds) for name in names):
        plain = [name.rsplit(":", 1)[0] for name in names]
        return frame.rename(dict(zip(names, plain))), plain
    return frame, names


def count_rows(file: str) -> int:
    """Rows of a table; of parquet from its last bytes."""
    return int(collect(file, scan_log(file)[0].select(pl.len())).item())


def batches(where: object, frame: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    """A lazy table in parts of PART rows. Raises InputError where it cannot be read."""
    parts = iter(frame.collect_batches(chunk_size=PART, maintain_order=True))
    while True:
        try:
            part = next(parts, None)
        except DAMAGE as error:
            raise unreadable(where, error) from error
        if part is None:
            return
        if part.height:
            yield part


class JoinedTable(NamedTuple):
    """A table of attributes of users or items. on: its column of ids; side: "user" or "item"."""

    on: str
    side: str
    frame: pl.DataFrame
    path: str


def joined(log: Log, join: Join, user: str | None) -> JoinedTable:
    """A table that the schema joins. user: the log's column of users.

    Raises InputError where the table cannot be read or has an id twice.
    """
    path = join.table if Path(join.table).is_absolute() else str(log.folder / join.table)
    frame, names = scan_log(path)
    require_columns(path, [join.on], names)
    table = collect(path, frame)
    ids = clean(table[join.on]).cast(pl.String)
    if (repeated := ids.filter(ids.is_duplicated() & ids.is_not_null())).len():
        problem = f"{join.on} {shown(repeated[0])} appears more than once; keep one row each"
        raise fail(path, problem)
    return JoinedTable(join.on, "user" if join.on == user else "item", table, path)


def with_table(ids: Vocabulary, table: JoinedTable, missing_words: bool) -> Vocabulary:
    """The users or items of a log, with those that only a joined table has at the end.

    An id that the table spells as another type of column would (7.0 for 7) is not a new one. Raises
    InputError where the table has none of the log's.
    """
    cells = table.frame[table.on]
    codes = ids.codes(cells, missing_words=missing_words)
    matched = np.unique(codes[codes >= FIRST])
    name = Path(table.path).name
    if len(ids.keys) and not len(matched):
        first = shown(ids.keys[0])
        problem = f"column {shown(table.on)} holds no {table.side} of the log, such as {first}"
        raise fail(table.path, f"{problem}; write the ids alike in both")
    if len(matched) < len(ids.keys):
        note("values", f"{table.side}s have no row in {name}", count=len(ids.keys) - len(matched))
    return ids.grown(cells.filter(pl.Series(codes == UNSEEN)), missing_words=missing_words)
