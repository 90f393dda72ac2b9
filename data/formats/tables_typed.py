"""Files whose columns have types: parquet, Arrow and lines of JSON."""

import codecs
import glob
import json
from collections.abc import Iterable
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import NoReturn

import polars as pl

from ...base.errors import InputError, fail, reason, shown
from .encodings import note_encoding
from .tables_packed import UNPACKED_CAP, too_large
from .tables_text import all_bytes, open_text

# Real tables, even of a few repeated values, are packed less densely. Large tables that are not so
# dense are read in parts, whatever their size.
PACKED_RATIO = 100
ARROW_SUFFIXES = (".feather", ".arrow", ".ipc")
JSON_SUFFIXES = (".jsonl", ".ndjson")
# What polars raises for damaged files; of some Arrow files it panics.
DAMAGE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
KINDS = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list",
         dict: "an object"}  # fmt: skip
"""Types of JSON, as messages call them."""


def scan_typed(path: object, source: Path | bytes, ending: str) -> tuple[pl.LazyFrame, list[str]]:
    """A lazy table and the names of its columns. Names of files are never patterns: `[1].parquet`
    is a file.

    path: for messages; ending: without those of packing. A row of JSON lacks what other rows have,
    wherever these stand. Raises InputError for a damaged file, one that is too large, and a name
    that occurs twice.
    """
    try:
        frame = _scan(path, source, ending)
        names = frame.collect_schema().names()
    except pl.exceptions.DuplicateError as error:
        raise fail(path, f"a column appears more than once ({reason(error)}); rename one") from None
    except DAMAGE as error:
        problem = reason(error)
        if ending in JSON_SUFFIXES:
            problem = json_problem(source) or problem
        raise fail(path, f"is damaged {ending[1:]} ({problem}); write it again") from error
    if ending in ARROW_SUFFIXES or ending == ".parquet":
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        if problem := parquet_problem(frame, size):
            raise fail(path, problem)
    return frame, names


def _scan(path: object, source: Path | bytes, ending: str) -> pl.LazyFrame:
    if ending == ".parquet":
        return pl.scan_parquet(source, glob=False, hive_partitioning=False)
    if ending in ARROW_SUFFIXES:
        with source.open("rb") if isinstance(source, Path) else nullcontext() as opened:
            stream = (opened.read(6) if opened else source[:6]) != b"ARROW1"  # pyright: ignore
        if stream:
            return pl.read_ipc_stream(source).lazy()
        return pl.scan_ipc(source, glob=False, hive_partitioning=False)
    return _scan_lines(path, source)


def parquet_problem(frame: pl.LazyFrame, size: int) -> str | None:
    """Why a table of so many rows in a file of `size` bytes is refused, by the number of rows that
    it states (a few bytes of parquet or Arrow can hold billions of equal cells); None where it is
    sound.
    """
    kinds = frame.collect_schema().dtypes()
    width = sum(16 if kind == pl.String or kind.is_nested() else 8 for kind in kinds)
    rows = int(frame.select(pl.len()).collect().item())
    if rows * width > UNPACKED_CAP // 4 and rows * width > PACKED_RATIO * size:
        return too_large()
    return None


def _scan_lines(path: object, source: Path | bytes) -> pl.LazyFrame:
    """Lines of JSON, whose columns are those of all lines."""
    if isinstance(source, Path):
        text = open_text(path, source)
        note_encoding(path, text.encoding)
        # Polars takes a byte order mark for a part of the first row.
        marked = text.marked and isinstance(text.source, Path)
        source = all_bytes(path, source).removeprefix(codecs.BOM_UTF8) if marked else text.source
    if isinstance(source, Path):
        stat = source.stat()
        schema = _schema_of_file(source, stat.st_mtime_ns, stat.st_size)
        if glob.has_magic(str(source)):
            source = source.read_bytes()  # scan_ndjson has no option to take a name as it is
    else:
        schema = _schema(source)
    if isinstance(schema, str):
        raise fail(path, schema)
    return pl.scan_ndjson(source, schema=schema, low_memory=True)


@lru_cache(maxsize=16)  # a long file is read part by part
def _schema_of_file(file: Path, _changed: int, _size: int) -> pl.Schema | str:
    return _schema(file.read_bytes() if glob.has_magic(str(file)) else file)


def _schema(source: Path | bytes) -> pl.Schema | str:
    """The columns of all lines and their types; or, in words, that a line names one twice, of which
    polars would take the first.
    """
    schema = pl.scan_ndjson(source, infer_schema_length=None, low_memory=True).collect_schema()
    # Names may be in nested objects and in texts, too: lines that hold one twice are looked into.
    names = [json.dumps(name, ensure_ascii=False) for name in schema.names()]
    named = pl.col("line").str.extract_many(names)
    lines = pl.scan_lines(source, glob=False, row_index_name="row")
    doubtful = lines.filter(named.list.n_unique() < named.list.len())
    for batch in doubtful.collect_batches(maintain_order=True):
        for row, line in batch.select("row", "line").iter_rows():
            if (twice := name_that_is_there_twice(line)) is not None:
                problem = f"column {shown(twice)} appears more than once in line {row + 1}"
                return f"{problem}; rename one"
    return schema


def name_that_is_there_twice(line: str) -> str | None:
    """A name that an object, as JSON, has twice; None where it has none, or is no JSON.

    >>> name_that_is_there_twice('{"a": {"b": 1}, "b": 2, "a": 3}')
    'a'
    """
    names: list[str] = []

    def noted(pairs: list[tuple[str, object]]) -> None:
        names[:] = [name for name, _ in pairs]  # of the outer object, which ends last

    try:
        json.loads(line, object_pairs_hook=noted)
    except (ValueError, RecursionError):
        return None
    return next((name for place, name in enumerate(names) if name in names[:place]), None)


def json_problem(source: Path | bytes) -> str | None:
    """What is wrong with lines of JSON that polars does not read: the first line that is no object,
    or a column of several types; None where nothing is.
    """
    try:
        lines = pl.scan_lines(source, glob=False).collect()["line"]
    except DAMAGE:
        return None
    return _line_problem(lines)


def _line_problem(lines: Iterable[str]) -> str | None:
    kinds: dict[str, dict[str, int]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            return f"line {number}, {shown(line[:50])}, is no JSON: {reason(error)}"
        if not isinstance(row, dict):
            return f"line {number} is {KINDS.get(type(row), 'empty')}, not an object"
        for name, value in row.items():
            if value is not None:
                kinds.setdefault(name, {}).setdefault(KINDS[type(value)], number)
    for name, lines_of in kinds.items():
        if len(lines_of) > 1 and "a text" not in lines_of:  # beside texts all are texts
            (first, row), (second, other), *_ = lines_of.items()
            return f"{shown(name)} is {first} in line {row} and {second} in line {other}"
    return None


def _refuse(word: str) -> NoReturn:
    raise InputError(f"{word} is no number of JSON; write null")
