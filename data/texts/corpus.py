"""The texts of a table, for counting words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...base.account import note, recount
from ...base.errors import fail
from ..formats.tables import check_file
from ..text_files import is_text_file, read_text_file
from .table import TextReading, read_text_data


@dataclass(frozen=True)
class Texts:
    """texts: those that are not empty; rows: the row of each in its table, counted from 1."""

    texts: Sequence[str]
    rows: Sequence[int]


def read_texts(path: str, column: str | None = None) -> Texts:
    """The texts of a table, of a folder, or of a text file (.txt) that has one on each line.

    column: the column of texts; None takes one with a usual name, or the only one of long cells.
    Empty texts are left out and noted. Raises InputError where there is no text.
    """
    if Path(path).is_file() and is_text_file(path):
        text = read_text_file(check_file(path)).replace("\r\n", "\n").replace("\r", "\n")
        # Not splitlines, which also cuts texts at form feeds and at separators of Unicode.
        cells = text.removesuffix("\n").split("\n")
        note("read", "texts", count=len(cells))
    else:
        columns = {} if column is None else {"text": column}
        cells = read_text_data(path, TextReading(columns=columns, need_label=False)).texts
    texts = [(row, text) for row, cell in enumerate(cells, 1) if (text := cell.strip())]
    if len(texts) < len(cells):
        note("left out", "empty texts", count=len(cells) - len(texts))
        recount("read", "texts", len(texts))
    if not texts:
        raise fail(path, "all texts are empty")
    return Texts([text for _, text in texts], [row for row, _ in texts])
