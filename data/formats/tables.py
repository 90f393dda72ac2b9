"""Tables in files: csv, tsv and txt (plain or gzip) and parquet, opened by polars within limits.

Text files are read as text. Whoever uses a column decides its type (`numbers`,
`series.clock.read_times`), so that a bad cell can be named and does not spoil the entire file.
"""

import glob
import gzip
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl

from ...base.errors import InputError, fail, nearest, reason, shown
from ...base.files import refuse_link_out, similar_file, walk_folder

TEXT_SEPARATORS = {
    ".csv": ",",
    ".txt": ",",
    ".tsv": "\t",
    ".inter": "\t",
    ".user": "\t",
    ".item": "\t",
}
TABLE_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".txt.gz", ".parquet")
COLUMN_CAP = 100_000
UNPACKED_CAP = 4 << 30  # bytes
MISSING_WORDS = ("", "na", "nan", "n/a", "null", "none", "-nan")
_HEAD_BYTES = 4 << 20  # enough for a header of COLUMN_CAP names of forty letters


def require_columns(where: object, required: Iterable[str], columns: Sequence[str]) -> None:
    """Raise InputError for the first required name that `columns` lack, with the nearest one."""
    present = set(columns)
    for name in required:
        if name not in present:
            raise fail(where, f"there is no column {shown(name)}{nearest(name, columns)}")


def suffix_of(path: Path) -> str:
    """The lower-case ending that names the format: ".csv.gz" for "a.CSV.gz"."""
    suffixes = [s.lower() for s in path.suffixes[-2:]]
    return "".join(suffixes) if suffixes[-1:] == [".gz"] else (suffixes[-1] if suffixes else "")


def stem_of(path: str | Path) -> str:
    """The name of a file without its folder and endings: "ETTh1" for "x/ETTh1.csv.gz"."""
    name = Path(path).name
    ending = suffix_of(Path(path))
    return name[: -len(ending)] if ending and name.lower().endswith(ending) else name


def check_file(path: str | Path, allowed: Sequence[str] = TABLE_SUFFIXES) -> Path:
    """The path of a file that exists, can be read, is not empty and has an allowed format.

    allowed: endings as `suffix_of` gives them. Raises InputError for anything else.
    """
    file = Path(path)
    try:
        if file.is_dir():
            raise fail(path, "is a folder; give a file")
        if not file.exists():
            raise fail(path, f"there is no such file{similar_file(file)}")
        if not file.is_file():
            raise fail(path, "is not a plain file")
        if suffix_of(file) not in allowed:
            raise fail(
                path,
                f"unknown kind of file {suffix_of(file)!r}; headwise reads {', '.join(allowed)}",
            )
        with file.open("rb") as opened:
            head = opened.read(4)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise fail(
            path, f"cannot be read ({reason(error)}); check the name and the permissions"
        ) from error
    if not head:
        raise fail(path, "is empty (0 bytes)")
    _check_magic(path, file, head)
    return file


def list_files(path: str | Path, suffixes: Sequence[str]) -> list[str]:
    """The files of these kinds that a path, a folder (without those below it) or a pattern names,
    sorted.

    Raises InputError if there is none, and for links that lead out of their folder.
    """
    source = Path(path)
    if source.is_dir():
        files = [source / name for name in walk_folder(source, suffixes, deep=False)]
    elif not source.exists() and glob.has_magic(str(path)):
        files = sorted(map(Path, glob.glob(str(path))))
        files = [file for file in files if suffix_of(file) in suffixes and not file.is_dir()]
        for file in files:
            if file.is_symlink():
                refuse_link_out(file, os.path.realpath(file.parent))
    else:
        check_file(path, suffixes)
        return [str(path)]
    if not files:
        raise fail(
            path, f"there is no file of a kind that headwise reads here ({', '.join(suffixes)})"
        )
    return [str(file) for file in files]


def _check_magic(path: object, file: Path, head: bytes) -> None:
    """Refuse a file whose first bytes are not those of the format that its name says."""
    suffix = suffix_of(file)
    if suffix == ".parquet":
        if head != b"PAR1":
            cure = "give it the right ending or write it again"
            raise fail(path, f"is not parquet although its name says so; {cure}")
    elif suffix == ".npz":
        if head != b"PK\x03\x04":
            cure = "write it again with numpy.savez"
            raise fail(path, f"is not an .npz archive although its name says so; {cure}")
    elif head[:2] == b"\x1f\x8b":
        stat = file.stat()
        problem = _gzip_problem(str(file), stat.st_mtime_ns, stat.st_size)
        if problem:
            raise fail(path, problem)
    elif suffix.endswith(".gz"):
        raise fail(path, "is not gzip although its name ends with .gz; rename it or pack it again")
    elif head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise fail(path, "is UTF-16 text; save it as UTF-8")
    elif head[:2] == b"PK":
        raise fail(path, "is a zip archive (a spreadsheet?); save it as csv")
    elif head == b"PAR1":
        raise fail(path, "is parquet; rename it to .parquet")
    elif b"\0" in head:
        raise fail(path, "is binary, not text; save it as csv or parquet")


@lru_cache(maxsize=4096)
def _gzip_problem(file: str, _changed: int, _size: int) -> str | None:
    """Unpack once without storing anything, to find damaged or huge files before polars unpacks
    them into memory.
    """
    total = 0
    try:
        with gzip.open(file, "rb") as opened:
            while chunk := opened.read(1 << 20):
                total += len(chunk)
                if total > UNPACKED_CAP:
                    size = f"{UNPACKED_CAP / 2**30:g} GiB"
                    return f"unpacks to more than {size}; unpack or split it yourself"
    except (OSError, EOFError, zlib.error) as error:
        return f"is damaged gzip ({reason(error)}); fetch or pack it again"
    return None if total else "is empty (0 bytes unpacked)"


