"""Numbers as people write them: what a comma is, is decided by the entire column."""

import numpy as np
import polars as pl
import pytest

from headwise.base.account import opened
from headwise.data.formats.tables_numbers import decimal_commas, has_decimal_comma, numbers
from headwise.tests.statements import statements

NAN = np.nan


@pytest.mark.parametrize(
    ("cells", "values", "words"),
    [
        (["1.234,56", "7"], [1234.56, 7], "decimal comma (x)"),
        (["1,5", "1.234", "NA"], [1.5, 1234, NAN], "decimal comma"),
        (["1.234.567", "8"], [1234567, 8], "decimal comma"),
        (["0,123", "1,234"], [0.123, 1.234], "decimal comma"),
        (["1,5e3", "-2,25"], [1500, -2.25], "decimal comma"),
        (["1,234.56", "7"], [1234.56, 7], "marks of thousands"),
        (["1,234,567", "1,000"], [1234567, 1000], "marks of thousands"),
        (["1,234", "950"], [1234, 950], "marks of thousands"),
        (["2.5", "1,234"], [2.5, 1234], "marks of thousands"),
        (["1'234.5", "2’000"], [1234.5, 2000], "marks of thousands"),
        (["1 234,5", "0,5"], [1234.5, 0.5], "decimal comma"),
        (["1\u00a0234", "12\u202f345"], [1234, 12345], "marks of thousands"),
        (["1.234", "2.345"], [1.234, 2.345], "1.234 has a decimal point"),
        (["\u22125", "3"], [-5, 3], ""),
        (["inf", "1,5"], [NAN, 1.5], "decimal comma"),
        (["1.5", "2.25"], [1.5, 2.25], ""),
    ],
)
def test_a_column_with_one_reading_is_read_and_said(
    cells: list[str], values: list[float], words: str
) -> None:
    with opened() as account:
        read, bad = numbers(pl.Series("x", cells))
    assert not bad.any()
    np.testing.assert_array_equal(read, np.array(values))
    text = " ".join(account.lines())
    assert words in text
    assert bool(words) == bool(text)


@pytest.mark.parametrize(
    ("cells", "bad"),
    [
        (["1,234", "2,345"], [True, True]),
        (["1,234", "9500"], [True, False]),
        (["1.5", "1,5", "2.5"], [False, True, False]),
        (["1,5", "1.5", "2,5"], [False, True, False]),
        (["1,7,24", "3"], [True, False]),
        (["1,5", "x", "12,5 %"], [False, True, True]),
        (["31.12.2024", "1.2.3", "12.34.567", "1,23,456"], [True] * 4),
        (["1 23", "1 2345", "1' 234"], [True] * 3),
    ],
)
def test_cells_with_two_readings_or_none_are_not_numbers(cells: list[str], bad: list[bool]) -> None:
    assert numbers(pl.Series("x", cells))[1].tolist() == bad


def test_parts_of_a_column_are_read_as_the_entire_column() -> None:
    frame = pl.DataFrame({"a": ["1.234", "1,5"], "b": ["1.5", "x"], "c": ["1", "2"], "d": [1, 2]})
    marks = decimal_commas(frame.lazy(), frame.columns)
    assert marks == {"a": True, "b": False}
    assert numbers(frame["a"][:1], comma=marks["a"])[0][0] == 1234
    assert numbers(frame["a"][:1])[0][0] == 1.234
    assert has_decimal_comma(frame["c"]) is None


@pytest.mark.parametrize(
    ("telling", "expected", "mark"),
    [(["2,5", "0,75"], [1234.0, 5678.0], True), (["2.5", "0.75"], [1.234, 5.678], False)],
)
def test_a_column_that_leaves_it_open_has_the_decimal_mark_of_the_others(
    telling: list[str], expected: list[float], mark: bool
) -> None:
    table = pl.DataFrame({"price": telling, "units": ["1.234", "5.678"], "name": ["a", "1"]})
    commas = decimal_commas(table.lazy(), table.columns)
    assert commas == {"price": mark, "units": mark}
    assert numbers(table["units"], comma=commas["units"])[0].tolist() == expected


def test_three_digits_behind_a_comma_are_decimals_beside_other_decimal_commas() -> None:
    table = pl.DataFrame({"price": ["2.500,12", "2,5"], "units": ["2,892", "3,104"]})
    commas = decimal_commas(table.lazy(), table.columns)
    assert numbers(table["units"], comma=commas["units"])[0].tolist() == [2.892, 3.104]
    american = pl.DataFrame({"price": ["2,500.12", "2.5"], "units": ["2,892", "3,104"]})
    commas = decimal_commas(american.lazy(), american.columns)
    assert numbers(american["units"], comma=commas["units"])[0].tolist() == [2892.0, 3104.0]


def test_columns_that_disagree_decide_for_themselves_only() -> None:
    table = pl.DataFrame({"a": ["2,5"], "b": ["2.5"], "c": ["1.234"]})
    assert decimal_commas(table.lazy(), table.columns) == {"a": True, "b": False}


def test_a_column_that_could_be_thousands_or_decimals_is_named() -> None:
    with opened() as account:
        numbers(pl.Series("load", ["1,234", "2,345"]))
    what = "columns whose 1,234 could be 1234 or 1.234; write them without a comma"
    assert statements(account) == {("values", what): (1, ["load"])}
