"""Dates as people write them are the instants that they mean, or are refused by name."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.series.dates import read_times
from headwise.data.series.files import list_items, read_items
from headwise.data.series.series import Series, read_panel

DAYS = [date(2022, 12, 20) + timedelta(i) for i in range(60)]
HOURS = [datetime(2023, 1, 1) + timedelta(hours=i) for i in range(60)]
BERLIN = ZoneInfo("Europe/Berlin")


def seconds(moment: datetime) -> int:
    return int(moment.replace(tzinfo=UTC).timestamp())


def months(form: str) -> list[str]:
    return [f"{date(2010 + i // 12, i % 12 + 1, 1):{form}}" for i in range(60)]


WEEKDAYS = ["Mo.", "Di.", "Mi.", "Do.", "Fr.", "Sa.", "So."]
OTHER_MONTHS = {
    "German months": (
        "1. {name} {year}",
        "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
    ),
    "short German months": ("{name} {year}", "Jan Feb Mrz Apr Mai Jun Jul Aug Sep Okt Nov Dez"),
    "French months": (
        "1er {name} {year}",
        "janv. févr. mars avr. mai juin juil. août sept. oct. nov. déc.",
    ),
    "Spanish months": (
        "1 de {name} de {year}",
        "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
    ),
    "Italian months": ("1 {name} {year}", "gen feb mar apr mag giu lug ago set ott nov dic"),
    "Portuguese months": (
        "{name} de {year}",
        "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro",
    ),
    "Dutch months": (
        "1-{name}-{year}",
        "jan. feb. mrt. apr. mei jun. jul. aug. sep. okt. nov. dec.",
    ),
}

# cells, first and last instant
WAYS: dict[str, tuple[list[object], str, str]] = {
    **{
        form: ([f"{day:{form}}" for day in DAYS], "2022-12-20", "2023-02-17")
        for form in (
            "%y-%m-%d", "%d.%m.%y", "%m/%d/%y", "%d/%m/%y", "%m/%d/%Y", "%d-%m-%Y", "%-m/%-d/%Y",
            "%-d.%-m.%Y", "%Y-%-m-%-d", "%d %b %Y", "%d-%b-%y", "%b %d, %Y", "%A, %d %B %Y",
            "%Y%m%d", "%Y%m%dT%H%M%S", "%a, %d %b %Y %H:%M:%S GMT", "%Y/%m/%d", "%Y.%m.%d",
        )
    },
    **{
        form: ([f"{hour:{form}}" for hour in HOURS], "2023-01-01", "2023-01-03T11:00")
        for form in (
            "%m/%d/%Y %I:%M:%S %p", "%-m/%-d/%Y %-I:%M %p", "%Y-%m-%d %I:%M %p", "%d.%m.%Y %H:%M",
            "%Y-%m-%dT%H:%MZ", "%Y-%m-%d %H:%M:%S.000", "%Y%m%d%H%M%S", "%d/%m/%Y, %H:%M",
        )
    },
    **{
        form: (list(months(form)), "2010-01-01", "2014-12-01")
        for form in ("%Y-%m", "%Y%m", "%m/%Y", "%b %Y", "%B %Y", "%YM%m", "%Y/%m")
    },
    "years": ([str(1960 + i) for i in range(40)], "1960-01-01", "1999-01-01"),
    "numbers of years": ([1960 + i for i in range(40)], "1960-01-01", "1999-01-01"),
    "quarters": ([f"{2010 + i // 4}Q{i % 4 + 1}" for i in range(8)], "2010-01-01", "2011-10-01"),
    "quarters first": ([f"Q{i % 4 + 1} {2010 + i // 4}" for i in range(8)], "2010-01-01",
                       "2011-10-01"),
    "weeks": ([f"2020-W{i:02d}" for i in range(1, 41)], "2019-12-30", "2020-09-28"),
    **{
        name: ([text.format(year=2010 + i // 12, name=names.split()[i % 12]) for i in range(60)],
               "2010-01-01", "2014-12-01")
        for name, (text, names) in OTHER_MONTHS.items()
    },
    "short months": (list(months("%b-%y")), "2010-01-01", "2014-12-01"),
    "days as Excel counts them": ([44562 + i for i in range(40)], "2022-01-01", "2022-02-09"),
    "hours as Excel counts them": ([f"{44562 + i / 24:.5f}" for i in range(60)], "2022-01-01",
                                   "2022-01-03T11:00"),
    "quarters in French": ([f"T{i % 4 + 1} {2010 + i // 4}" for i in range(8)], "2010-01-01",
                           "2011-10-01"),
    "quarters, number first": ([f"{i % 4 + 1}. Quartal {2010 + i // 4}" for i in range(8)],
                               "2010-01-01", "2011-10-01"),
    "German weeks": ([f"KW {i:02d}/2020" for i in range(1, 41)], "2019-12-30", "2020-09-28"),
    "German weekdays": ([f"{WEEKDAYS[day.weekday()]}, {day:%d.%m.%Y}" for day in DAYS],
                        "2022-12-20", "2023-02-17"),
    "seconds": ([str(seconds(hour)) for hour in HOURS], "2023-01-01", "2023-01-03T11:00"),
    "numbers of milliseconds": ([1000 * seconds(hour) for hour in HOURS], "2023-01-01",
                                "2023-01-03T11:00"),
    "numbers of nanoseconds": ([10**9 * seconds(hour) for hour in HOURS], "2023-01-01",
                               "2023-01-03T11:00"),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_way_to_write_dates_is_read(way: str) -> None:
    cells, first, last = WAYS[way]
    times = read_times(pl.Series("d", cells)).times
    assert times.null_count() == 0
    assert [times[0], times[-1]] == [datetime.fromisoformat(first), datetime.fromisoformat(last)]
    assert times.is_sorted()
    assert len(times.diff().drop_nulls().unique()) == 1 or times.dt.day().unique().to_list() == [1]


@pytest.mark.parametrize("cells", [["01/02/2022", "02/02/2022"], ["01-02-2022", "02-02-2022"]])
def test_two_orders_are_refused_and_can_be_named(cells: list[str]) -> None:
    with pytest.raises(TypeError, match=r"day/month or month/day.*--date-order"):
        read_times(pl.Series("d", cells))
    assert read_times(pl.Series("d", cells), order="dmy").times[0] == datetime(2022, 2, 1)
    assert read_times(pl.Series("d", cells), order="mdy").times[0] == datetime(2022, 1, 2)


def test_years_of_two_digits_that_leave_a_choice_are_refused() -> None:
    with pytest.raises(TypeError, match="write years with four digits"):
        read_times(pl.Series("d", ["01/02/22", "02/02/22", "05/02/22"]))


def test_an_order_is_never_changed_for_single_cells() -> None:
    read = read_times(pl.Series("d", ["01/31/2024", "13/02/2024"]), order="mdy")
    assert read.times.to_list() == [datetime(2024, 1, 31), None]
    assert read_times(pl.Series("d", ["31/02/2022", "13/03/2022"])).times[0] is None


@pytest.mark.parametrize(
    "cells",
    [
        ["20205", "20206"],
        [0, 1, 2],
        ["a", "b"],
        ["Jan-23", "Feb-23"],
        ["Jan-01", "Jan-02", "Jan-03"],
        ["Jan-31", "Feb-28", "Mar-31"],
    ],
)
def test_what_is_no_date_stays_none(cells: list[object]) -> None:
    assert read_times(pl.Series("d", cells)).times.null_count() == len(cells)


def test_days_of_excel_are_no_counter_of_steps() -> None:
    days = [44562, 44563]
    assert read_times(pl.Series("time", days)).times.null_count() == 2
    read = read_times(pl.Series("date", days))
    assert read.assumed == ("numbers such as '44562' are days as Excel counts them (2022-01-01)",)


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("step", ["days", "months"])
def test_days_with_an_offset_that_changes_are_local_days(
    typed: bool, step: str, tmp_path: Path
) -> None:
    if step == "days":
        local = [datetime(2022, 10, 1, tzinfo=BERLIN) + timedelta(i) for i in range(60)]
    else:
        local = [datetime(2018 + i // 12, i % 12 + 1, 1, tzinfo=BERLIN) for i in range(48)]
    dates = pl.Series(local) if typed else pl.Series([day.isoformat() for day in local])
    pl.DataFrame({"date": dates, "a": range(len(local))}).write_parquet(tmp_path / "x.parquet")
    with opened() as account:
        panel = read_panel(tmp_path / "x.parquet")
    assert panel.frequency == {"days": "1d", "months": "1mo"}[step]
    assert panel.series[0].times[0] == np.datetime64(local[0].replace(tzinfo=None), "us")
    assert panel.local
    assert any("local days" in line for line in account.lines())


def test_midnights_of_one_summer_are_the_days_that_a_longer_file_has(tmp_path: Path) -> None:
    for days in (60, 250):  # within one offset, and beyond it
        local = [datetime(2022, 4, 1, tzinfo=BERLIN) + timedelta(i) for i in range(days)]
        pl.DataFrame({"date": local, "a": range(days)}).write_parquet(tmp_path / "x.parquet")
        panel = read_panel(tmp_path / "x.parquet")
        assert panel.series[0].times[0] == np.datetime64("2022-04-01")
        assert panel.local


def test_hours_with_an_offset_that_changes_are_instants(tmp_path: Path) -> None:
    start = datetime(2022, 10, 29, tzinfo=UTC)
    local = [(start + timedelta(hours=i)).astimezone(BERLIN) for i in range(60)]
    text = "".join(f"{hour.isoformat()},{i}\n" for i, hour in enumerate(local))
    (tmp_path / "x.csv").write_text("date,a\n" + text)
    panel = read_panel(tmp_path / "x.csv")
    assert (panel.frequency, panel.local) == ("1h", False)
    assert str(panel.series[0].times[0]) == "2022-10-29T00:00:00.000000"


def test_durations_count_from_the_beginning_of_the_clock(tmp_path: Path) -> None:
    hours = pl.Series([timedelta(hours=i) for i in range(5)])
    pl.DataFrame({"time": hours, "a": range(5)}).write_parquet(tmp_path / "x.parquet")
    panel = read_panel(tmp_path / "x.parquet")
    assert panel.frequency == "1h"
    assert str(panel.series[0].times[-1]) == "2000-01-01T04:00:00.000000"


def test_a_time_of_the_day_in_its_own_column_belongs_to_the_date(tmp_path: Path) -> None:
    rows = "".join(f"{hour:%d/%m/%Y},{hour:%H:%M:%S},{i}\n" for i, hour in enumerate(HOURS))
    (tmp_path / "x.csv").write_text("Date,Time,load\n" + rows)
    with opened() as account:
        panel = read_panel(tmp_path / "x.csv", order="dmy")
    text = " ".join(account.lines())
    assert "'Time' is taken as the time of the day" in text
    assert "dates such as '01/01/2023 00:00:00' are day/month/year" in text
    assert (panel.channels, panel.frequency) == (("load",), "1h")
    assert str(panel.series[0].times[-1]) == "2023-01-03T11:00:00.000000"


def test_a_cell_that_is_no_date_is_named_before_the_step_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("date,a\n" + "".join(f"day {i},{i}\n" for i in range(9)))
    with pytest.raises(InputError, match="row 1: column 'date' holds 'day 0', not a date"):
        read_panel(tmp_path / "x.csv")


def test_a_group_of_series_is_read_in_the_order_of_the_entire_file(tmp_path: Path) -> None:
    """The first series alone could be read in both orders."""
    rows = [f"a,{day},1" for day in ("02/01/2022", "02/02/2022", "02/03/2022")]
    rows += [f"b,{day},1" for day in ("02/11/2022", "02/12/2022", "02/13/2022")]
    (tmp_path / "x.csv").write_text("unique_id,ds,y\n" + "\n".join(rows) + "\n")
    items = list_items(tmp_path / "x.csv")
    results = [read_items([item], targets=["y"], frequency="1d")[0] for item in items]
    assert [str(r.times[0])[:10] for r in results if isinstance(r, Series)] == [
        "2022-02-01",
        "2022-02-11",
    ]
    (by_day,) = read_items(items[:1], targets=["y"], frequency="1mo", order="dmy")
    assert isinstance(by_day, Series)
    assert str(by_day.times[-1])[:10] == "2022-03-02"
    (refused,) = read_items(items[1:], targets=["y"], frequency="1d", order="dmy")
    assert "in the order day/month/year; --date-order" in str(refused)


def test_a_group_of_series_has_the_decimal_mark_of_the_entire_file(tmp_path: Path) -> None:
    """1.234 alone could be a decimal number; next to 1.234,5 it is one thousand."""
    rows = ["a;2024-01-01;1.234", "a;2024-01-02;2.345", "b;2024-01-01;1.234,5", "b;2024-01-02;0,5"]
    (tmp_path / "x.csv").write_text("unique_id;ds;y\n" + "\n".join(rows) + "\n")
    items = list_items(tmp_path / "x.csv")
    values = [
        result.values[:, 0].tolist()
        for item in items
        for result in read_items([item], targets=["y"], frequency="1d")
        if isinstance(result, Series)
    ]
    assert values == [[1234, 2345], [1234.5, 0.5]]
    assert [s.values[:, 0].tolist() for s in read_panel(tmp_path / "x.csv").series] == values


def test_days_of_six_digits_are_no_months_of_a_far_century(tmp_path: Path) -> None:
    rows = [f"{date(2022, 1, 1) + timedelta(i):%y%m%d},{i}" for i in range(12)]
    (tmp_path / "a.csv").write_text("\n".join(["date,a", *rows]))
    with pytest.raises(InputError, match="column 'date' holds '220101', not a date like"):
        read_panel(tmp_path / "a.csv")
