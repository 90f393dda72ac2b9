"""The table of predictions in the format that the ending of its file names.

Rows are written as they come from the parts, in bounded memory; the bytes depend on the rows alone.
Text formats hold lists and structures as JSON. In .csv and .tsv a text that a spreadsheet would run
as a formula begins with an apostrophe.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import polars as pl

from ....base.account import note
from ....base.errors import InputError, fail
from ....base.extras import install_line
from ....base.files import lies_in

Writer: TypeAlias = Callable[[pl.LazyFrame, Path], None]
"""Writes all rows to a file."""
BATCH_ROWS = 50_000  # rows in memory while a workbook is written
EXCEL_ROWS, EXCEL_TEXT = 1_048_576, 32_767  # the limits of the format
_FORMULA = r"^[=+\-@\t\r]"
_EPOCH = datetime.datetime(2000, 1, 1)  # of every workbook, so that its bytes depend on its rows


def writer_of(output: str | Path, further: Mapping[str, Writer]) -> Writer | None:
    """What writes a file of this name; None for .parquet, which the engine writes and stamps.

    further: writers of the task by ending. Raises InputError for an unknown ending, and where the
    package for a workbook is not installed.
    """
    suffix = Path(output).suffix.lower()
    writers = {**WRITERS, **{ending.lower(): writer for ending, writer in further.items()}}
    if suffix == ".parquet":
        return None
    if suffix not in writers:
        raise InputError(
            f"--output {output}: unknown ending {suffix!r}; predictions are written as "
            f"{', '.join(('.parquet', *writers))}"
        )
    if suffix == ".xlsx":
        try:
            import xlsxwriter  # noqa: F401
        except ImportError:
            raise InputError(
                f"--output {output}: a workbook needs the package XlsxWriter; "
                f"{install_line('excel')}"
            ) from None
    return writers[suffix]


def read_output(path: Path) -> pl.DataFrame:
    """A table of predictions that was written before; text formats as polars reads them."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return pl.read_parquet(path, glob=False)
    if suffix in (".csv", ".tsv"):
        separator = "\t" if suffix == ".tsv" else ","
        return pl.read_csv(path, separator=separator, infer_schema_length=None, glob=False)
    if suffix == ".jsonl":
        # It has no option to take a name with [ as it is.
        return pl.read_ndjson(path.read_bytes(), infer_schema_length=None)
    if suffix == ".xlsx":
        return pl.read_excel(path)
    raise fail(path, "is no table; write one with --output NAME.parquet or NAME.csv")


def refuse_input_as_output(output: str | Path, read: Iterable[str | os.PathLike[str]]) -> None:
    """Raise `InputError` where writing an output would replace what the same command reads.

    output: a file, beside which OUTPUT.png, OUTPUT.maps/ and others may be written, or a folder.
    read: files, folders and patterns that the command reads. Results within a folder that is read
    are no harm: who lists a folder leaves them out (`base.own_files`).
    """
    real = os.path.realpath(output)
    for path in (os.fspath(path) for path in read):
        place = os.path.realpath(path)
        if place == real or _same_file(path, str(output)):
            raise InputError(f"--output {output}: is read by this command; name another")
        if lies_in(place, real) or place.startswith(f"{real}."):
            raise InputError(f"--output {output}: {path}, which is read, would be replaced with it")


def _same_file(path: str, output: str) -> bool:
    try:
        return os.path.samefile(path, output)
    except (OSError, ValueError):  # a file that is gone fails when it is read
        return False


def plain_text(rows: pl.LazyFrame) -> pl.LazyFrame:
    """The same rows with lists and structures as JSON text."""
    nested = [name for name, kind in rows.collect_schema().items() if kind.is_nested()]
    if nested:
        note("assumed", "columns of lists, written as JSON text", nested)
    # polars encodes structures only: a column becomes one of a single field, whose name is cut off.
    start = len('{"v":')
    return rows.with_columns(
        pl.when(pl.col(name).is_null())
        .then(None)
        .otherwise(
            pl.struct(pl.col(name).alias("v")).struct.json_encode().str.slice(start).str.head(-1)
        )
        .alias(name)
        for name in nested
    )


