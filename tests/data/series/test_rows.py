"""Rows and columns that programs write around the data are left out and said, nothing else is."""

from datetime import date, timedelta
from pathlib import Path

import pytest

from headwise.base.account import Account, opened
from headwise.base.errors import InputError
from headwise.data.series.files import list_items
from headwise.data.series.series import Panel, read_panel

DAYS = [f"{date(2024, 1, 1) + timedelta(i):%d.%m.%Y}" for i in range(20)]
ROWS = [f"{day},{i}" for i, day in enumerate(DAYS)]


def read(path: Path, *lines: str) -> tuple[Panel, Account]:
    path.write_text("\n".join(lines) + "\n")
    with opened() as account:
        return read_panel(path), account


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["Datum,v", *ROWS, "Summe,190"], "1 rows of totals at the end"),
        (["Datum,v", *ROWS, "Gesamtergebnis:,190", "Total,190"], "2 rows of totals at the end"),
        (["Datum,v", *ROWS[:9], "Datum,v", *ROWS[9:]], "1 rows that repeat the header"),
        (["Datum,v", *ROWS[:9], "", " , ", *ROWS[9:]], "2 blank rows"),
    ],
)
def test_rows_that_are_no_data_are_left_out_and_said(
    lines: list[str], words: str, tmp_path: Path
) -> None:
    panel, account = read(tmp_path / "x.csv", *lines)
    assert panel.series[0].values[:, 0].tolist() == list(range(20))
    assert f"left out: {words}" in account.lines()


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["Datum,v", *ROWS, "Mittel,190"], "row 21: column 'Datum' holds 'Mittel', not a date"),
        (["Datum,v", *ROWS[:15], "Summe,3", *ROWS[15:]], "row 16: column 'Datum' holds 'Summe'"),
        (["Datum,v", *ROWS, ",190"], "row 21: column 'Datum' is empty, not a date"),
        (["Datum,v", ",kg", *ROWS], "row 1: column 'Datum' is empty, not a date"),
        (["Report", "Datum,v", *ROWS], "leave no title above the names"),
    ],
)
def test_other_rows_are_refused_by_name(lines: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        read(tmp_path / "x.csv", *lines)


def test_totals_and_headers_of_a_long_table_are_no_series(tmp_path: Path) -> None:
    rows = [f"{name},{row}" for name in "ab" for row in ROWS]
    lines = ["unique_id,ds,y", *rows[:20], "unique_id,ds,y", *rows[20:], "Total,,380"]
    panel, account = read(tmp_path / "x.csv", *lines)
    assert [series.name for series in panel.series] == ["a", "b"]
    assert "1 rows that repeat the header; 1 rows of totals" in " ".join(account.lines())
    (tmp_path / "y.csv").write_text("\n".join(lines[:-1]) + "\n")
    assert [item["id"] for item in list_items(tmp_path / "y.csv")] == ["a", "b"]


def test_a_series_called_total_is_a_series(tmp_path: Path) -> None:
    rows = [f"{name},{row}" for name in ("a", "Total") for row in ROWS]
    panel, account = read(tmp_path / "x.csv", "unique_id,ds,y", *rows)
    assert [len(series.times) for series in panel.series] == [20, 20]
    assert "totals" not in " ".join(account.lines())


def test_a_column_that_counts_the_rows_is_no_series(tmp_path: Path) -> None:
    rows = [f"{i + 100},{row}" for i, row in enumerate(ROWS)]
    panel, account = read(tmp_path / "x.csv", "id,date,v", *rows)
    assert panel.channels == ("v",)
    assert "columns: 1 that only count the rows, not used (id)" in account.lines()
    other = [f"{2 * i},{row}" for i, row in enumerate(ROWS)]
    assert read(tmp_path / "x.csv", "id,date,v", *other)[0].channels == ("id", "v")
    (tmp_path / "y.csv").write_text("\n".join(["date,id", *ROWS]) + "\n")
    assert read_panel(tmp_path / "y.csv").channels == ("id",)


@pytest.mark.parametrize(
    "lines",
    [
        ["id,Datum,v,Unnamed: 7,remark", *(f"{i},{row},{i * i},x" for i, row in enumerate(ROWS))],
        ["Jahr,Monat,v,w", *(f"{2000 + i // 12},{i % 12 + 1},{i},x" for i in range(30))],
        ["Shop,Datum,Zeit,v", *(f"{s},{d},{h}:00,1" for s in "ab" for d in DAYS for h in (0, 12))],
    ],
)
def test_no_column_is_taken_and_not_used(lines: list[str], tmp_path: Path) -> None:
    _, account = read(tmp_path / "x.csv", *lines)
    entries = [entry for entry in account.entries() if entry.topic == "columns"]
    taken = " ".join(entry.what for entry in entries if "not used" not in entry.what)
    unused = [name for entry in entries if "not used" in entry.what for name in entry.names]
    assert taken
    assert len(unused) == len(set(unused))
    assert not [name for name in unused if f"'{name}'" in taken]
