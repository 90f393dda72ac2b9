"""Sound tables come back as they are, whatever the layout, order and format."""

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwise.base.errors import InputError
from headwise.data.series.clock import future_times, infer_step, parse_frequency
from headwise.data.series.series import read_panel

QUICK = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def write(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def csv_of(times: np.ndarray, values: np.ndarray, separator: str = ",") -> str:
    lines = [separator.join(["date", *(f"c{i}" for i in range(values.shape[1]))])]
    lines += [
        separator.join([str(t)[:19], *map(repr, row)])
        for t, row in zip(times, values.tolist(), strict=True)
    ]
    return "\n".join(lines) + "\n"


def clock(start: str, step: str, rows: int) -> np.ndarray:
    first = np.array([np.datetime64(start, "us")])
    return np.concatenate([first, future_times(first, step, rows - 1)])


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz", "x.tsv", "x.txt", "x.parquet"])
def test_formats_give_the_same_panel(name: str, tmp_path: Path) -> None:
    times, values = clock("2024-02-28", "1h", 50), np.random.default_rng(0).normal(size=(50, 3))
    path = tmp_path / name
    if name.endswith("parquet"):
        pl.DataFrame({"date": times, **{f"c{i}": values[:, i] for i in range(3)}}).write_parquet(
            path
        )
    else:
        write(path, csv_of(times, values, "\t" if name.endswith("tsv") else ","))
    panel = read_panel(path)
    assert (panel.channels, panel.known, panel.frequency, panel.layout) == (
        ("c0", "c1", "c2"),
        (),
        "1h",
        "wide",
    )
    (series,) = panel.series
    assert series.name == "x"
    np.testing.assert_array_equal(series.times, times)
    np.testing.assert_array_equal(series.values, values)
    assert series.known.shape == (50, 0)


@QUICK
@given(
    values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=3, max_size=20),
    step=st.sampled_from(["1s", "5m", "15m", "1h", "1d", "1w", "1mo", "1q", "1y", "2h", "3d"]),
    shuffle=st.randoms(use_true_random=False),
)
def test_any_float_on_any_clock_round_trips(
    values: list[float], step: str, shuffle, tmp_path: Path
) -> None:
    times = clock("2023-01-31 06:00:00", step, len(values))
    header, *lines = csv_of(times, np.array(values)[:, None]).splitlines()
    shuffle.shuffle(lines)
    panel = read_panel(write(tmp_path / "x.csv", "\n".join([header, *lines])))
    assert panel.frequency == step
    np.testing.assert_array_equal(panel.series[0].times, times)
    np.testing.assert_array_equal(panel.series[0].values[:, 0], values)


@pytest.mark.parametrize(
    ("dates", "frequency"),
    [
        (["2024-01-01T00:00", "2024-01-01T00:15", "2024-01-01T00:30"], "15m"),
        (["1990/1/1 0:00", "1990/1/2 0:00", "1990/1/3 0:00"], "1d"),
        (["31.01.2024", "29.02.2024", "31.03.2024"], "1mo"),
        (["13/01/2024", "14/01/2024", "15/01/2024"], "1d"),
        (["12/30/2024", "12/31/2024", "01/01/2025"], "1d"),
        (["2024-01-01T00:00:00Z", "2024-01-01T01:00:00Z", "2024-01-01T02:00:00Z"], "1h"),
        (
            ["2024-01-01 00:00:00+02:00", "2024-01-01 00:00:00+01:00", "2024-01-01 00:00:00+00:00"],
            "1h",
        ),
        (["2024-01-01", "2024-01-01 12:00:00", "2024-01-02"], "12h"),
        (["2020-01-01", "2021-01-01", "2022-01-01"], "1y"),
        (["2020-03-31", "2020-06-30", "2020-09-30"], "1q"),
    ],
)
def test_ways_to_write_dates_are_understood(
    dates: list[str], frequency: str, tmp_path: Path
) -> None:
    text = "when,y\n" + "".join(f"{d},{i}\n" for i, d in enumerate(dates))
    panel = read_panel(write(tmp_path / "x.csv", text))
    assert panel.frequency == frequency
    np.testing.assert_array_equal(panel.series[0].values[:, 0], [0, 1, 2])


UTC = pl.datetime_range(
    pl.datetime(2024, 3, 30, 12), pl.datetime(2024, 4, 1), "1h", eager=True, time_zone="UTC"
)
"""Hours around the night in which Berlin sets its clocks forward."""


