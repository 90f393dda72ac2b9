"""Rows of a table that are no data: blank ones, the header once more, a total at the end."""

import numpy as np
import polars as pl

from ...base.account import note
from .columns import Columns

_TOTALS = (
    "total", "totals", "grand total", "sum", "sum total", "summe", "gesamt", "gesamtsumme",
    "gesamtergebnis", "insgesamt", "total général", "total general", "somme", "suma", "suma total",
    "totale", "totaal",
)  # fmt: skip


def data_rows(table: pl.DataFrame, columns: Columns) -> np.ndarray:
    """(n,) whether the rows of a table with dates are data. What is left out goes into the account.

    A total is a row at the end whose date, or name of the series, is such a word.
    """
    cells = table.select(_text(name, table[name].dtype) for name in columns.names)
    blank = (
        cells.select(pl.all_horizontal(pl.all().is_null() | (pl.all() == "")))
        .to_series()
        .to_numpy()
    )
    header = (
        cells.select(
            pl.all_horizontal(pl.col(name) == name for name in cells.columns).fill_null(False)
        )
        .to_series()
        .to_numpy()
    )
    mask = ~(blank | header)
    words = cells.select(pl.col([*columns.ids, *columns.dates]).str.to_lowercase())
    totals = 0
    for row in np.flatnonzero(mask)[::-1].tolist():
        if not any(str(cell).rstrip(":") in _TOTALS for cell in words.row(row)):
            break
        if not mask[:row].any():
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


def _text(name: str, kind: pl.DataType) -> pl.Expr:
    """Cells as text; what has no text of its own is a mark."""
    cell = pl.col(name)
    if kind == pl.String or kind.is_numeric() or isinstance(kind, pl.Categorical | pl.Enum):
        return cell.cast(pl.String).str.strip_chars()
    return pl.when(cell.is_not_null()).then(pl.lit("*")).alias(name)
