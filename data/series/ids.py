"""The columns that name the series of a long table."""

from collections.abc import Sequence
from itertools import combinations

import polars as pl

from ..columns import SYNONYMS, plain_name
from ..formats.tables import collect

ID_NAME = "unique_id"
_MARK = "/"  # between the parts of a name that several columns make
_REPEATS = 1.2  # rows per date of a long table, at least; fewer are rows that are there twice
_MOST = 6  # columns that are tried together


def id_text(frame: pl.LazyFrame, columns: Sequence[str]) -> pl.Expr:
    """The name of each row's series as text, "" where a column is empty.

    Several columns make one name, "store/item"; a mark within a cell is written "\\/". Whole
    numbers that a file holds as decimal numbers (12.0) are those that others hold as 12, and blanks
    around a name are no part of it.
    """
    schema = frame.select(columns).collect_schema()
    parts = [_cell(pl.col(name), schema[name]) for name in columns]
    if len(parts) == 1:
        return parts[0]
    empty = pl.any_horizontal(part == "" for part in parts)
    escaped = [part.str.replace_all(_MARK, "\\" + _MARK, literal=True) for part in parts]
    return pl.when(empty).then(pl.lit("")).otherwise(pl.concat_str(escaped, separator=_MARK))


def _cell(cell: pl.Expr, kind: pl.DataType) -> pl.Expr:
    if kind.is_float():
        whole = cell.cast(pl.Int64, strict=False)
        text = pl.when(whole.cast(pl.Float64) == cell).then(whole.cast(pl.String))
        return text.otherwise(cell.cast(pl.String)).fill_null("")
    return cell.cast(pl.String).str.strip_chars().fill_null("")


def id_parts(name: str, count: int) -> list[str]:
    """The cells of `count` columns that made a name."""
    if count == 1:
        return [name]
    text = name.replace("\\" + _MARK, "\0")
    return [part.replace("\0", _MARK) for part in text.split(_MARK)]


def present_ids(
    names: Sequence[str], id_column: Sequence[str], usual_ids: Sequence[str]
) -> tuple[str, ...]:
    """The columns of ids that a file with these columns has: those that are named, else the usual
    ones if it has all of them, else `unique_id`.
    """
    if id_column:
        return tuple(id_column)
    if usual_ids and set(usual_ids) <= set(names):
        return tuple(usual_ids)
    return (ID_NAME,) if ID_NAME in names else ()


def recognised_ids(
    where: object, frame: pl.LazyFrame, names: Sequence[str], date: str | None, used: set[str]
) -> tuple[str, ...]:
    """The columns that name the series of a table, () for a wide one.

    Columns with usual names do where dates repeat and do not repeat
    within the series: as few columns as possible, and those that are the same in all rows of each
    series, in the order of the table.
    """
    usual = [n for n in names if n not in used and n != date and plain_name(n) in _USUAL]
    if date is None or not usual:
        return ()
    usual = sorted(usual, key=lambda name: _USUAL.index(plain_name(name)))[:_MOST]
    table = collect(where, frame.select(date, *usual))
    usual = [name for name in usual if not _measured(table[name])]
    if table.height < _REPEATS * table[date].n_unique():
        return ()
    for count in range(1, len(usual) + 1):
        for columns in combinations(usual, count):
            if not table.select(date, *columns).is_duplicated().any():
                steady = _steady(table, columns, usual)
                return tuple(name for name in names if name in {*columns, *steady})
    return ()


def _steady(table: pl.DataFrame, columns: Sequence[str], others: Sequence[str]) -> list[str]:
    """The other columns that hold one value in all rows of each series."""
    counts = table.group_by(columns).agg(pl.col(n).n_unique() for n in others if n not in columns)
    return [name for name in counts.columns if name not in columns and counts[name].max() == 1]


def _measured(column: pl.Series) -> bool:
    """Whether a column holds numbers with decimals, which name nothing."""
    text = column.cast(pl.String, strict=False)
    return bool(text.str.contains(r"^\s*-?\d+[.,]\d*[1-9]\d*\s*$").any())


_USUAL = SYNONYMS["series"]
