"""Bad series given to `headwise forecast train`: file, content, further options, words of the
message.
"""

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from headwise.data.series.generate import many_series, sample_series, write_wide
from headwise.tests.hostile import Bomb

Content = str | bytes | Callable[[Path], object] | None


def wide(rows: int = 60, kind: str = "hourly", known: int = 0, **cells: str) -> str:
    """A sound wide csv of columns date, a, b; `a3="x"` sets a cell, known more rows hold b
    alone.
    """
    return "\n".join(map(",".join, table(rows, kind, known, **cells))) + "\n"


def table(rows: int, kind: str = "hourly", known: int = 0, **cells: str) -> list[list[str]]:
    start, step = (
        np.datetime64("2024-01-01T00:00:00"),
        {"hourly": "h", "daily": "D", "minutely": "m"}[kind],
    )
    lines = [["date", "a", "b"]]
    for i in range(rows + known):
        date = str(start + np.timedelta64(i, step)).replace("T", " ")
        row = {"date": date, "a": str(i % 7) if i < rows else "", "b": f"{i % 5}.5"}
        lines.append([cells.get(f"{name}{i}", value) for name, value in row.items()])
    return lines


def without(text: str, *rows: int) -> str:
    return "".join(
        line for i, line in enumerate(text.splitlines(keepends=True)) if i - 1 not in rows
    )


def folder(path: Path) -> None:
    path.mkdir()


def parquet(path: Path) -> None:
    pl.DataFrame({"date": ["2024-01-01"], "a": [1.0]}).write_parquet(path)
    path.write_bytes(path.read_bytes()[:-30])


def npz_of_objects(path: Path) -> None:
    np.savez(path, allow_pickle=True, data=np.array([Bomb("unpickled")], dtype=object))


def short_among_long(path: Path) -> None:
    many_series(3, 200, path, broken=1)


def daily(path: Path) -> None:
    write_wide(sample_series("daily", rows=500, channels=2), path)


def weekly(path: Path) -> None:
    weeks = pl.read_csv(wide(7 * 700, "daily").encode()).gather_every(7)
    weeks.write_csv(path)


FRESH = np.random.default_rng(0)
BINARY = FRESH.integers(0, 256, 4096, dtype=np.uint8).tobytes()
TEXT = wide()