def _header(path: object, file: Path, separator: str) -> list[str]:
    """The cells of the first line of a text table, as polars reads them."""
    with file.open("rb") as opened:
        packed = opened.read(2) == b"\x1f\x8b"
    with gzip.open(file, "rb") if packed else file.open("rb") as opened:
        head = opened.read(_HEAD_BYTES)
    if b"\0" in head:
        raise fail(path, "is binary or UTF-16, not UTF-8 text; save it as UTF-8 csv")
    line = head.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n").split(b"\n", 1)[0].rstrip(b"\r")
    if line.count(separator.encode()) >= COLUMN_CAP:
        raise fail(
            path, f"has more than {COLUMN_CAP:,} columns in its first line; is it transposed?"
        )
    if not line.strip():
        raise fail(path, "holds no table; its first line is blank")
    try:
        cells = pl.read_csv(
            line + b"\n",
            has_header=False,
            separator=separator,
            infer_schema=False,
            truncate_ragged_lines=True,
        ).row(0)
    except pl.exceptions.PolarsError as error:
        raise fail(path, f"its first line cannot be read ({reason(error)})") from error
    names = [(cell or "").strip() for cell in cells]
    for mark, spelling in ((";", "semicolons"), ("\t", "tabs"), (",", "commas")):
        if len(names) == 1 and mark in names[0]:
            cure = f"save it with {shown(separator)} between cells"
            raise fail(path, f"seems to be separated by {spelling}; {cure}")
    return names


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def scan_table(
    path: str | Path, allowed: Sequence[str] = TABLE_SUFFIXES
) -> tuple[pl.LazyFrame, list[str]]:
    """A lazy table and its column names; none of its rows are read yet.

    Cells of text files stay text. A text file whose first line is numbers that are not distinct
    integers has no header (Solar, Exchange): its columns are then named "0", "1", ... Errors of
    polars appear when the table is collected: use `collect`. Raises InputError for a file that is
    missing, empty, damaged, too wide or of an unknown kind.
    """
    file = check_file(path, allowed)
    if suffix_of(file) == ".parquet":
        frame = pl.scan_parquet(file)
        try:
            names = frame.collect_schema().names()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise fail(path, f"is damaged parquet ({reason(error)}); write it again") from error
        if len(names) > COLUMN_CAP:
            raise fail(path, f"has more than {COLUMN_CAP:,} columns; is it transposed?")
        return frame, names
    separator = TEXT_SEPARATORS[suffix_of(file).removesuffix(".gz")]
    names = _header(path, file, separator)
    headless = all(map(_is_number, names)) and (
        len(set(names)) < len(names) or not all(n.lstrip("-").isdigit() for n in names)
    )
    if headless:
        names = [str(i) for i in range(len(names))]
    else:
        for index, name in enumerate(names):
            if not name:
                raise fail(
                    path,
                    f"column {index + 1} of {len(names)} has no name; name it in the first line",
                )
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated:
            raise fail(path, f"column {shown(repeated[0])} appears more than once; rename one")
    frame = pl.scan_csv(
        file,
        separator=separator,
        has_header=not headless,
        new_columns=names,
        infer_schema=False,
        low_memory=True,
    )
    return frame, names


def collect(path: object, frame: pl.LazyFrame) -> pl.DataFrame:
    """Read a lazy table. Raises InputError for rows with too many cells, bad encoding and other
    damage.
    """
    try:
        return frame.collect(engine="streaming")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable(path, error) from error


def unreadable(path: object, error: Exception) -> InputError:
    """An error of polars while it read a table, as a line that says what to do."""
    problem = reason(error)
    if "more fields than defined" in problem:
        return fail(
            path,
            "a row has more cells than the header has names; quote cells that hold the separator",
        )
    if "utf-8" in problem.lower():
        return fail(path, "it is not UTF-8 text; save it as UTF-8")
    return fail(path, f"it cannot be read ({problem})")


def number_column(
    where: object, column: pl.Series, name: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """As `numbers`, but a column of another type is an error of the file `where`.

    name: what the file calls the column, by default its own name. Raises InputError.
    """
    try:
        return numbers(column)
    except TypeError as error:
        name = column.name if name is None else name
        raise fail(where, f"column {shown(name)} holds {error}, not numbers") from None


def numbers(column: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """A column (n,) as float64, NaN where missing or infinite, and a mask (n,) of the cells that
    are not numbers.

    Raises TypeError with the name of the type for columns that hold neither numbers nor text.
    """
    kind = column.dtype
    if not (kind == pl.String or kind.is_numeric() or kind == pl.Boolean or kind == pl.Null):
        raise TypeError(str(kind))
    cast = column.cast(pl.Float64, strict=False)
    bad = np.zeros(len(column), dtype=bool)
    if cast.null_count() > column.null_count():  # most columns are clean and skip this
        text = column.cast(pl.String).str.strip_chars()
        missing = text.is_null() | text.str.to_lowercase().is_in(MISSING_WORDS)
        cast = text.cast(pl.Float64, strict=False)
        bad = (cast.is_null() & ~missing).to_numpy().astype(bool)
    values = cast.to_numpy().astype(np.float64)
    values[~np.isfinite(values)] = np.nan
    return values, bad
