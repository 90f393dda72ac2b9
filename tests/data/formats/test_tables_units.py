"""Numbers with something around them are the numbers; what it is, is said."""

import numpy as np
import polars as pl
import pytest

from headwise.base.account import opened
from headwise.data.formats.tables_numbers import decimal_marks, numbers
from headwise.data.formats.tables_units import column_units

NAN = np.nan
READ: list[tuple[list[str], list[float], str]] = [
    (["€20", "€ 5"], [20, 5], "columns in €"),
    (["20 €", "12,50 €"], [20, 12.5], "columns in €"),
    (["$1,234.50", "-$5.00", "($7.00)", "$ (8.00)"], [1234.5, -5, -7, -8], "columns in $"),
    (["CHF 1'234.50", "CHF 2.00"], [1234.5, 2], "columns in CHF"),
    (["R$ 1.234,50", "R$ 2,00"], [1234.5, 2], "columns in R$"),
    (["1\u202f234,50 €", "2 €"], [1234.5, 2], "columns in €"),
    (["20%", "5 %"], [20, 5], "columns in percent, numbers as they are written"),
    (["20 °C", "-3 °C"], [20, -3], "columns in °C"),
    (["5 kg", "", "7 kg"], [5, NAN, 7], "columns in kg"),
    (["€5", "0"], [5, 0], "columns in €"),
    (["(1,234)", "950"], [-1234, 950], "numbers in brackets are negative"),
    (["1.234,56-", "2,00"], [-1234.56, 2], "a minus behind them are negative"),
    (["1.234 €", "950 €"], [1234, 950], "columns in €"),
    ([".", "5", "..", "?"], [NAN, 5, NAN, NAN], "3 cells of x that count as missing"),
    (["#DIV/0!", "2", "#N/A"], [NAN, 2, NAN], ""),
]


def read(cells: list[str]) -> tuple[list[float], list[bool], str]:
    """Numbers of a column that is an entire table, the bad ones, and the account."""
    frame = pl.DataFrame({"x": cells})
    comma = decimal_marks(frame.lazy(), ["x"]).commas.get("x")
    with opened() as account:
        values, bad = numbers(
            frame["x"], comma=comma, unit=column_units(frame.lazy(), ["x"]).get("x")
        )
    return values.tolist(), bad.tolist(), " ".join(account.lines())


@pytest.mark.parametrize(("cells", "values", "words"), READ)
def test_numbers_with_something_around_them_are_read_and_it_is_said(
    cells: list[str], values: list[float], words: str
) -> None:
    numbers_read, bad, text = read(cells)
    assert not any(bad)
    np.testing.assert_array_equal(numbers_read, values)
    assert words in text
    assert bool(words) == bool(text)


@pytest.mark.parametrize(
    ("cells", "bad"),
    [
        (["€5", "€6", "$5"], [False, False, True]),
        (["€5", "€6", "5"], [False, False, True]),
        (["5", "6", "5 %"], [False, False, True]),
        (["5 kg", "7 kg", "7 g"], [False, False, True]),
        (["SKU12", "5k", "--5", "-(5)", "(5", "5-7", "<5", "5*", "$5 €"], [True] * 9),
    ],
)
def test_another_unit_than_that_of_the_others_is_refused(cells: list[str], bad: list[bool]) -> None:
    assert read(cells)[1] == bad


def test_the_unit_of_a_table_holds_for_its_parts() -> None:
    part = pl.Series("x", ["$5", "€7"])
    assert numbers(part, unit="€")[1].tolist() == [True, False]
    assert numbers(pl.Series("x", ["5", "€7"]), unit="€")[1].tolist() == [True, False]
    assert numbers(pl.Series("x", ["€5", "€7", "8"]), unit="")[1].tolist() == [True, True, False]
    assert numbers(pl.Series("x", ["5", "7"]), unit="€")[1].tolist() == [False, False]


@pytest.mark.parametrize(
    ("cells", "semicolons", "comma", "open_ones"),
    [
        (["1.234", "950", "12.500"], True, True, ()),
        (["1.234", "950", "12.500"], False, None, ("x",)),
        (["1.234", "2.345"], True, None, ("x",)),
        (["1.234", "9500"], True, None, ("x",)),
        (["1.234", "2.5"], True, False, ()),
        (["1,234", "950"], False, False, ()),
        (["1,234", "2,345"], True, None, ()),
    ],
)
def test_thousands_between_semicolons_are_those_of_a_decimal_comma(
    cells: list[str], semicolons: bool, comma: bool | None, open_ones: tuple[str, ...]
) -> None:
    marks = decimal_marks(pl.DataFrame({"x": cells}).lazy(), ["x"], semicolons=semicolons)
    assert (marks.commas.get("x"), marks.open) == (comma, open_ones)
