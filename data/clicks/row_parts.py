"""The part that a row was in when a run was trained.

Rows of a file that the run was trained on are recognised by their place in it, those of any other
table by what they hold: their codes (user, item, second and the log's fields).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from .coding import Rows
from .split import PARTS

BLOCK = 1 << 20  # rows whose codes are in memory at once
_NAMES = np.array([*PARTS, None], object)


@dataclass(frozen=True)
class RowParts:
    """The parts of the rows of a training.

    keys: uint64 (N,), increasing, of rows by what they hold; parts: int8 (N,), of these. files: by
    what tells a file from others, the parts of its rows, int8 (rows,).
    """

    keys: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    parts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int8))
    files: Mapping[str, np.ndarray] = field(default_factory=dict)

    @staticmethod
    def of(rows: Rows, part: np.ndarray, earlier: RowParts | None = None) -> RowParts:
        """Of the rows of a log and the part of each, int8 (N,), and of an earlier training.

        A row that stands in two parts counts as one of the first: the model has seen it.
        """
        earlier = earlier or RowParts()
        keys = np.concatenate([row_keys(rows), earlier.keys])
        parts = np.concatenate([part.astype(np.int8), earlier.parts])
        order = np.lexsort((parts, keys))
        keys, parts = keys[order], parts[order]
        first = np.r_[True, keys[1:] != keys[:-1]] if len(keys) else np.zeros(0, bool)
        return RowParts(keys[first], parts[first], earlier.files)

    def with_files(self, files: Mapping[str, np.ndarray]) -> RowParts:
        """With the parts of the rows of further files."""
        return replace(self, files={**self.files, **files})

    def names(self, rows: Rows, file: str | None = None, start: int = 0) -> pl.Series:
        """The part of each row (n,), null for a row that is new.

        file: what tells the file of the rows from others; start: place of the first row in it.
        """
        of_file = self.files.get(file or "")
        if of_file is not None and start + len(rows) <= len(of_file):
            return pl.Series(_NAMES[of_file[start : start + len(rows)]], dtype=pl.String)
        if not len(self.keys):
            return pl.repeat(None, len(rows), dtype=pl.String, eager=True)
        keys = row_keys(rows)
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        part = np.where(self.keys[place] == keys, self.parts[place], len(PARTS))
        return pl.Series(_NAMES[part], dtype=pl.String)


def row_keys(rows: Rows) -> np.ndarray:
    """uint64 (n,): a hash of the codes of each row; the same in every process."""
    parts = [
        _hashed(rows, slice(start, min(start + BLOCK, len(rows))))
        for start in range(0, len(rows), BLOCK)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, np.uint64)


def _hashed(rows: Rows, which: slice) -> np.ndarray:
    state = np.full(len(rows.user[which]), 0x9E3779B97F4A7C15, np.uint64)
    columns = [rows.user[which], rows.item[which], rows.time[which], *rows.fields[which].T]
    for column in columns:
        state = _mixed(state ^ column.astype(np.int64).view(np.uint64))
    return state


def _mixed(state: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64 (Steele et al. 2014), which spreads every bit."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