@pytest.mark.parametrize("kind", ["us", "ms", "ns", "text"])
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"])
def test_a_zone_keeps_its_meaning(kind: str, zone: str, tmp_path: Path) -> None:
    """A column of any zone and unit, and text with offsets, are the instants that they name."""
    local = UTC.dt.convert_time_zone(zone)
    date = (
        local.dt.strftime("%Y-%m-%d %H:%M:%S%z")
        if kind == "text"
        else local.dt.cast_time_unit(kind)
    )
    pl.DataFrame({"date": date, "y": np.arange(len(UTC))}).sample(
        fraction=1, shuffle=True, seed=1
    ).write_parquet(tmp_path / "x.parquet")
    panel = read_panel(tmp_path / "x.parquet")
    assert panel.frequency == "1h"
    np.testing.assert_array_equal(panel.series[0].times, UTC.dt.replace_time_zone(None).to_numpy())
    np.testing.assert_array_equal(panel.series[0].values[:, 0], np.arange(len(UTC)))


def test_a_column_without_a_zone_is_taken_as_it_is(tmp_path: Path) -> None:
    days = pl.date_range(pl.date(2024, 2, 27), pl.date(2024, 3, 2), "1d", eager=True)
    for name, dates in {
        "date": days,
        "ms": days.cast(pl.Datetime("ms")),
        "ns": days.cast(pl.Datetime("ns")),
    }.items():
        pl.DataFrame({"date": dates, "y": range(5)}).write_parquet(tmp_path / f"{name}.parquet")
        panel = read_panel(tmp_path / f"{name}.parquet")
        np.testing.assert_array_equal(
            panel.series[0].times, days.cast(pl.Datetime("us")).to_numpy()
        )
        assert panel.frequency == "1d"


def test_tables_without_dates_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "metr.csv", "773869,767541\n1.5,2\n3,4\n")
    panel = read_panel(path, frequency="5m")
    assert panel.channels == ("773869", "767541")
    assert [str(t) for t in panel.series[0].times] == [
        "2000-01-01T00:00:00.000000",
        "2000-01-01T00:05:00.000000",
    ]
    headless = read_panel(write(tmp_path / "solar.txt", "0,0\n1.5,2\n3,4\n"), frequency="10m")
    assert headless.channels == ("0", "1")
    np.testing.assert_array_equal(headless.series[0].values, [[0, 0], [1.5, 2], [3, 4]])
    np.savez(tmp_path / "pems.npz", data=np.arange(24.0).reshape(4, 2, 3))
    pems = read_panel(tmp_path / "pems.npz", frequency="5m", targets=["1"])
    np.testing.assert_array_equal(pems.series[0].values, [[3], [9], [15], [21]])


def test_utf8_mark_quotes_blank_padding_and_crlf(tmp_path: Path) -> None:
    text = '\ufeffdate,"a, b"\r\n2024-01-01," 1.5 "\r\n2024-01-02,2e1\r\n'
    panel = read_panel(write(tmp_path / "x.csv", text))
    assert panel.channels == ("a, b",)
    np.testing.assert_array_equal(panel.series[0].values, [[1.5], [20]])


LONG = (
    "unique_id,ds,y,z\n"
    "007,2024-01-02,3,30\nb,2024-01-01,5,50\n007,2024-01-01,1,10\nb,2024-01-02,7,70\n"
)


