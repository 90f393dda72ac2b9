"""Dates that are spread over columns are read; tables that are turned are refused by name."""

from datetime import date, timedelta
from pathlib import Path

import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.series.series import read_panel

DAYS = [date(2020, 1, 1) + timedelta(i) for i in range(60)]
MONTHS = [(2020 + i // 12, i % 12 + 1) for i in range(36)]
NAMES = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
HOURS = [(1 + i // 24, i % 24) for i in range(72)]

# header, rows, step, last moment, words of the account
SPREAD: dict[str, tuple[str, list[str], str, str, str]] = {
    "year and month": (
        "year,month", [f"{y},{m}" for y, m in MONTHS], "1mo", "2022-12-01",
        "'year' and 'month' are together the date",
    ),
    "month first, by name": (
        "Month,Year", [f"{NAMES[m - 1]},{y}" for y, m in MONTHS], "1mo", "2022-12-01",
        "'Year' and 'Month' are together",
    ),
    "German": (
        "Jahr,Monat,Tag", [f"{d.year},{d.month},{d.day}" for d in DAYS], "1d", "2020-02-29",
        "'Jahr', 'Monat' and 'Tag' are together",
    ),
    "hours": (
        "Year,Month,Day,Hour", [f"2020,1,{d},{h}" for d, h in HOURS], "1h", "2020-01-03T23",
        "'Year', 'Month', 'Day' and 'Hour' are together",
    ),
    "a time of the day": (
        "Year,Month,Day,Time", [f"2020,1,{d},{h:02d}:00" for d, h in HOURS], "1h",
        "2020-01-03T23", "'Time' is taken as the time of the day",
    ),
    "quarters": (
        "year,quarter", [f"{2000 + i // 4},Q{i % 4 + 1}" for i in range(20)], "1q", "2004-10-01",
        "'year' and 'quarter' are together",
    ),
    "weeks": (
        "year,week", [f"2020,{i + 1}" for i in range(53)], "1w", "2020-12-28", "ISO 8601",
    ),
    "days of the year": (
        "YEAR,DOY,HR", [f"2020,{30 + d},{h}" for d, h in HOURS], "1h", "2020-02-02T23",
        "'YEAR', 'DOY' and 'HR' are together",
    ),
    "hours next to dates": (
        "date,hour", [f"2020-01-{d:02d},{h}" for d, h in HOURS], "1h", "2020-01-03T23",
        "'hour' is taken as the time of the day",
    ),
}  # fmt: skip


def saved(path: Path, header: str, rows: list[str]) -> Path:
    lines = [f"{row},{i}" for i, row in enumerate(rows)]
    path.write_text("\n".join([f"{header},v", *lines]) + "\n")
    return path


@pytest.mark.parametrize("kind", SPREAD)
def test_a_date_that_is_spread_over_columns_is_read_and_said(kind: str, tmp_path: Path) -> None:
    header, rows, step, last, words = SPREAD[kind]
    with opened() as account:
        panel = read_panel(saved(tmp_path / "x.csv", header, rows))
    assert (panel.channels, panel.frequency) == (("v",), step)
    assert str(panel.series[0].times[-1]).startswith(last)
    assert panel.series[0].values[:, 0].tolist() == list(range(len(rows)))
    text = " ".join(account.lines())
    assert words in text
    assert "not used" not in text


def test_series_of_months_are_told_apart(tmp_path: Path) -> None:
    rows = [f"{store},{y},{m}" for store in "ab" for y, m in MONTHS]
    panel = read_panel(saved(tmp_path / "x.csv", "store,year,month", rows))
    assert (panel.ids, panel.frequency, len(panel.series)) == (("store",), "1mo", 2)


@pytest.mark.parametrize(
    ("header", "rows", "channels"),
    [
        ("date,year,month", [f"{y}-{m:02d}-01,{y},{m}" for y, m in MONTHS], ("year", "month", "v")),
        ("year", [str(1980 + i) for i in range(30)], ("v",)),
        ("date,hour", [f"{d},{i % 24}" for i, d in enumerate(DAYS)], ("hour", "v")),
        ("date,hour", [f"2020-01-{d:02d} {h:02d}:00,{h}" for d, h in HOURS], ("hour", "v")),
    ],
)
def test_parts_of_a_date_next_to_a_whole_one_are_numbers(
    header: str, rows: list[str], channels: tuple[str, ...], tmp_path: Path
) -> None:
    assert read_panel(saved(tmp_path / "x.csv", header, rows)).channels == channels


def test_an_hour_that_no_day_has_is_named(tmp_path: Path) -> None:
    rows = [f"2020,1,{d},{h + 1}" for d, h in HOURS]
    with pytest.raises(InputError, match=r"row 24: .* holds '2020 1 1 24', not a date"):
        read_panel(saved(tmp_path / "x.csv", "year,month,day,hour", rows))


@pytest.mark.parametrize(
    ("header", "row", "frequency", "words"),
    [
        ("country,2018,2019,2020", "c,1,2,3", None, "columns '2018' to '2020' are dates"),
        ("id,2020-01,2020-02,2020-03", "7,1,2,3", "1mo", "columns '2020-01' to '2020-03' are"),
        ("p,01.01.2020,02.01.2020,03.01.2020", "p,1,2,3", None, "are dates, and series are rows"),
        (f"Year,{','.join(NAMES)}", "2020," + ",".join("1" * 12), None, "are the months of a year"),
    ],
)
def test_a_table_whose_columns_are_dates_is_refused(
    header: str, row: str, frequency: str | None, words: str, tmp_path: Path
) -> None:
    (tmp_path / "x.csv").write_text(f"{header}\n{row}\n{row.replace('2020', '2021')}\n")
    with pytest.raises(InputError, match=f"{words}.*turn the table, so that each row is a date"):
        read_panel(tmp_path / "x.csv", frequency=frequency)
