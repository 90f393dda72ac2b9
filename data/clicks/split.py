"""Splitting the rows of a click log into training, validation and test part."""

from __future__ import annotations

import numpy as np
import polars as pl

from ...base.errors import fail, shown
from .. import parts
from .coding import Rows
from .log import Log
from .schema import Schema

TRAIN, VALIDATION, TEST = 0, 1, 2
PARTS = {"train": TRAIN, "validation": VALIDATION, "test": TEST}


def split_rows(log: Log, schema: Schema, rows: Rows) -> np.ndarray:
    """int8 (N,): the part of each row, by the split of the schema.

    Raises InputError for an unknown part in a column of parts, and for an empty part.
    """
    split = schema.split
    if split.column is not None:
        part = _listed_parts(log, split.column)
    elif split.by == "user":
        part = _parts_by_user(rows, split.train, split.validation)
    else:
        part = np.full(len(rows), TEST, np.int8)
        order = (
            np.argsort(rows.time, kind="stable")
            if split.by == "time"
            else np.random.default_rng(0).permutation(len(rows))
        )
        first = int(len(rows) * split.train)
        part[order[:first]] = TRAIN
        part[order[first : int(len(rows) * (split.train + split.validation))]] = VALIDATION
    for name, code in PARTS.items():
        if not (part == code).any():
            problem = f"the {name} part is empty ({len(rows)} rows in all)"
            raise fail(log.files[0], f"{problem}; give more rows or another split")
    return part


def _listed_parts(log: Log, column: str) -> np.ndarray:
    """The parts that a column of the log names."""
    words = pl.concat([frame[column].cast(pl.String) for frame, _ in log.parts([column])])
    code_of = {word: PARTS[part] for word, part in parts.PARTS.items()}
    codes = words.str.to_lowercase().replace_strict(code_of, default=None, return_dtype=pl.Int8)
    if codes.null_count():
        cell = shown(words.filter(codes.is_null())[0])
        raise fail(log.files[0], f"column {column}: holds {cell}, not {', '.join(PARTS)}")
    return codes.to_numpy().copy()


def _parts_by_user(rows: Rows, train: float, validation: float) -> np.ndarray:
    """The first rows of each user train, the next ones validate, the last ones test."""
    part = np.full(len(rows), TEST, np.int8)
    # Stable: rows of the same second keep the order of the log.
    order = np.lexsort((rows.time, rows.user))
    count = np.bincount(rows.user + 1, minlength=2)
    start = np.cumsum(count) - count
    user = rows.user[order] + 1
    place, total = np.arange(len(rows)) - start[user], count[user]
    last_train = np.floor(total * train + 1e-9)
    last = np.floor(total * (train + validation) + 1e-9)
    part[order] = np.where(place < last_train, TRAIN, np.where(place < last, VALIDATION, TEST))
    return part
