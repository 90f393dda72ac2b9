"""Units, brackets and signs around the numbers of a column: `€20`, `12,5 %`, `(1,234)`, `5-`.

The numbers stay as they are written: 20 % is 20, and 5 kg is 5. All cells of a column must have one
unit; a zero needs none.
"""

import re
from collections import Counter
from collections.abc import Sequence

import polars as pl

from ...base.account import note

_CURRENCY = (
    r"(?:US|CA|C|AU|A|NZ|HK|S|R)?\$|[€£¥₹₽₺₩₪₫฿]|zł|Kč|Ft|kr|Fr|Rs|EUR|USD|GBP|CHF|JPY|CNY|INR|AUD|"
    r"CAD|NZD|SEK|NOK|DKK|PLN|CZK|HUF|BRL|MXN|ZAR|KRW|TRY|RUB|SGD|HKD"
)
_MEASURE = (
    r"[%‰]|°?[CF]|K|[kmµμ]?g|t|[mch]?l|L|[kcmµμ]?m[²³23]?|h|min|[mµμ]?s|m/s|km/h|mph|rpm|"
    r"[kMGT]?Wh?|[kMm]?V|[mk]?A|[kMG]?Hz|[hkM]?Pa|m?bar|ppm|dB|[kMGT]i?B|pcs|Stk|Stück|units?"
)
_SPACE = "\\s*"
_NUMBER = r"[.,]?\d(?:[\d.,'\u2019\s]*\d)?[.,]?(?:[eE][+-]?\d+)?"
_CELL = (
    rf"^(?P<sign>[+-])?{_SPACE}(?P<before>{_CURRENCY})?\.?{_SPACE}(?P<open>\()?{_SPACE}"
    rf"(?P<within>{_CURRENCY})?{_SPACE}(?P<second>[+-])?{_SPACE}(?P<number>{_NUMBER}){_SPACE}"
    rf"(?P<after>{_CURRENCY}|{_MEASURE})?\.?{_SPACE}(?P<behind>-)?{_SPACE}(?P<close>\))?{_SPACE}"
    rf"(?P<last>{_CURRENCY}|{_MEASURE})?\.?$"
)
_AROUND = (
    rf"^(?:[+-]|\(|\s|(?:{_CURRENCY})\.?)*|(?:\)|-|\s|(?:{_CURRENCY}|{_MEASURE})\.?)+$",
    rf"\d[.,]?\s*(?:{_CURRENCY}|{_MEASURE})\.?[\s)-]*$|^[\s+(-]*(?:{_CURRENCY})|[()]|-\s*$",
)
_PARTS = re.compile(_CELL).groupindex
_UNIT_PARTS = ("before", "within", "after", "last")
_ZERO = r"^[+-]?0+([.,]0*)?$"


def is_money(cell: pl.Expr) -> pl.Expr:
    """Whether cells of text are amounts of a currency."""
    return cell.str.contains(rf"^[+(-]?\s*(?:{_CURRENCY})\.?\s*[(+-]?\d|\d\s*(?:{_CURRENCY})\W*$")


def unframed(cell: pl.Expr) -> pl.Expr:
    """Cells of text without what may stand around a number: signs, brackets, units."""
    return cell.str.replace_all(_AROUND[0], "")


def column_units(frame: pl.LazyFrame, names: Sequence[str]) -> dict[str, str]:
    """The unit of those columns of text with numbers that something stands around, from all rows;
    "" where most have none. Raises PolarsError where the table cannot be read.
    """
    kinds = frame.collect_schema()
    texts = [name for name in names if kinds[name] == pl.String]
    if not texts:
        return {}
    framed = frame.select(pl.col(texts).str.contains(_AROUND[1]).any())
    row = framed.collect(engine="streaming").row(0, named=True)
    units = {}
    for name in texts:
        if row[name]:
            cell = pl.col(name).str.strip_chars()
            counted = frame.select(_unit_of(cell).alias(name)).group_by(name).len()
            counts = dict(counted.collect(engine="streaming").iter_rows())
            units[name] = _most_frequent(counts)
    return units


def without_units(text: pl.Series, unit: str | None = None) -> tuple[pl.Series, pl.Series]:
    """Cells (n,) as bare numbers, signs in front, where they are numbers with something around
    them; and a mask (n,) of the numbers whose unit is not that of the column.

    unit: of the entire table's column, None to see it in these cells: the most frequent one. What
    is read goes into the account.
    """
    if not text.str.contains(_AROUND[1]).any():
        return text, pl.repeat(False, len(text), eager=True)
    cells, cell = pl.DataFrame({"cell": text}), pl.col("cell")
    fields = cells.select(_part(cell, name).alias(name) for name in _PARTS)
    units = cells.select(_unit_of(cell)).to_series()
    if unit is None:
        counts = units.value_counts()
        unit = _most_frequent(dict(counts.iter_rows()))
    minus = [(fields[name] == "-").fill_null(False) for name in ("sign", "second", "behind")]
    brackets = fields["open"].is_not_null()
    count = sum(
        (mask.cast(pl.Int8) for mask in (*minus, brackets)), pl.zeros(len(text), eager=True)
    )
    marks = sum(
        (fields[name].is_not_null().cast(pl.Int8) for name in _UNIT_PARTS),
        pl.zeros(len(text), eager=True),
    )
    sound = fields["number"].is_not_null() & (count <= 1) & (marks <= 1)
    sound = sound & (brackets == fields["close"].is_not_null())
    sign = pl.when(pl.lit(count) == 1).then(pl.lit("-")).otherwise(pl.lit(""))
    bare = pl.select(
        pl.when(pl.lit(sound)).then(sign + pl.lit(fields["number"])).otherwise(pl.lit(text))
    ).to_series()
    differs = (units != unit).fill_null(False) & sound
    _note(text.name, unit, bool((brackets & sound).any()), bool((minus[2] & sound).any()))
    return bare.alias(text.name), differs


def _unit_of(cell: pl.Expr) -> pl.Expr:
    """The unit of a cell, "" for a number without one; null for zeros, words and empty cells."""
    number = _part(cell, "number")
    unit = pl.coalesce(*(_part(cell, name) for name in _UNIT_PARTS))
    bare_zero = (unit.is_null() & number.str.contains(_ZERO)).fill_null(False)
    return pl.when(number.is_not_null() & ~bare_zero).then(unit.fill_null(""))


def _part(cell: pl.Expr, name: str) -> pl.Expr:
    """A named part of _CELL; null where a cell does not have it."""
    # extract_groups fails in expressions where no cell fits.
    return cell.str.extract(_CELL, _PARTS[name])


def _most_frequent(counts: dict[str | None, int]) -> str:
    """The unit of most numbers, "" where most have none."""
    numbers = Counter({unit: count for unit, count in counts.items() if unit is not None})
    # Of two that are as frequent, none before any, then by name.
    return min(numbers, key=lambda unit: (-numbers[unit], unit), default="")


def _note(name: str, unit: str, brackets: bool, behind: bool) -> None:
    if unit == "%":
        note("assumed", "columns in percent, numbers as they are written (20 % is 20)", [name])
    elif unit:
        note("assumed", f"columns in {unit}, numbers as they are written", [name])
    if brackets:
        note("assumed", "columns whose numbers in brackets are negative", [name])
    if behind:
        note("assumed", "columns whose numbers with a minus behind them are negative", [name])
