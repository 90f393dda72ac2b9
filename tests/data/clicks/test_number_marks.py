"""Numbers of a log with codes for missing values, units, and marks that a file leaves open."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.clicks.fit import fit
from headwise.data.clicks.marks import NumberMarks, marks_of, with_points
from headwise.data.clicks.schema import Schema, schema_of
from headwise.tests.data.clicks.saved import click_schema, saved

ROWS = 80
AGES = [None if row % 8 == 7 else 20 + row % 11 for row in range(ROWS)]


def table(**columns: Any) -> pl.DataFrame:
    plain = {
        "user": [row % 5 for row in range(ROWS)],
        "item": [row % 8 for row in range(ROWS)],
        "time": [1_700_000_000 + 60 * row for row in range(ROWS)],
        "click": [row % 3 == 0 for row in range(ROWS)],
    }
    return pl.DataFrame(plain | columns)


def plan(**field: Any) -> Schema:
    return click_schema(split={"by": "time"}, numeric={"age": {"buckets": 4, **field}})


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_codes_for_missing_values_are_doubted_or_missing(ending: str, tmp_path: Path) -> None:
    log = saved(tmp_path / f"a.{ending}", table(age=[-999 if a is None else a for a in AGES]))
    message = r"column 'age' holds -999 in 8 rows, .*`missing: -999` of age under numeric"
    with pytest.raises(InputError, match=message):
        fit(log, plan())
    with opened(["missing-codes"]) as account:
        fit(log, plan())
    assert "accepted: " in "\n".join(account.lines())
    with opened() as account:
        encoder, rows, _ = fit(log, plan(missing=-999))
    assert "1 fields with numbers that count as missing (-999) (age)" in "\n".join(account.lines())
    empty = saved(tmp_path / f"b.{ending}", table(age=AGES))
    usual, expected, _ = fit(empty, plan())
    assert encoder.edges["age"].tolist() == usual.edges["age"].tolist()
    assert rows.fields.tolist() == expected.fields.tolist()
    newer = encoder.codes("age", pl.Series("age", [-999, 25]), "t")[0][:, 0].tolist()
    assert newer == [0, usual.codes("age", pl.Series("age", [25]), "t")[0][0, 0]]


def test_words_that_mean_missing_are_none(tmp_path: Path) -> None:
    cells = ["none yet" if age is None else str(age) for age in AGES]
    log = saved(tmp_path / "a.csv", table(age=cells))
    with pytest.raises(InputError, match="holds 'none yet', not a number"):
        fit(log, plan())
    _, rows, _ = fit(log, plan(missing=["none yet", -1]))
    assert (rows.fields[:, 2] == 0).tolist() == [age is None for age in AGES]


def test_what_counts_as_missing_is_a_part_of_the_schema() -> None:
    assert schema_of(plan(missing=[-999, "x"]).as_dict()) == plan(missing=[-999, "x"])
    assert "missing" not in plan().as_dict()["numeric"]["age"]  # pyright: ignore
    with pytest.raises(InputError, match="age: missing should be numbers or words, is"):
        plan(missing={"a": 1})


def test_units_are_read_and_must_not_change(tmp_path: Path) -> None:
    plain = saved(tmp_path / "a.csv", table(age=[str(20 + row % 11) for row in range(ROWS)]))
    years = saved(tmp_path / "b.csv", table(age=[f"{20 + row % 11} €" for row in range(ROWS)]))
    expected, usual, _ = fit(plain, plan())
    with opened() as account:
        encoder, rows, _ = fit(years, plan())
    assert "columns in €, numbers as they are written (age)" in "\n".join(account.lines())
    assert encoder.edges["age"].tolist() == expected.edges["age"].tolist()
    assert rows.fields.tolist() == usual.fields.tolist()
    assert encoder.marks.units == {"age": "€"}
    dollars = pl.DataFrame({"age": ["$20", "$21"]})
    saved(tmp_path / "c.csv", dollars)
    with pytest.raises(InputError, match=r"column 'age' is in '\$', not in '€' as the other rows"):
        with_points(dollars, ["age"], str(tmp_path / "c.csv"), encoder.marks)
    read = with_points(
        table(age="20"), ["age"], str(saved(tmp_path / "d.csv", table(age="20")).files[0]),
        encoder.marks,
    )  # fmt: skip
    assert read["age"].unique().to_list() == ["20"]


def test_thousands_between_semicolons_are_read(tmp_path: Path) -> None:
    frame = pl.DataFrame({"age": ["1.234", "950"]})
    for mark, comma in ((";", {"age": True}), (",", {})):
        path = tmp_path / f"{len(comma)}.csv"
        frame.with_columns(b=pl.lit("x")).write_csv(path, separator=mark)
        assert marks_of([str(path)], ["age"]).commas == comma
    read = with_points(frame, ["age"], str(tmp_path / "1.csv"), NumberMarks())
    assert read["age"].cast(pl.Float64).to_list() == [1234, 950]


def test_a_joined_table_is_read_as_the_log_is(tmp_path: Path) -> None:
    users = pl.DataFrame({"user": range(5), "age": ["1.234", "2.345", "3.456", "4.567", "5.678"]})
    users.write_csv(tmp_path / "users.csv")
    prices = ["0,5" if row % 2 else "2,25" for row in range(ROWS)]
    log = saved(tmp_path / "a.csv", table(price=prices))
    schema = click_schema(
        split={"by": "time"},
        join=[{"table": "users.csv", "on": "user"}],
        numeric={"price": {}, "age": {}},
    )
    encoder, _, _ = fit(log, schema)
    assert encoder.edges["age"].max() < 10  # the table itself leaves it open
    users.with_columns(age=pl.Series(["1.234,5", "2,5", "3.456", "4", "5"])).write_csv(
        tmp_path / "users.csv"
    )
    encoder, _, _ = fit(log, schema)
    assert encoder.edges["age"].max() > 1000