DATA: dict[str, tuple[str, Content, str, str]] = {
    "missing file": ("x.csv", None, "", r"^x\.csv: there is no such file"),
    "missing file, one like it": (
        "sale.csv",
        lambda p: p.with_name("sales.csv").write_text(TEXT),
        "",
        r"^sale\.csv: there is no such file; did you mean 'sales\.csv'\?",
    ),
    "directory": ("x.csv", folder, "", r"^x\.csv: is a folder; give a file"),
    "no bytes": ("x.csv", "", "", r"^x\.csv: is empty"),
    "blank lines": ("x.csv", "\n\n \n", "", r"^x\.csv: holds no table"),
    "header only": (
        "x.csv",
        "date,a,b\n",
        "",
        r"^x\.csv: .*no rows|^x\.csv: has column names but no rows",
    ),
    "one row": ("x.csv", wide(1), "", r"^x\.csv: too few dates"),
    "dates only": ("x.csv", "date\n2024-01-01\n2024-01-02\n", "", r"no column left to forecast"),
    "no column of numbers": (
        "x.csv",
        "date,city\n2024-01-01,Rome\n2024-01-02,Oslo\n",
        "",
        r"'city', row 1 .*'Rome', not a number",
    ),
    "misspelt --targets": (
        "x.csv",
        TEXT.replace("a,b", "load,price"),
        "--targets lod",
        r"no column 'lod'; did you mean 'load'\?",
    ),
    "misspelt --date": (
        "x.csv",
        TEXT.replace("date", "moment"),
        "--date momnt",
        r"no column 'momnt'; did you mean 'moment'\?",
    ),
    "misspelt --known": (
        "x.csv",
        TEXT.replace("a,b", "load,price"),
        "--known prise",
        r"no column 'prise'; did you mean 'price'\?",
    ),
    "misspelt --id-column": (
        "x.csv",
        TEXT,
        "--id-column dat",
        r"no column 'dat'; did you mean 'date'\?",
    ),
    "a column in two roles": ("x.csv", TEXT, "--targets a --known a", r"'a' is asked for twice"),
    "text among numbers": (
        "x.csv",
        wide(a7="oops"),
        "",
        r"'a', row 8 \(2024-01-01 07:00:00\) holds 'oops', not a number",
    ),
    "formula": ("x.csv", wide(b3="=SUM(A1:A9)"), "", r"'=SUM\(A1:A9\)', not a number"),
    "thousands or decimals": (
        "x.csv",
        re.sub(r",([^,\n]*)$", r',"1,234"', TEXT, flags=re.M).replace(',"1,234"', ",b", 1),
        "",
        r"holds '1,234', not a number",
    ),
    "missing value": ("x.csv", wide(a9=""), "", r"'a' has no finite value at 2024-01-01 09:00:00"),
    "NaN": (
        "x.csv",
        wide(b9="NaN"),
        "--fill error",
        r"'b' has no finite value at 2024-01-01 09:00:00 .*--fill forward",
    ),
    "infinite": ("x.csv", wide(b9="inf"), "", r"'b' has no finite value at 2024-01-01 09:00:00"),
    "nothing to carry forward": (
        "x.csv",
        wide(a0=""),
        "--fill forward",
        r"--fill forward has no value before it",
    ),
    "too large for float32": (
        "x.csv",
        wide(a3="1e300", a4="-1e300"),
        "",
        r"^x\.csv: column 'a' holds 1e\+300 at 2024-01-01 03:00:00, too large a number",
    ),
    "same time twice": (
        "x.csv",
        wide(date5="2024-01-01 04:00:00"),
        "",
        r"timestamp 2024-01-01 04:00:00 appears more than once",
    ),
    "missing steps": (
        "x.csv",
        without(TEXT, 20, 21),
        "",
        r"2 of 60 steps of 1h are missing, the first at 2024-01-01 20:00:00.*--fill",
    ),
    "mixed frequencies": (
        "x.csv",
        TEXT + without(wide(40, "minutely"), -1).replace("2024-01-01", "2024-01-05"),
        "",
        r"off the 1h clock|steps of .* are missing",
    ),
    "another frequency": ("x.csv", TEXT, "--frequency 7h", r"off the 7h clock"),
    "no frequency at all": (
        "x.csv",
        TEXT,
        "--frequency hourly-ish",
        r"'hourly-ish' is not a frequency; write 5m",
    ),
    "ambiguous frequency": ("x.csv", TEXT, "--frequency M", r"'M' is not a frequency"),
    "unreadable date": (
        "x.csv",
        wide(date6="yesterday"),
        "",
        r"row 7: column 'date' holds 'yesterday', not a date",
    ),
    "day or month": (
        "x.csv",
        "date,a\n" + "".join(f"0{d}/02/2024,1\n" for d in range(1, 10)),
        "",
        r"day/month or month/day",
    ),
    "no dates, no --frequency": (
        "x.csv",
        "a,b\n" + "1,2\n3,4\n" * 30,
        "",
        r"no column of dates.*--frequency",
    ),
    "too short for the split": (
        "x.csv",
        wide(30),
        "",
        r"^x\.csv: split ratio: the train|"
        r"^x\.csv: split ratio: the validation part has .*rows are needed",
    ),
    "too long a horizon": (
        "x.csv",
        TEXT,
        "--horizon 500",
        r"split ratio: .*horizon 500.*take a shorter",
    ),
    "too short a series in a long table": (
        "x.csv",
        lambda p: many_series(3, 30, p, broken=0),
        "",
        r"series 'series-000000': split ratio",
    ),
    "broken series in a long table": (
        "x.csv",
        short_among_long,
        "",
        r"series 'series-000001'.*'y'.*'oops', not a number",
    ),
    "ids that share no clock": (
        "x.csv",
        "unique_id,ds,y\n"
        + "".join(f"p,2024-01-{d:02d},1\n" for d in range(1, 31))
        + "".join(f"q,2024-02-{d:02d},1\n" for d in range(1, 29)),
        "--series together",
        r"series '[pq]' has no row at",
    ),
    "split ett of a short file": (
        "x.csv",
        TEXT,
        "--split ett",
        r"split ett: needs 20 months .*14,400 rows of 1h, got 60",
    ),
    "split ett of days": (
        "x.csv",
        daily,
        "--split ett",
        r"^x\.csv: split ett: needs 20 months of 30 days = 600 rows of 1d, got 500",
    ),
    "split ett of weeks": (
        "x.csv",
        weekly,
        "--split ett",
        r"^x\.csv: split ett: needs a clock that divides a day, .* not 1w",
    ),
    "split pems of a short file": (
        "x.csv",
        wide(40),
        "--split pems",
        r"split pems: the validation part has 8 of 40 rows",
    ),
    "two encodings": (
        "x.csv",
        wide(a4="\xe9").encode() + wide(a4="\xe9").encode("latin-1"),
        "",
        r"neither UTF-8 nor cp1252",
    ),
    "UTF-16, cut off": ("x.csv", TEXT.encode("utf-16")[:-1], "", r"damaged UTF-16 text"),
    "random bytes": (
        "x.csv",
        BINARY,
        "",
        r"^x\.csv: (is binary|.*not UTF-8|it cannot be read|.*cannot be read)",
    ),
    "random bytes as parquet": (
        "x.parquet",
        BINARY,
        "",
        r"is not parquet although its name says so",
    ),
    "truncated parquet": ("x.parquet", parquet, "", r"^x\.parquet: is damaged parquet"),
    "truncated gzip": (
        "x.csv.gz",
        gzip.compress(TEXT.encode())[:-40],
        "",
        r"^x\.csv\.gz: is damaged gzip",
    ),
    "gzip only by name": ("x.csv.gz", TEXT, "", r"is not gzip although its name"),
    "gzip bomb": ("x.csv.gz", gzip.compress(b"0" * (3 << 20)), "", r"unpacks to more than"),
    "row with too many cells": (
        "x.csv",
        wide(b5="1,2,3"),
        "",
        r"a row has more cells than the header",
    ),
    "row with too few cells": (
        "x.csv",
        TEXT.replace(" 05:00:00,5,0.5", " 05:00:00,5"),
        "",
        r"'b' has no finite value at 2024-01-01 05",
    ),
    "open quote": ("x.csv", wide(a5='"4'), "", r"^x\.csv: "),
    "column twice": ("x.csv", TEXT.replace("a,b", "a,a"), "", r"column 'a' appears more than once"),
    "columns without names": (
        "x.csv",
        TEXT.replace("date,a,b", "report,,"),
        "",
        r"columns 2, 3 of 3 have no name",
    ),
    "a million columns": (
        "x.csv",
        ",".join(map(str, range(10**6))) + "\n",
        "",
        r"more than 100,000 columns",
    ),
    "damaged spreadsheet": ("x.xlsx", b"PK\x03\x04", "", r"is a damaged spreadsheet"),
    "old spreadsheet": ("x.xls", BINARY, "", r"unknown kind of file '\.xls'"),
    "npz with a pickle in it": (
        "x.npz",
        npz_of_objects,
        "--frequency 5m",
        r"^x\.npz: cannot be read .*(allow_pickle|pickle)",
    ),
    "npz without dates": (
        "x.npz",
        lambda p: np.savez(p, data=np.ones((60, 2))),
        "",
        r"no dates; state its clock with --frequency",
    ),
    "npz without data": (
        "x.npz",
        lambda p: np.savez(p, speed=np.ones((60, 2))),
        "--frequency 5m",
        r"no array named 'data'",
    ),
}


def write(path: Path, content: Content) -> None:
    """Make a file of a case."""
    if callable(content):
        content(path)
    elif content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