def _harmless(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Text that a spreadsheet would run as a formula begins with an apostrophe; numbers stay."""
    texts = [name for name, kind in rows.collect_schema().items() if kind == pl.String]
    return rows.with_columns(
        pl.when(
            pl.col(name).str.contains(_FORMULA)
            & pl.col(name).cast(pl.Float64, strict=False).is_null()
        )
        .then(pl.lit("'") + pl.col(name))
        .otherwise(pl.col(name))
        .alias(name)
        for name in texts
    )


def _write_csv(rows: pl.LazyFrame, path: Path) -> None:
    _harmless(plain_text(rows)).sink_csv(path, maintain_order=True)


def _write_tsv(rows: pl.LazyFrame, path: Path) -> None:
    _harmless(plain_text(rows)).sink_csv(path, maintain_order=True, separator="\t")


def _write_jsonl(rows: pl.LazyFrame, path: Path) -> None:
    rows.sink_ndjson(path, maintain_order=True)


def _write_xlsx(rows: pl.LazyFrame, path: Path) -> None:
    import xlsxwriter

    rows = plain_text(rows)
    names = rows.collect_schema().names()
    count = int(rows.select(pl.len()).collect().item())
    if count >= EXCEL_ROWS:
        cure = "write .parquet or .csv"
        raise fail(path, f"{count:,} rows are more than a workbook holds ({EXCEL_ROWS:,}); {cure}")
    options = {
        "constant_memory": True,
        "strings_to_formulas": False,
        "strings_to_urls": False,
        "default_date_format": "yyyy-mm-dd hh:mm:ss",
        "remove_timezone": True,
    }
    with xlsxwriter.Workbook(str(path), options) as book:
        book.set_properties({"created": _EPOCH})
        sheet = book.add_worksheet("predictions")
        sheet.write_row(0, 0, names)
        for start in range(0, count, BATCH_ROWS):
            batch = rows.slice(start, BATCH_ROWS).collect()
            for row, cells in enumerate(batch.iter_rows(), start + 1):
                for column, cell in enumerate(cells):
                    _write_cell(sheet, row, column, cell)


def _write_cell(sheet: object, row: int, column: int, cell: object) -> None:
    if isinstance(cell, str):
        if len(cell) > EXCEL_TEXT:
            raise InputError(
                f"row {row}: a text of {len(cell):,} letters is longer than a cell of a workbook "
                f"({EXCEL_TEXT:,}); write .parquet or .csv"
            )
        sheet.write_string(row, column, cell)  # pyright: ignore[reportAttributeAccessIssue]
    elif cell is not None:
        sheet.write(row, column, cell)  # pyright: ignore[reportAttributeAccessIssue]


WRITERS: Mapping[str, Writer] = {
    ".csv": _write_csv,
    ".tsv": _write_tsv,
    ".jsonl": _write_jsonl,
    ".xlsx": _write_xlsx,
}
"""Writers by ending, besides .parquet."""


def stamp_file(output: Path) -> Path:
    """The file beside an output that says what was read and by which job the output was made."""
    return Path(f"{output}.account.json")


def read_stamp(output: Path) -> dict[str, str]:
    """The stamp of an output, {} where it has none or was changed since."""
    try:
        facts = json.loads(stamp_file(output).read_text(encoding="utf-8"))
        stamp = {str(name): str(value) for name, value in facts["stamp"].items()}
        return stamp if output.stat().st_size == int(stamp["bytes"]) else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def unfinite(rows: pl.DataFrame) -> Sequence[str]:
    """Names of the columns that hold NaN or an infinite number, at any depth of lists."""
    columns = []
    for name, kind in rows.schema.items():
        values = rows[name]
        while isinstance(kind, pl.List | pl.Array):
            values = values.explode()
            kind = values.dtype
        if kind.is_float() and not values.drop_nulls().is_finite().all():
            columns.append(name)
    return columns
