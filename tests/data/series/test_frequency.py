"""Names of steps: as pandas and as polars write them; what is not understood is refused by name."""

from pathlib import Path

import numpy as np
import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.series.clock import future_times, month_day_of
from headwise.data.series.frequency import parse_frequency
from headwise.data.series.series import read_panel
from headwise.data.series.windows import time_marks
from headwise.pipelines.metrics.forecasting import season_of


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("MS", "1mo"), ("2MS", "2mo"), ("ME", "1mo"), ("QS", "1q"), ("QE", "1q"), ("QE-DEC", "1q"),
        ("YS", "1y"), ("YE", "1y"), ("AS-JAN", "1y"), ("A", "1y"), ("W", "1w"), ("W-MON", "1w"),
        ("2W-SUN", "2w"), ("B", "1b"), ("H", "1h"), ("T", "1m"), ("15T", "15m"), ("min", "1m"),
        ("5min", "5m"), ("D", "1d"), ("ms", "1ms"), ("500ms", "500ms"), ("L", "1ms"),
        ("monthly", "1mo"), ("hours", "1h"),
    ],
)  # fmt: skip
def test_names_of_pandas_are_understood(name: str, text: str) -> None:
    assert parse_frequency(name).text == text


@pytest.mark.parametrize(
    "name", ["M", "15M", "BM", "BME", "BQS", "C", "SM", "SMS", "BH", "Ms", "N", "QE-JAN", "W-FOO",
             "H-MON"]
)  # fmt: skip
def test_other_names_are_refused_by_name(name: str) -> None:
    with pytest.raises(InputError, match=f"'{name}'"):
        parse_frequency(name)


def dated(tmp_path: Path, *dates: str) -> Path:
    path = tmp_path / "x.csv"
    path.write_text("date,a\n" + "".join(f"{day},{i}\n" for i, day in enumerate(dates)))
    return path


@pytest.mark.parametrize(
    ("name", "first"),
    [("MS", "2000-01-01"), ("ME", "2000-01-31"), ("W-WED", "2000-01-05"), ("B", "2000-01-03")],
)
def test_a_table_without_dates_begins_where_the_name_says(
    name: str, first: str, tmp_path: Path
) -> None:
    (tmp_path / "x.csv").write_text("a,b\n" + "1,2\n" * 7)
    times = read_panel(tmp_path / "x.csv", frequency=name).series[0].times
    assert str(times[0])[:10] == first
    if name == "ME":
        assert str(times[1])[:10] == "2000-02-29"
    if name == "B":
        assert str(times[5])[:10] == "2000-01-10"


def test_dates_off_the_named_anchor_are_refused(tmp_path: Path) -> None:
    ends = dated(tmp_path, "2024-01-31", "2024-02-29", "2024-03-31")
    assert read_panel(ends, frequency="ME").frequency == "1mo"
    with pytest.raises(InputError, match="2024-01-31 is not on a clock of month starts"):
        read_panel(ends, frequency="MS")
    sundays = dated(tmp_path, "2024-01-07", "2024-01-14", "2024-01-21")
    with pytest.raises(InputError, match="2024-01-07 is not on W-MON"):
        read_panel(sundays, frequency="W-MON")
    assert read_panel(sundays, frequency="W-SUN").frequency == "1w"


FORTNIGHT = [f"2024-01-{day:02d}" for day in (4, 5, 8, 9, 10, 11, 12, 15, 16, 17, 18, 19)]


def test_business_days_are_recognised_and_go_on_after_the_weekend(tmp_path: Path) -> None:
    with opened() as account:
        panel = read_panel(dated(tmp_path, *FORTNIGHT))
    assert panel.frequency == "1b"
    assert any("business days" in line for line in account.lines())
    ahead = future_times(panel.series[0].times, "1b", 3)
    assert [str(time)[:10] for time in ahead] == ["2024-01-22", "2024-01-23", "2024-01-24"]
    assert season_of("1b") == 5
    assert time_marks(ahead).shape == (3, 4)


def test_a_holiday_is_named_and_can_be_filled_without_weekends(tmp_path: Path) -> None:
    path = dated(tmp_path, *(day for day in FORTNIGHT if day != "2024-01-15"))
    with pytest.raises(InputError, match=r"1 of 12 steps of 1b are missing.*2024-01-15.*B"):
        read_panel(path)
    (series,) = read_panel(path, frequency="B", fill="forward").series
    assert len(series.values) == 12
    assert series.values[7, 0] == series.values[6, 0]
    with pytest.raises(InputError, match="business days only: --frequency B"):
        read_panel(dated(tmp_path, *FORTNIGHT), frequency="1d")


@pytest.mark.parametrize("rows", [1, 2])
def test_few_rows_do_not_change_the_day_of_the_month(rows: int) -> None:
    """Of a clock of the 30th, the last rows alone look like one of month ends."""
    times = np.array(["2022-03-30", "2022-06-30", "2022-09-30"], dtype="datetime64[us]")
    entire = np.concatenate([np.array(["2021-12-30"], dtype="datetime64[us]"), times])
    day = month_day_of(entire)
    assert day == 30
    ahead = future_times(times[-rows:], "1q", 2, day)
    assert [str(time)[:10] for time in ahead] == ["2022-12-30", "2023-03-30"]
    february = np.array(["2023-02-28"], dtype="datetime64[us]")
    assert month_day_of(february, 30) == 30
    assert month_day_of(february, 15) == 31, "dates that do not fit it speak for themselves"
