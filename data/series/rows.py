"""Rows of a table that are no data: blank ones, the header once more, a total at the end."""

from collections.abc import Mapping

import numpy as np
import polars as pl

from ...base.account import note
from .columns import Columns

_TOTALS = (
    "total", "totals", "grand total", "sum", "sum total", "summe", "gesamt", "gesamtsumme",
    "gesamtergebnis", "insgesamt", "total général", "total general", "somme", "suma", "suma total",
    "totale", "totaal",
)  # fmt: skip
_MOST_TOTALS = 10  # rows


def data_rows(table: pl.DataFrame, columns: Columns) -> np.ndarray:
    """(n,) whether the rows of a table with dates are data. What is left out goes into the account.

    A total is a row at the end with such a word in place of the date, or as the name of a series
    where the date is empty.
    """
    blank = table.select(
        pl.all_horizontal(_is_blank(name, table[name].dtype) for name in columns.names)
    ).to_series()
    header = pl.repeat(False, table.height, eager=True)
    if all(table[name].dtype == pl.String for name in columns.names):
        names = (pl.col(name).str.strip_chars() == name for name in columns.names)
        header = table.select(pl.all_horizontal(names).fill_null(False)).to_series()
    mask = ~(blank | header).to_numpy()
    totals = 0
    last = np.flatnonzero(mask)[-_MOST_TOTALS:]
    for row in last[:0:-1].tolist():
        if not _is_total(table.row(row, named=True), columns):
            break
        mask[row] = False
        totals += 1
    if mask.any():
        for count, what in (
            (blank.sum(), "blank rows"),
            (header.sum(), "rows that repeat the header"),
            (totals, "rows of totals at the end"),
        ):
            if count:
                note("left out", what, count=int(count))
    return mask if mask.any() else np.ones(len(mask), dtype=bool)


def _is_blank(name: str, kind: pl.DataType) -> pl.Expr:
    null = pl.col(name).is_null()
    return null | (pl.col(name).str.strip_chars() == "") if kind == pl.String else null


def _is_total(row: Mapping[str, object], columns: Columns) -> bool:
    dates, names = ([row[name] for name in among] for among in (columns.dates, columns.ids))
    return any(map(_is_word, dates)) or (
        any(map(_is_word, names)) and all(str(cell or "").strip() == "" for cell in dates)
    )


def _is_word(cell: object) -> bool:
    return isinstance(cell, str) and cell.strip().rstrip(":").lower() in _TOTALS
