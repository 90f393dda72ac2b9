"""Limits of parquet and Arrow files: a few bytes can hold billions of equal cells."""

import polars as pl

from .tables_packed import UNPACKED_CAP, too_large

# Real tables, even of a few repeated values, are packed less densely. Large tables that are not so
# dense are read in parts, whatever their size.
PACKED_RATIO = 100


def parquet_problem(frame: pl.LazyFrame, size: int) -> str | None:
    """Why a table of so many rows in a file of `size` bytes is refused, by the number of rows that
    it states; None where it is sound.
    """
    kinds = frame.collect_schema().dtypes()
    width = sum(16 if kind == pl.String or kind.is_nested() else 8 for kind in kinds)
    rows = int(frame.select(pl.len()).collect().item())
    if rows * width > UNPACKED_CAP // 4 and rows * width > PACKED_RATIO * size:
        return too_large()
    return None
