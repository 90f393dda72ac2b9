"""Tables in memory: written as the readers find them, whatever library holds them."""

from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.frames import write_frame

pandas = pytest.importorskip("pandas")
ROWS = {"name": ["a", "b", "c"], "count": [1, 2, 3], "value": [0.1, None, 1 / 3]}
TABLE = pl.DataFrame(ROWS)


def read(frame: object, folder: Path) -> pl.DataFrame:
    write_frame(frame, folder / "t.parquet")
    return pl.read_parquet(folder / "t.parquet")


@pytest.mark.parametrize(
    "frame",
    [TABLE, TABLE.lazy(), pandas.DataFrame(ROWS), ROWS, {k: np.array(v) for k, v in ROWS.items()}],
    ids=["polars", "lazy", "pandas", "lists", "arrays"],
)
def test_the_same_rows_come_out_of_every_kind_of_table(frame: object, tmp_path: Path) -> None:
    assert read(frame, tmp_path).equals(TABLE)


def test_an_index_with_a_name_or_dates_is_a_column_and_another_is_left_out(tmp_path: Path) -> None:
    days = pandas.date_range("2024-01-01", periods=3, name="day")
    frame = pandas.DataFrame({"y": [1.0, 2.0, 3.0]}, index=days)
    assert read(frame, tmp_path)["day"][2] == datetime(2024, 1, 3)
    assert read(frame.rename_axis(None), tmp_path).columns == ["date", "y"]
    both = pandas.DataFrame({"y": [1, 2]}, index=[["a", "a"], [3, 4]]).rename_axis(["id", "t"])
    assert read(both, tmp_path).rows() == [("a", 3, 1), ("a", 4, 2)]
    assert read(frame.reset_index(drop=True)[::2], tmp_path).columns == ["y"]
    with opened() as account:
        assert read(pandas.DataFrame({"y": [1]}, index=["r"]), tmp_path).columns == ["y"]
    assert "index without a name" in account.lines()[0]


def test_times_categories_and_missing_cells_of_pandas_are_kept(tmp_path: Path) -> None:
    frame = pandas.DataFrame(
        {
            "zone": pandas.to_datetime(["2024-03-01 12:00"]).tz_localize("Europe/Berlin"),
            "month": pandas.period_range("2024-02", periods=1, freq="M"),
            "kind": pandas.Categorical(["x"]),
            "whole": pandas.array([None], dtype="Int64"),
            0: ["text"],
        }
    )
    table = read(frame, tmp_path)
    assert table["zone"].dt.convert_time_zone("UTC").dt.hour()[0] == 11
    assert table["month"][0] == datetime(2024, 2, 1)
    assert table["kind"].dtype == pl.String
    assert table["whole"][0] is None
    assert table["0"][0] == "text"


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (7, "a int is no table"),
        ({"a": [1, 2], "b": [1]}, "cannot be taken"),
        ({"a": [1, "x"]}, "column 'a' of the table cannot be read"),
        (pandas.DataFrame([[1, 2]], columns=["a", "a"]), "two columns 'a'"),
        (pandas.DataFrame({"a": [object()]}), "cannot be"),
        (pandas.DataFrame({"a": [1]}, index=pandas.Index([1], name="a")), "and as its index"),
    ],
)
def test_what_is_no_table_is_refused_in_one_line(frame: object, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words) as caught:
        write_frame(frame, tmp_path / "t.parquet")
    assert "\n" not in str(caught.value)