def test_long_tables_are_read_apart_and_together(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", LONG)
    separate = read_panel(path)
    assert (separate.layout, separate.channels, [s.name for s in separate.series]) == (
        "long",
        ("y", "z"),
        ["007", "b"],
    )
    np.testing.assert_array_equal(separate.series[0].values, [[1, 10], [3, 30]])
    together = read_panel(path, targets=["y"], series="together")
    assert (together.channels, together.series[0].name) == (("007", "b"), "x")
    np.testing.assert_array_equal(together.series[0].values, [[1, 5], [3, 7]])
    assert read_panel(path, series="together").channels == ("007:y", "007:z", "b:y", "b:z")


def test_known_columns_reach_past_the_end(tmp_path: Path) -> None:
    rows = [f"2024-01-{d:02d},{d if d < 6 else ''},{d % 7}" for d in range(1, 9)]
    panel = read_panel(
        write(tmp_path / "x.csv", "\n".join(["date,y,weekday", *rows])), known=["weekday"]
    )
    (series,) = panel.series
    assert (series.values.shape, series.known.shape, panel.channels) == ((5, 1), (8, 1), ("y",))
    np.testing.assert_array_equal(series.known[:, 0], [1, 2, 3, 4, 5, 6, 0, 1])


def test_values_and_known_columns_stay_with_their_times(tmp_path: Path) -> None:
    """Rows and series in any order; no row is lost or doubled."""
    times = clock("2024-01-01", "1h", 30)
    frame = pl.concat(
        [
            pl.DataFrame(
                {
                    "unique_id": name,
                    "ds": times[: 30 - 4 * place],
                    "a": np.arange(30 - 4 * place) + 100.0 * place,
                    "b": -1.0 * np.arange(30 - 4 * place),
                    "plan": np.arange(30 - 4 * place) % 7,
                }
            )
            for place, name in enumerate(("u", "v", "w"))
        ]
    )
    frame.sample(fraction=1, shuffle=True, seed=3).write_csv(tmp_path / "x.csv")
    panel = read_panel(tmp_path / "x.csv", targets=["b", "a"], known=["plan"])
    assert sorted(series.name for series in panel.series) == ["u", "v", "w"]
    assert panel.channels == ("b", "a")
    for series in panel.series:
        place = "uvw".index(series.name)
        count = np.arange(30 - 4 * place)
        np.testing.assert_array_equal(series.times, times[count])
        np.testing.assert_array_equal(
            series.values, np.stack([-1.0 * count, count + 100.0 * place], 1)
        )
        np.testing.assert_array_equal(series.known[:, 0], count % 7)


HOLES = "date,a\n2024-01-01,1\n2024-01-02,2\n2024-01-03,\n2024-01-04,4\n2024-01-06,8\n"


@pytest.mark.parametrize(
    ("fill", "values"),
    [("forward", [1, 2, 2, 4, 4, 8]), ("linear", [1, 2, 3, 4, 6, 8]), ("zero", [1, 2, 0, 4, 0, 8])],
)
def test_holes_are_filled_as_asked_for(fill, values: list[float], tmp_path: Path) -> None:
    (series,) = read_panel(write(tmp_path / "x.csv", HOLES), fill=fill).series
    np.testing.assert_array_equal(series.values[:, 0], values)
    np.testing.assert_array_equal(series.times, clock("2024-01-01", "1d", 6))


@QUICK
@given(data=st.data())
def test_forward_never_looks_ahead(data, tmp_path: Path) -> None:
    """What is filled up to a row does not change when later rows do."""
    holes = data.draw(st.lists(st.booleans(), min_size=4, max_size=12))
    values = ["0", "1", "2", *("" if hole else str(i) for i, hole in enumerate(holes))]
    cut = data.draw(st.integers(3, len(values)))

    def filled(cells: list[str]) -> np.ndarray:
        text = "date,a\n" + "".join(f"2024-01-{i + 1:02d},{c}\n" for i, c in enumerate(cells))
        return read_panel(write(tmp_path / "x.csv", text), fill="forward").series[0].values[:, 0]

    np.testing.assert_array_equal(filled(values)[:cut], filled(values[:cut]))


def test_as_is_keeps_repeated_and_missing_steps(tmp_path: Path) -> None:
    text = "date,a\n2024-01-01,1\n2024-01-02,2\n2024-01-02,3\n2024-01-03,4\n2024-01-07,5\n"
    panel = read_panel(write(tmp_path / "x.csv", text), fill="as-is")
    assert panel.frequency == "1d"
    np.testing.assert_array_equal(panel.series[0].values[:, 0], [1, 2, 3, 4, 5])


def test_frequencies_have_names() -> None:
    for name, text in {
        "60m": "1h",
        "7d": "1w",
        "12mo": "1y",
        "3mo": "1q",
        "H": "1h",
        "15min": "15m",
        "D": "1d",
        "90m": "90m",
        "2w": "2w",
        "1s": "1s",
        "500ms": "500ms",
    }.items():
        assert parse_frequency(name).text == text
    assert infer_step(np.array(["2024-01-01"], dtype="datetime64[us]")) is None


@pytest.mark.parametrize(
    ("past", "frequency", "ahead"),
    [
        (["2023-12-31", "2024-01-31"], "1mo", ["2024-02-29", "2024-03-31", "2024-04-30"]),
        (["2024-01-30", "2024-02-29"], "1mo", ["2024-03-30", "2024-04-30", "2024-05-30"]),
        (["2024-02-01"], "1mo", ["2024-03-01", "2024-04-01", "2024-05-01"]),
        (["2024-02-29"], "1y", ["2025-02-28", "2026-02-28", "2027-02-28"]),
        (["2024-02-28"], "1d", ["2024-02-29", "2024-03-01", "2024-03-02"]),
    ],
)
def test_future_times_follow_the_calendar(
    past: list[str], frequency: str, ahead: list[str]
) -> None:
    np.testing.assert_array_equal(
        future_times(np.array(past, dtype="datetime64[us]"), frequency, 3),
        np.array(ahead, dtype="datetime64[us]"),
    )


def test_months_off_the_calendar_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"off the|missing"):
        read_panel(
            write(tmp_path / "x.csv", "date,a\n2024-01-01,1\n2024-02-02,1\n2024-03-01,1\n"),
            frequency="1mo",
        )


def test_reading_does_not_import_torch() -> None:
    code = (
        "import sys, headwise.data.series.series, headwise.data.series.windows; "
        "import headwise.data.series.files, headwise.data.series.generate; "
        "import headwise.data.catalogue; "
        "sys.exit('torch' in sys.modules or 'pooch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
