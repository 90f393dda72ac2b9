"""The texts of a table, for counting words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ...base.account import note
from ...base.errors import fail, shown
from ...base.files import read_plain
from ..formats.tables import check_file, collect, require_columns, scan_table, suffix_of
from ..formats.tables_text import text_encoding

TEXT_NAMES = ("text", "texts", "document", "content", "body", "description", "abstract", "review")
MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class Texts:
    """texts: those that are not empty; rows: the row of each in its table, counted from 1."""

    texts: Sequence[str]
    rows: Sequence[int]


def read_texts(path: str, column: str | None = None) -> Texts:
    """The texts of a table, or of a text file (.txt) that has one on each line.

    column: the column of texts; None takes one with a usual name, else the one with the longest
    texts. Empty texts are left out and noted. Raises InputError where there is no text.
    """
    if suffix_of(check_file(path)) == ".txt":
        cells, name = _lines(path), "0"
    else:
        frame, names = scan_table(path)
        if column is not None:
            require_columns(path, [column], names)
        table = collect(path, frame)
        name = column or _text_column(path, table)
        cells = [None if cell is None else str(cell) for cell in table[name]]
    texts = [(row, text) for row, cell in enumerate(cells, 1) if (text := (cell or "").strip())]
    note("read", "texts", count=len(texts))
    if len(texts) < len(cells):
        note("left out", "empty texts", count=len(cells) - len(texts))
    if not texts:
        raise fail(path, f"column {shown(name)} holds no text; name another with --column")
    return Texts([text for _, text in texts], [row for row, _ in texts])


def plain_text(path: str, file: Path) -> str:
    """The content of a file of text. Raises InputError where its encoding is not clear."""
    content = read_plain(file, MOST_BYTES)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode(text_encoding(path, content))


def _lines(path: str) -> list[str | None]:
    return list(plain_text(path, Path(path)).splitlines())


def _text_column(path: str, table: pl.DataFrame) -> str:
    """The column that seems to hold the texts; which one is noted."""
    columns = [name for name in table.columns if table[name].dtype == pl.String]
    if not columns:
        raise fail(path, "has no column of texts; --column names one")
    named = [name for name in columns if name.lower() in TEXT_NAMES]
    named.sort(key=lambda name: TEXT_NAMES.index(name.lower()))
    lengths = {name: table[name].str.len_chars().mean() or 0 for name in columns}
    chosen = named[0] if named else max(columns, key=lambda name: lengths[name])
    if table.width > 1:
        note("columns", f"read as texts: {chosen} (--column names another)")
    return chosen
