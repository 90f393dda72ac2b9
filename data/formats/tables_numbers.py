"""Numbers in the cells of a table, with a decimal point or comma and with marks of thousands.

Which of them a column has is decided from all its cells: `1.234,5` is German, `1,234.5` American,
`1'234.5` Swiss. Where nothing decides, the point is the decimal mark.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from ...base.account import note
from ...base.errors import fail, shown
from .tables_units import is_money, unframed, without_units

EXCEL_ERRORS = ("#n/a", "#div/0!", "#value!", "#ref!", "#name?", "#num!", "#null!")
MISSING_WORDS = (
    "", "na", "nan", "n/a", "null", "none", "-nan", "<na>", "nat", "\\n", *EXCEL_ERRORS,
)  # fmt: skip
MISSING_MARKS = (".", "..", "?")
"""A missing number as Stata and SAS, the World Bank and the UCI write it."""

_BLANKS = "[\u0020\u00a0\u2009\u202f'\u2019]"  # marks of thousands in France, Switzerland, by SI
_SIGN = r"^[+-]?"
_POWER = r"([eE][+-]?\d+)?$"
# A cell of one of these has one reading only.
_COMMA_ONLY = (
    rf"{_SIGN}(\d*,\d{{1,2}}|\d*,\d{{4,}}|0+,\d+|\d{{4,}},\d+|,\d+|\d+,|\d{{1,3}}(\.\d{{3}})+,\d+"
    rf"|\d{{1,3}}(\.\d{{3}}){{2,}}){_POWER}"
)
_POINT_ONLY = (
    rf"{_SIGN}(\d*\.\d{{1,2}}|\d*\.\d{{4,}}|0+\.\d+|\d{{4,}}\.\d+|\.\d+|\d+\.|\d{{1,3}}(,\d{{3}})+\.\d+"
    rf"|\d{{1,3}}(,\d{{3}}){{2,}}){_POWER}"
)
_POINT_THOUSANDS = rf"{_SIGN}\d{{1,3}}(,\d{{3}})+(\.\d*)?{_POWER}"
_COMMA_NUMBER = rf"{_SIGN}(\d+|\d{{1,3}}(\.\d{{3}})+)?(,\d*)?{_POWER}"
_GROUPED = rf"{_SIGN}\d{{1,3}}({_BLANKS}\d{{3}})+([.,]\d*)?$"
_SPELT = re.compile(r"[+-]?[\d.,'\u2019\u00a0\u2009\u202f ]*\d[.,]?([eE][+-]?\d+)?")
_EITHER = rf"{_SIGN}[1-9]\d{{0,2}}\.\d{{3}}$"
_SHORT = rf"{_SIGN}\d{{1,3}}$"
_SHAPES = {
    "numbers": rf"{_SIGN}[.,]?\d",
    "short": _SHORT,
    "after_point": _EITHER,
    "after_comma": _EITHER.replace(r"\.", ","),
}


def is_spelt_number(cell: str) -> bool:
    """Whether a cell looks like a number, whatever its decimal mark.

    >>> [is_spelt_number(cell) for cell in ("1.234,5", "-2", "x1", "")]
    [True, True, False, False]
    """
    return _SPELT.fullmatch(cell.strip()) is not None


def number_column(
    where: object, column: pl.Series, name: str | None = None, *, comma: bool | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """As `numbers`, but a column of another type is an error of the file `where`.

    name: what the file calls the column, by default its own name; comma: as in `numbers`. Raises
    InputError.
    """
    try:
        return numbers(column, comma=comma)
    except TypeError as error:
        name = column.name if name is None else name
        raise fail(where, f"column {shown(name)} holds {error}, not numbers") from None


def numbers(
    column: pl.Series, *, comma: bool | None = None, unit: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """A column (n,) as float64, NaN where missing or infinite, and a mask (n,) of the cells that
    are not numbers of the column.

    A decimal comma, marks of thousands and units are read where the cells of the column leave one
    reading (noted in the account). comma, unit: what the entire table says of the column, as
    `decimal_commas` and `column_units`. Raises TypeError with the name of the type for columns that
    hold neither numbers nor text.
    """
    kind = column.dtype
    if not (kind == pl.String or kind.is_numeric() or kind == pl.Boolean or kind == pl.Null):
        raise TypeError(str(kind))
    cast = column.cast(pl.Float64, strict=False)
    bad = np.zeros(len(column), dtype=bool)
    if (
        comma and kind == pl.String
    ) or cast.null_count() > column.null_count():  # most columns are clean and skip this
        text = column.cast(pl.String).str.strip_chars()
        text = text.str.replace_all("\u2212", "-", literal=True)  # the minus of typesetters
        missing = text.is_null() | text.str.to_lowercase().is_in(MISSING_WORDS)
        if (marks := text.is_in(MISSING_MARKS)).any():
            listed = text.filter(marks).unique().sort()
            note("values", f"cells of {column.name} that count as missing", listed)
            missing = missing | marks.fill_null(False)
        cast = text.cast(pl.Float64, strict=False)
        if comma or (cast.is_null() & ~missing).any():
            bare, strange = without_units(text, unit)
            cast = _spelt(bare, bare.cast(pl.Float64, strict=False), comma).set(strange, None)
        bad = (cast.is_null() & ~missing).to_numpy().astype(bool)
    elif kind == pl.String and comma is None and _in_doubt(column):
        note("assumed", "columns whose 1.234 has a decimal point", [column.name])
    values = cast.to_numpy().astype(np.float64)
    values[~np.isfinite(values)] = np.nan
    return values, bad


def has_decimal_comma(column: pl.Series) -> bool | None:
    """Whether the cells of a column of text have a decimal comma: False for a decimal point, None
    where nothing decides. Where both occur, the more frequent one.
    """
    return decimal_commas(column.to_frame("x").lazy(), ["x"]).get("x")


class DecimalMarks(NamedTuple):
    """What the cells of a table say of its numbers.

    commas  whether columns have a decimal comma; columns that leave it open are not in it
    open    columns whose marks are all such as that of 1.234
    """

    commas: dict[str, bool]
    open: tuple[str, ...]


def decimal_commas(frame: pl.LazyFrame, names: Sequence[str]) -> dict[str, bool]:
    """`DecimalMarks.commas` of columns of a table. Raises PolarsError where it cannot be read."""
    return decimal_marks(frame, names).commas


def decimal_marks(
    frame: pl.LazyFrame, names: Sequence[str], *, semicolons: bool = False
) -> DecimalMarks:
    """The decimal marks of columns of a table, from all rows.

    semicolons: whether `;` stands between the cells, as programs write where the comma is the
    decimal mark. There, and in amounts of money, 1.234 beside 950 is a thousand.

    A column that does not decide it itself (`1.234` could be thousands) has the mark of the columns
    that do, if these agree: a program writes one table with one decimal mark. Raises PolarsError
    where the table cannot be read.
    """
    kinds = frame.collect_schema()
    texts = [name for name in names if kinds[name] == pl.String]
    framed = _counted(frame, {name: {"framed": _framed(name)} for name in texts})
    bare = {name: _bare_cells(name, framed[name]["framed"] > 0) for name in texts}
    sure = {"commas": _COMMA_ONLY, "points": _POINT_ONLY, "marked": rf"{_SIGN}\d+[.,]\d"}
    counts = _counted(frame, {name: _matches(bare[name], sure) for name in texts})
    decided = {
        name: of["commas"] > of["points"]
        for name, of in counts.items()
        if of["commas"] or of["points"]
    }
    open_ones = [name for name, of in counts.items() if of["marked"] and name not in decided]
    shapes = _counted(
        frame,
        {
            name: {**_matches(bare[name], _SHAPES), "money": is_money(_cells(name)).sum()}
            for name in open_ones
        },
    )
    for name, of in shapes.items():
        marked = counts[name]["marked"]
        beside = 0 < of["short"] == of["numbers"] - marked
        if beside and of["after_comma"] == marked:
            decided[name] = False
        elif beside and of["after_point"] == marked and (semicolons or of["money"]):
            decided[name] = True
    if len(set(decided.values())) == 1:
        decided = dict.fromkeys(open_ones, next(iter(decided.values()))) | decided
    points_only = (n for n in open_ones if shapes[n]["after_point"] == counts[n]["marked"])
    return DecimalMarks(decided, tuple(name for name in points_only if name not in decided))


def _counted(
    frame: pl.LazyFrame, counts: Mapping[str, Mapping[str, pl.Expr]]
) -> dict[str, dict[str, int]]:
    """Counts of cells by column and by what they count."""
    if not counts:
        return {}
    table = frame.select(
        count.alias(f"{name}\x1f{what}")
        for name, of in counts.items()
        for what, count in of.items()
    )
    row = table.collect(engine="streaming").row(0, named=True)
    return {name: {what: row[f"{name}\x1f{what}"] for what in of} for name, of in counts.items()}


def _cells(name: str) -> pl.Expr:
    return pl.col(name).str.strip_chars()


def _framed(name: str) -> pl.Expr:
    """How many cells of a column may have a unit or brackets."""
    return pl.col(name).str.contains(r"[^\d.,eE+\-'\u2019\u2212\s]|-\s*$").sum()


def _bare_cells(name: str, framed: bool) -> pl.Expr:
    """Numbers without what stands around them and without blanks between thousands."""
    bare = unframed(_cells(name)) if framed else _cells(name)
    grouped = bare.str.contains(_GROUPED)
    return pl.when(grouped).then(bare.str.replace_all(_BLANKS, "")).otherwise(bare)


def _matches(cells: pl.Expr, patterns: Mapping[str, str]) -> dict[str, pl.Expr]:
    return {what: cells.str.contains(pattern).sum() for what, pattern in patterns.items()}


def _bare(text: pl.Series) -> pl.Series:
    """Cells without blanks or apostrophes between groups of three digits."""
    grouped = text.str.contains(_GROUPED)
    if not grouped.any():
        return text
    return pl.select(
        pl.when(grouped).then(text.str.replace_all(_BLANKS, "")).otherwise(text)
    ).to_series()


def _spelt(text: pl.Series, plain: pl.Series, comma: bool | None) -> pl.Series:
    """A column with cells that are no plain numbers, read as its spelling says; null where it is
    none. plain: the column as plain numbers; comma: as in `numbers`.
    """
    bare = _bare(text)
    comma = has_decimal_comma(bare) if comma is None else comma
    if comma:
        fits = bare.str.contains(_COMMA_NUMBER)
        dotted = bare.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
        words = ~bare.str.contains(r"\d")  # inf, nan
        spelt = pl.select(pl.when(fits).then(dotted).when(words).then(bare)).to_series()
        read = spelt.cast(pl.Float64, strict=False)
        if bare.str.contains(r"\d[.,]|[.,]\d").any():
            note("assumed", "columns with a decimal comma", [text.name])
        return read
    joined = bare
    thousands = bare.str.contains(_POINT_THOUSANDS)
    if thousands.any() and (comma is False or _short_ones(bare, thousands)):
        without = bare.str.replace_all(",", "", literal=True)
        joined = pl.select(pl.when(thousands).then(without).otherwise(bare)).to_series()
    elif thousands.any():
        what = "columns whose 1,234 could be 1234 or 1.234; write them without a comma"
        note("values", what, [text.name])
    read = joined.cast(pl.Float64, strict=False)
    if (read.is_not_null() & plain.is_null()).any():
        note("assumed", "columns with marks of thousands (1,234.5 is 1234.5)", [text.name])
    return read


def _short_ones(bare: pl.Series, thousands: pl.Series) -> bool:
    """Whether the cells without a mark of thousands are whole numbers below 1000, and there are
    some: then 1,234 can be one thousand only.
    """
    others = bare.filter(~thousands)
    others = others.filter(~others.str.to_lowercase().is_in(MISSING_WORDS))
    return len(others) > 0 and bool(others.str.contains(_SHORT).all())


def _in_doubt(column: pl.Series) -> bool:
    """Whether all cells are such as 1.234, which could be thousands."""
    cells = column.drop_nulls().str.strip_chars()
    fits = cells.head(50).str.contains(_EITHER)
    return len(cells) > 0 and bool(fits.all()) and bool(cells.str.contains(_EITHER).all())
