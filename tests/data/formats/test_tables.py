"""Tables: files that change between two readings, numbers as written, all rows in order."""

import gzip
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.formats.tables import check_file, collect, list_files, numbers, scan_table
from headwise.tests.statements import statements

TEXT = "a,b\n" + "".join(f"{k},{k * 2}\n" for k in range(500))


def test_the_check_of_a_packed_file_is_repeated_when_it_changes(tmp_path: Path) -> None:
    """A sound file that is cut later is refused; a damaged one that is mended later is read."""
    packed = gzip.compress(TEXT.encode())
    path, damaged = tmp_path / "a.csv.gz", tmp_path / "b.csv.gz"
    path.write_bytes(packed)
    damaged.write_bytes(packed[:-20])
    check_file(path)
    with pytest.raises(InputError, match="damaged gzip"):
        check_file(damaged)
    path.write_bytes(packed[:-20] + bytes(20))  # as long as before
    os.utime(path, (1, 1))
    with pytest.raises(InputError, match="damaged gzip"):
        check_file(path)
    path.write_bytes(packed[:-30])
    os.utime(path, (1, 1))
    with pytest.raises(InputError, match="damaged gzip"):
        check_file(path)
    path.write_bytes(packed)
    assert collect(path, scan_table(path)[0]).height == 500


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.tsv", "a.txt", "a.parquet"])
def test_every_row_is_read_in_order(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    rows = pl.DataFrame({"a": range(50_000), "b": np.arange(50_000) % 7})
    if name.endswith(".parquet"):
        rows.write_parquet(path, row_group_size=999)
    else:
        text = rows.write_csv(separator="\t" if name.endswith("tsv") else ",")
        path.write_bytes(gzip.compress(text.encode(), 1) if name.endswith(".gz") else text.encode())
    frame, names = scan_table(path)
    assert names == ["a", "b"]
    table = collect(path, frame).cast(pl.Int64)
    assert table.equals(rows.cast(pl.Int64))


def test_a_last_line_without_its_end_counts(tmp_path: Path) -> None:
    for ending in ("", "\n", "\r\n"):
        (tmp_path / "a.csv").write_bytes(b"a,b\n1,2\n3,4" + ending.encode())
        assert collect("a", scan_table(tmp_path / "a.csv")[0]).rows() == [("1", "2"), ("3", "4")]


@pytest.mark.parametrize(
    ("cells", "values", "bad"),
    [
        ([" 1.5 ", "-2e3", "+7", "0x10"], [1.5, -2000, 7, np.nan], [False, False, False, True]),
        (["NA", "", "NaN", "n/a", "none", "-"], [np.nan] * 6, [False] * 5 + [True]),
        (["inf", "-Infinity", "1,5", "1 000"], [np.nan, np.nan, 1.5, 1000], [False] * 4),
        ([True, False, None], [1, 0, np.nan], [False] * 3),
        ([2**62, -3, None], [2.0**62, -3, np.nan], [False] * 3),
    ],
)
def test_numbers_are_what_is_written(cells: list, values: list[float], bad: list[bool]) -> None:
    read, wrong = numbers(pl.Series("x", cells))
    np.testing.assert_array_equal(read, np.array(values, float))
    assert wrong.tolist() == bad


def test_files_of_a_folder_are_those_of_its_kinds_in_order(tmp_path: Path) -> None:
    for name in ("b.csv", "a.parquet", "c.csv.gz", ".hidden.csv", "d.md", "10.csv", "9.csv"):
        (tmp_path / name).write_bytes(b"a\n1\n")
    (tmp_path / "e.csv").mkdir()
    names = [Path(file).name for file in list_files(tmp_path, (".csv", ".csv.gz", ".parquet"))]
    assert names == ["10.csv", "9.csv", "a.parquet", "b.csv", "c.csv.gz"]


def test_columns_without_a_name_are_in_the_account_by_their_new_name(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(",a,b,,c\n2024-01-01,1,5,4,1\n2024-01-02,2,7,4,1\n")
    with opened() as account:
        assert scan_table(path)[1] == ["index", "a", "b", "column 4", "c"]
    what = "without a name in the file, called index or by their number"
    assert statements(account) == {("columns", what): (2, [f"{path}: index", f"{path}: column 4"])}
