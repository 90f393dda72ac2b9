"""Numbers that stand for a missing value are named, and real numbers are not."""

import numpy as np
import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.formats.tables_codes import (
    doubt_codes,
    missing_codes,
    odd_numbers,
    without_codes,
)

REST = np.random.default_rng(0).normal(20, 8, 400).round(1)


def with_codes(*codes: float, rest: np.ndarray = REST) -> np.ndarray:
    return np.concatenate([rest, codes])


@pytest.mark.parametrize(
    ("values", "codes"),
    [
        (with_codes(-999, -999), {-999: 2}),
        (with_codes(-9999), {-9999: 1}),
        (with_codes(-99, -99, rest=np.abs(REST)), {-99: 2}),
        (with_codes(9999, 9999, 9999), {9999: 3}),
        (with_codes(-999.9, -999.9).astype(np.float32).astype(float), {-999.9: 2}),
        (with_codes(-999, -999, -9999, -9999, np.nan), {-9999: 2, -999: 2}),
        (with_codes(-999, -999, rest=np.arange(50_000.0)), {-999: 2}),
        (with_codes(2147483647, 2147483647), {2147483647: 2}),
        (REST, {}),
        (with_codes(99, 99), {}),
        (with_codes(999), {}),
        (with_codes(-99, -99, rest=np.linspace(-200, 200, 90)), {}),
        (with_codes(-999, -999, rest=np.linspace(-9000, 9000, 90)), {}),
        (with_codes(-99, -99, rest=np.linspace(-90, 200, 90)), {}),
        (with_codes(-999, rest=np.arange(50_000.0)), {}),
        (with_codes(999, 999, rest=np.arange(2000.0)), {}),
        (with_codes(9999, 9999, rest=np.arange(5000.0)), {}),
        (np.array([1.0, -999, -999]), {}),
    ],
)
def test_codes_for_missing_values_are_told_from_numbers(
    values: np.ndarray, codes: dict[float, int]
) -> None:
    read = missing_codes(values)
    assert list(read) == pytest.approx(list(codes), rel=1e-6)
    assert list(read.values()) == list(codes.values())


@pytest.mark.parametrize(
    ("values", "odd"),
    [
        (with_codes(-1, -1, -1, rest=np.abs(REST) + 1), [-1]),
        (with_codes(-1, -1, -1, rest=np.ones(30)), []),
        (with_codes(-1, -1, -1, rest=np.abs(REST) * (REST > 15)), []),
        (with_codes(5e6, 5e6, 5e6), [5e6]),
        (with_codes(0, 0, 0, rest=np.abs(REST) + 1e5), []),
        (REST, []),
    ],
)
def test_numbers_that_may_mean_missing_are_only_named(values: np.ndarray, odd: list[float]) -> None:
    assert odd_numbers(values) == odd


def test_a_code_is_an_error_unless_it_is_accepted() -> None:
    values = with_codes(-999, -999)
    message = r"t: column 'a' holds -999 in 2 rows, far .*say --missing -999; --accept missing"
    with pytest.raises(InputError, match=message):
        doubt_codes("t", "a", values, "--missing {}")
    with opened(["missing-codes"]) as account:
        doubt_codes("t", "a", values, "--missing {}")
    assert "accepted: t: column 'a' holds -999" in account.lines()[0]
    with opened() as account:
        doubt_codes("t", "a", with_codes(-1, -1, -1, rest=np.abs(REST) + 1), "--missing {}")
    assert "may mean missing (a: -1)" in account.lines()[0]


def test_what_counts_as_missing_is_none() -> None:
    single = np.array([-999.9], np.float32).astype(float)
    values, count = without_codes(np.concatenate([[1, -1, np.nan], single]), ["-999.9", "-1", "x"])
    np.testing.assert_array_equal(values, [1, np.nan, np.nan, np.nan])
    assert count == 2
