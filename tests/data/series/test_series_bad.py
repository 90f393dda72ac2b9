"""Bad tables: each must be refused with one line that says what, where and what to do."""

import gzip
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from headwise.base.errors import InputError
from headwise.data.formats import tables_packed
from headwise.data.series.series import read_panel

HOURS = [f"2024-01-01 {h:02d}:00:00" for h in range(24)]


def wide(rows: int = 8, **change: str) -> str:
    """A sound wide csv of columns a and b; `change` sets a cell: a3="x"."""
    lines = ["date,a,b"]
    for i in range(rows):
        usual = {"d": HOURS[i], "a": str(i), "b": "1.5"}
        lines.append(",".join(change.get(f"{name}{i}", cell) for name, cell in usual.items()))
    return "\n".join(lines) + "\n"


def long(*rows: str) -> str:
    return "unique_id,ds,y\n" + "\n".join(rows) + "\n"


def npz(path: Path, **arrays: Any) -> None:
    np.savez(path, allow_pickle=True, **arrays)


def parquet(path: Path, **columns: Any) -> None:
    pl.DataFrame(columns).write_parquet(path)


def rows_of(name: str, hours: list[str]) -> list[str]:
    return [f"{name},{h},1" for h in hours]


# name of the file, what is in it (text, bytes or a writer), options, words of the message
Content = str | bytes | Callable[[Path], None]
CASES: dict[str, tuple[str, Content, dict[str, Any], str]] = {
    "empty": ("x.csv", "", {}, r"is empty"),
    "blank": ("x.csv", "   \n", {}, r"first line is blank"),
    "no rows": ("x.csv", "date,a\n", {}, r"no rows"),
    "one row": ("x.csv", wide(1), {}, r"too few dates.*--frequency"),
    "unknown ending": ("x.xls", "a,b\n", {}, r"unknown kind of file '.xls'.*\.parquet"),
    "cut zip as csv": ("x.csv", b"PK\x03\x04rest of it", {}, r"is a damaged zip archive"),
    "csv as spreadsheet": ("x.xlsx", "a,b\n", {}, r"is no spreadsheet although"),
    "parquet as csv": ("x.csv", b"PAR1rest", {}, r"is parquet; rename"),
    "csv as parquet": ("x.parquet", wide(), {}, r"is not parquet"),
    "cut parquet": ("x.parquet", b"PAR1" + b"\1" * 100, {}, r"damaged parquet"),
    "csv as npz": ("x.npz", wide(), {}, r"not an \.npz archive"),
    "csv as gz": ("x.csv.gz", wide(), {}, r"is not gzip"),
    "cut gz": ("x.csv.gz", gzip.compress(wide(24).encode() * 50)[:-20], {}, r"damaged gzip"),
    "flipped gz": (
        "x.csv.gz",
        gzip.compress(wide(24).encode())[:-8] + b"\0" * 8,
        {},
        r"damaged gzip",
    ),
    "gz of nothing": ("x.csv.gz", gzip.compress(b""), {}, r"is empty"),
    "UTF-32": ("x.csv", wide().encode("utf-32"), {}, r"binary, not text"),
    "UTF-16 cut off": ("x.csv", wide().encode("utf-16")[:-1], {}, r"damaged UTF-16 text"),
    "two encodings": (
        "x.csv",
        "date,\xe9\n".encode() + b"2024-01-01,\xe9\n",
        {},
        r"neither UTF-8 nor cp1252 text \(bytes of both\)",
    ),
    "cyrillic": (
        "x.csv",
        "date,\u0446\u0435\u043d\u0430\n2024-01-01,1\n".encode("cp1251"),
        {},
        r"unknown encoding",
    ),
    "row too long": ("x.csv", wide(b3="1,2,3"), {}, r"more cells than the header"),
    "row too short": (
        "x.csv",
        wide().replace(f"{HOURS[3]},3,1.5", f"{HOURS[3]},3"),
        {},
        r"'b' has no finite value at",
    ),
    "column twice": ("x.csv", "date,a,a\n2024-01-01,1,2\n", {}, r"'a' appears more than once"),
    "columns without names": (
        "x.csv",
        "report,,\ndate,a,b\n2024-01-01,1,2\n",
        {},
        r"columns 2, 3 of 3 have no name",
    ),
    "column without name and most values": (
        "x.csv",
        "date,a,\n2024-01-01,1,\n2024-01-02,2,\n2024-01-03,3,5\n",
        {},
        r"column 3 of 3 has no name, but 1 value",
    ),
    "text": (
        "x.csv",
        wide(a3="oops"),
        {},
        r"'a', row 4 \(2024-01-01 03:00:00\) holds 'oops', not a number",
    ),
    "formula": ("x.csv", wide(b2="=A1+B1"), {}, r"'b', row 3.*'=A1\+B1', not a number"),
    "decimal comma among points": ("x.csv", wide(b3='"3,5"'), {}, r"holds '3,5', not a number"),
    "thousands or decimals": (
        "x.csv",
        "date,a\n" + "".join(f'{hour},"1,23{k}"\n' for k, hour in enumerate(HOURS[:8])),
        {},
        r"holds '1,230', not a number",
    ),
    "cell of two lines": ("x.csv", wide(a3='"one\ntwo"'), {}, r"not a number"),
    "very long cell": ("x.csv", wide(a3="x" * 10_000), {}, r"xxx\.\.\., not a number"),
    "text column": (
        "x.csv",
        "date,a,city\n2024-01-01,1,Paris\n2024-01-02,2,Paris 2\n",
        {},
        r"'city'.*--targets",
    ),
    "missing value": (
        "x.csv",
        wide(a3="", a5=""),
        {},
        r"'a' has no finite value at 2024-01-01 03:00:00 \(2 rows",
    ),
    "NaN": ("x.csv", wide(b3="NaN"), {}, r"'b' has no finite value at 2024-01-01 03"),
    "null word": ("x.csv", wide(b3="NULL"), {}, r"'b' has no finite value"),
    "infinite": ("x.csv", wide(b3="-inf"), {}, r"'b' has no finite value at 2024-01-01 03"),
    "1e999": ("x.csv", wide(b3="1e999"), {}, r"'b' has no finite value"),
    "all missing": ("x.csv", "date,a\n2024-01-01,\n2024-01-02,\n", {}, r"no value at all"),
    "bad date": (
        "x.csv",
        wide(d3="yesterday"),
        {},
        r"row 4: column 'date' holds 'yesterday', not a date",
    ),
    "30 February": ("x.csv", wide(d3="2024-02-30 03:00:00"), {}, r"row 4.*not a date"),
    "no date in a row": ("x.csv", wide(d3=""), {}, r"row 4.*is empty, not a date"),
    "day or month": (
        "x.csv",
        "date,a\n01/02/2024,1\n02/02/2024,2\n",
        {},
        r"day/month or month/day",
    ),
    "dates are numbers": (
        "x.parquet",
        lambda p: parquet(p, date=[1, 2], a=[1.0, 2.0]),
        {},
        r"column 'date' holds 1, not a date.*--frequency",
    ),
    "same time twice": (
        "x.csv",
        wide(d3=HOURS[2]),
        {},
        r"2024-01-01 02:00:00 appears more than once \(1 row too many\)",
    ),
    "step missing": (
        "x.csv",
        wide(8, d7=HOURS[9]),
        {},
        r"2 of 10 steps of 1h are missing, the first at 2024-01-01 07.*--fill",
    ),
    "off the clock": ("x.csv", wide(d7="2024-01-01 07:30:00"), {}, r"07:30:00 is off the 1h clock"),
    "other frequency": ("x.csv", wide(), {"frequency": "7h"}, r"off the 7h clock.*--frequency"),
    "wrong century": ("x.csv", wide(d7="9024-01-01 07:00:00"), {}, r"steps of 1h"),
    "wrong century, filled": (
        "x.csv",
        wide(d7="9024-01-01 07:00:00"),
        {"fill": "zero"},
        r"is a date wrong\?",
    ),
    "no frequency, no date": (
        "x.csv",
        "a,b\n1,2\n3,4\n",
        {},
        r"no column of dates.*--frequency 5m",
    ),
    "unknown frequency": (
        "x.csv",
        wide(),
        {"frequency": "hourly-ish"},
        r"'hourly-ish' is not a frequency",
    ),
    "month or minute": ("x.csv", wide(), {"frequency": "M"}, r"'M' is not a frequency"),
    "zero frequency": ("x.csv", wide(), {"frequency": "0h"}, r"'0h' is not a frequency"),
    "unknown fill": (
        "x.csv",
        wide(),
        {"fill": "backward"},
        r"'backward' is none of error, forward",
    ),
    "misspelt target": ("x.csv", wide(), {"targets": ["A"]}, r"no column 'A'; did you mean 'a'\?"),
    "misspelt date": ("x.csv", wide(), {"date": "dat"}, r"no column 'dat'; did you mean 'date'\?"),
    "misspelt known": (
        "x.csv",
        wide(),
        {"known": ["holiday"]},
        r"no column 'holiday'; it has 'date', 'a', 'b'",
    ),
    "no target left": ("x.csv", wide(), {"known": ["a", "b"]}, r"no column left to forecast"),
    "two roles": ("x.csv", wide(), {"targets": ["a"], "known": ["a"]}, r"'a' is asked for twice"),
    "forward from nothing": (
        "x.csv",
        wide(a0=""),
        {"fill": "forward"},
        r"--fill forward has no value before it",
    ),
    "linear to nothing": (
        "x.csv",
        wide(a7=""),
        {"fill": "linear"},
        r"--fill linear has no value after it",
    ),
    "as-is refuses NaN": ("x.csv", wide(a3="nan"), {"fill": "as-is"}, r"'a' has no finite value"),
    "known not filled ahead": (
        "x.csv",
        wide(a6="", a7="", b7=""),
        {"targets": ["a"], "known": ["b"]},
        r"'b' has no finite value at.*07:00",
    ),
    "long: text": (
        "x.csv",
        long("p,2024-01-01,1", "p,2024-01-02,x"),
        {},
        r"series 'p'.*'y', row 2.*'x', not a number",
    ),
    "long: no id": (
        "x.csv",
        long("p,2024-01-01,1", ",2024-01-02,1", ",2024-01-03,1"),
        {},
        r"row 2: column 'unique_id' is empty",
    ),
    "long: same time twice": (
        "x.csv",
        long(*rows_of("p", [*HOURS[:3], HOURS[1]])),
        {},
        r"series 'p'.*more than once",
    ),
    "long: gap": (
        "x.csv",
        long(*rows_of("p", HOURS[:5]), *rows_of("q", HOURS[:2] + HOURS[3:5])),
        {},
        r"series 'q'.*missing",
    ),
    "long: apart in time": (
        "x.csv",
        long(*rows_of("p", HOURS[:5]), *rows_of("q", HOURS[1:5])),
        {"series": "together"},
        r"series 'q' has no row at 2024-01-01 00:00:00",
    ),
    "long: id missing": ("x.csv", wide(), {"id_column": "sensor"}, r"no column 'sensor'"),
    "list column": (
        "x.parquet",
        lambda p: parquet(p, ds=HOURS[:2], y=[[1.0], [2.0]]),
        {},
        r"'y' holds List.*not numbers",
    ),
    "npz: no data": (
        "x.npz",
        lambda p: npz(p, other=np.zeros((4, 2))),
        {"frequency": "5m"},
        r"no array named 'data'",
    ),
    "npz: objects": (
        "x.npz",
        lambda p: npz(p, data=np.array([{}, {}])),
        {"frequency": "5m"},
        r"cannot be read",
    ),
    "npz: one axis": (
        "x.npz",
        lambda p: npz(p, data=np.zeros(4)),
        {"frequency": "5m"},
        r"shape \(4,\)",
    ),
    "npz: no rows": (
        "x.npz",
        lambda p: npz(p, data=np.zeros((0, 3))),
        {"frequency": "5m"},
        r"shape \(0, 3\)",
    ),
    "npz: no frequency": ("x.npz", lambda p: npz(p, data=np.zeros((4, 2))), {}, r"--frequency 5m"),
    "npz: cut": ("x.npz", b"PK\x03\x04" + b"\0" * 50, {"frequency": "5m"}, r"cannot be read"),
    "million columns": (
        "x.csv",
        ",".join(map(str, range(10**6))) + "\n",
        {},
        r"more than 100,000 columns",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_table_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    name, content, options, words = CASES[case]
    path = tmp_path / name
    if callable(content):
        content(path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InputError, match=words) as caught:
        read_panel(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400 + len(str(path))
    if not {"frequency", "fill"} & options.keys():
        assert str(path) in message


def test_the_table_of_cases_is_long_enough() -> None:
    assert len(CASES) >= 40


def test_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "sales.csv").write_text(wide())
    with pytest.raises(InputError, match=r"no such file; did you mean 'sales.csv'\?"):
        read_panel(tmp_path / "sale.csv")


def test_a_folder_and_odd_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        read_panel(tmp_path)
    with pytest.raises(InputError, match=r"no such file|cannot be read") as caught:
        read_panel(tmp_path / "two\nlines.csv")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"no such file|cannot be read"):
        read_panel("nul\0byte.csv")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(wide())
    path.chmod(0)
    with pytest.raises(InputError, match="permissions"):
        read_panel(path)


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables_packed, "UNPACKED_CAP", 1 << 20)
    monkeypatch.setattr("headwise.data.series.cells.UNPACKED_CAP", 1 << 20)
    bomb = tmp_path / "x.csv.gz"
    bomb.write_bytes(gzip.compress(b"a" * (2 << 20)))
    with pytest.raises(InputError, match="unpacks to more than"):
        read_panel(bomb)
    data = io.BytesIO()
    np.save(data, np.zeros((1 << 18, 1)))
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.npy", data.getvalue())
    with pytest.raises(InputError, match="unpacks to more than"):
        read_panel(tmp_path / "x.npz", frequency="5m")


class Bomb:
    """Leaves a mark if it is ever unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def test_npz_is_never_unpickled(tmp_path: Path) -> None:
    npz(tmp_path / "x.npz", data=np.array([Bomb(tmp_path / "mark")], dtype=object))
    with pytest.raises(InputError, match="cannot be read"):
        read_panel(tmp_path / "x.npz", frequency="5m")
    assert not (tmp_path / "mark").exists()
