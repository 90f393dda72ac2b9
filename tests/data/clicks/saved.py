"""A table as a log, for the tests of logs."""

from pathlib import Path

import polars as pl

from headwise.data.clicks.log import Log


def saved(path: Path, frame: pl.DataFrame) -> Log:
    """Write a table as Parquet or CSV, by the suffix of `path`, and open it as a log."""
    frame.write_parquet(path) if path.suffix == ".parquet" else frame.write_csv(path)
    return Log.open(path)
