"""A table as a log, and a schema for it, for the tests of logs."""

from pathlib import Path
from typing import Any

import polars as pl

from headwise.data.clicks.log import Log
from headwise.data.clicks.schema import Schema
from headwise.data.clicks.schema_file import parse_schema


def saved(path: Path, frame: pl.DataFrame) -> Log:
    """Write a table as Parquet or CSV, by the suffix of `path`, and open it as a log."""
    frame.write_parquet(path) if path.suffix == ".parquet" else frame.write_csv(path)
    return Log.open(path)


def click_schema(**changes: Any) -> Schema:
    """A schema of users, items, times and clicks, with other keys where they are named."""
    values: dict[str, Any] = {
        "user": "user",
        "item": "item",
        "time": "time",
        "categorical": {"user": {}, "item": {}},
        "tasks": {"click": "click"},
    }
    return parse_schema(values | changes, "schema")
