"""Spreadsheets (.xlsx of Excel, .ods of LibreOffice): the first sheet that they show."""

import importlib.util
import io
import logging
import re
import zipfile
import zlib
from collections import Counter
from functools import lru_cache, partial
from pathlib import Path
from typing import IO

import polars as pl

from ...base.account import note
from ...base.errors import InputError, fail, reason, shown
from ...base.extras import install_line
from .tables_packed import UNPACKED_CAP, too_large

BOOK_SUFFIXES = (".xlsx", ".xlsm", ".ods")
CELL_CAP = 100_000_000  # cells that a sheet may span: the reader holds all of them

# The place of a cell (r="AB12") or of a row (r="12"), wherever it stands.
_PLACE = re.compile(rb"""\br\s*=\s*["']([A-Za-z]{0,3})(\d{1,10})["']""")


def read_book(path: object, source: Path | bytes) -> tuple[pl.DataFrame, list[str]]:
    """The first sheet that a spreadsheet shows, and the names in its first row ("" where there is
    none); the first one where all are hidden.

    path: for messages. source: the file, or its bytes. Numbers, texts and dates keep their type;
    whole numbers are integers. Other sheets are noted as left out. Raises InputError where the
    extra `excel` is missing, and for a file that is damaged, too large or has no cells.
    """
    if importlib.util.find_spec("fastexcel") is None:
        cure = f"{install_line('excel')}, or save it as csv"
        raise fail(path, f"is a spreadsheet, and fastexcel is not installed; {cure}")
    try:
        if isinstance(source, Path):
            stat = source.stat()
            table, cells, others = _sheet(source, stat.st_mtime_ns, stat.st_size)
        else:
            table, cells, others = _first_sheet(source)
    except InputError as error:
        raise fail(path, error.args[0]) from None
    if others:
        left_out = [f"{path}: {name}" for name in others]
        note("left out", "sheets (only the first that is shown is read)", left_out)
    names = [*cells[: table.width], *[""] * (table.width - len(cells))]
    if twice := [name for name, count in Counter(names).items() if count > 1 and name]:
        raise fail(path, f"column {shown(twice[0])} appears more than once; rename one")
    return table, names


@lru_cache(maxsize=2)  # a table of many series is read once for each group of them
def _sheet(file: Path, _changed: int, _size: int) -> tuple[pl.DataFrame, list[str], list[str]]:
    return _first_sheet(file)


def _first_sheet(source: Path | bytes) -> tuple[pl.DataFrame, list[str], list[str]]:
    """The first sheet that is shown, the cells of its first row, and the names of the others."""
    import fastexcel

    _check_size(source)
    # Its warnings about columns without cells are not ours.
    logging.getLogger("fastexcel").setLevel(logging.ERROR)
    logging.getLogger("fastexcel.types.dtype").setLevel(logging.ERROR)
    try:
        book = fastexcel.read_excel(source)
        sheets = list(book.sheet_names)
        first_row = partial(book.load_sheet, header_row=None, n_rows=1, dtypes="string")
        rows = enumerate(map(first_row, range(len(sheets))))
        visible = ((number, row) for number, row in rows if row.visible == "visible")
        place, row = next(visible, None) or (0, first_row(0))
        cells = row.to_polars()
        table = pl.read_excel(
            source if isinstance(source, Path) else io.BytesIO(source),
            sheet_id=place + 1,
            infer_schema_length=None,  # a text below the sample would become a missing number
            drop_empty_rows=False,
            drop_empty_cols=False,
            raise_if_empty=False,
        )
    # The reader has exceptions of its own, which are no common ones.
    except Exception as error:
        problem = f"cannot be read as a spreadsheet ({reason(error)})"
        raise InputError(f"{problem}; save it again, or as csv") from error
    if not cells.height:
        problem = f"holds no table; its first sheet {shown(sheets[place])} has no cells"
        raise InputError(problem)
    others = [f"{name} (hidden)" for name in sheets[:place]] + sheets[place + 1 :]
    return table, [" ".join((cell or "").split()) for cell in cells.row(0)], others


def _check_size(source: Path | bytes) -> None:
    """Raise InputError for a spreadsheet that would fill the memory, and for one that is no
    archive.
    """
    try:
        with zipfile.ZipFile(source if isinstance(source, Path) else io.BytesIO(source)) as archive:
            members = archive.infolist()
            if sum(info.file_size for info in members) > UNPACKED_CAP:
                raise InputError(too_large())
            for info in members:
                # .ods has a limit of the reader's own. A reader of .xlsx makes room for all cells
                # up to the last, and the process ends where there is no room.
                if info.filename.endswith((".xml", ".XML")) and info.filename != "content.xml":
                    with archive.open(info) as part:
                        _check_span(part)
    except (OSError, EOFError, ValueError, zlib.error, RuntimeError, zipfile.BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"is a damaged spreadsheet ({reason(error)}); save it again") from error


def _check_span(sheet: IO[bytes]) -> None:
    """Raise InputError for a sheet with cells so far apart that the table between them is huge."""
    rows = columns = 1
    rest = b""
    while chunk := sheet.read(4 << 20):
        text = rest + chunk
        for letters, digits in set(_PLACE.findall(text)):
            rows = max(rows, int(digits))
            columns = max(columns, _column_number(letters))
        rest = text[-100:]
    if rows * columns > CELL_CAP:
        size = f"{rows:,} rows and {columns:,} columns"
        raise InputError(f"has a sheet that spans {size}; save the table as csv")


def _column_number(letters: bytes) -> int:
    """1 for A, 27 for AA.

    >>> _column_number(b"AB")
    28
    """
    number = 0
    for letter in letters.upper():
        number = number * 26 + letter - 64
    return number
