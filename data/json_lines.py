"""Rows that come as lines of JSON, from standard input or from a file."""

from __future__ import annotations

import json
from collections.abc import Sequence

import polars as pl

from ..base.errors import fail, shown
from .formats.tables_typed import name_that_is_there_twice


def are_json_lines(lines: Sequence[str]) -> bool:
    """Whether the first line that is not blank is a JSON object."""
    first = next((line for line in lines if line.strip()), "")
    return first.lstrip().startswith("{") and isinstance(_value(first), dict)


def rows_of_json_lines(where: object, lines: Sequence[str], start: int = 0) -> pl.DataFrame:
    """A row for each line, all cells as text, null where an object lacks the name; a blank line is
    a row without cells, so that lines and rows have the same numbers.

    start: the number of the first line, from 0. Raises InputError, at `where`, for a line that is
    no JSON object, and for one that has a name twice.
    """
    rows: list[dict[str, object]] = []
    for number, line in enumerate(lines, start + 1):
        row = _value(line) if line.strip() else {}
        if not isinstance(row, dict):
            raise fail(f"{where}, line {number}", f"{shown(line[:50])} is no JSON object")
        if line.count(":") > len(row) and (twice := name_that_is_there_twice(line)) is not None:
            problem = f"column {shown(twice)} appears more than once; rename one"
            raise fail(f"{where}, line {number}", problem)
        rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    return pl.DataFrame(
        {_storable(name): [_text(row.get(name)) for row in rows] for name in names},
        schema=dict.fromkeys(map(_storable, names), pl.String),
    )


def _value(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return None if value is None else _storable(value)
    return _storable(json.dumps(value, ensure_ascii=False))


def _storable(text: str) -> str:
    """Halves of characters, which JSON can name, are replaced: no table can hold them."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
