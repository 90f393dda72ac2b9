"""The labels of texts as people write them: one, several in a cell, a column each, or a number."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import polars as pl

from ...base.account import doubt, note
from ...base.errors import fail, shown
from ..formats.tables import numbers

Goal: TypeAlias = Literal["class", "labels", "number"]
"""class: one label for each text; labels: any number of them; number: a value."""

SEPARATORS = ("|", ";", ",")
LEVELS = ("::", " > ", "/")
MOST_CLASSES_OF_NUMBERS = 20  # whole numbers with more values than this are a number to predict
LEAST_SHARED = 0.02  # of the cells must hold a separator for it to be one
YES, NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no", "")


@dataclass(frozen=True)
class TextLabels:
    """The labels of the rows of a table.

    goal: what they are; names: of each row, None where it has no label; numbers: float64 (N,), NaN
    where there is none, empty unless the goal is a number; separator: that stands between the
    labels of a cell, "" where there is none.
    """

    goal: Goal
    names: list[tuple[str, ...] | None]
    numbers: np.ndarray
    separator: str = ""

    @property
    def known(self) -> np.ndarray:
        """Which rows have a label, bool (N,)."""
        if self.goal == "number":
            return np.isfinite(self.numbers)
        return np.array([row is not None for row in self.names], dtype=bool)


def read_labels(
    where: str, cells: pl.Series, goal: Goal | None, separator: str | None
) -> TextLabels:
    """The labels in a column. goal, separator: as the user gave them; None: what the cells say,
    which goes into the account.

    Raises InputError, at `where`, for cells that are no labels of the goal.
    """
    if isinstance(cells.dtype, pl.List | pl.Array):
        if goal not in (None, "labels"):
            raise fail(where, f"holds lists of labels, which are no {goal}; use --goal labels")
        lists = [None if row is None else _clean(row) for row in cells.to_list()]
        return TextLabels("labels", lists, np.zeros(0))
    texts = cells.cast(pl.String).str.strip_chars().fill_null("").to_list()
    if _all_json_lists(texts):
        note("assumed", 'cells such as ["a", "b"] are lists of labels')
        lists = [_clean(json.loads(text)) if text else () for text in texts]
        return TextLabels("labels", lists, np.zeros(0))
    if goal == "number" or (goal is None and separator is None and _is_number(cells, texts)):
        return _numbers(where, cells, goal is None)
    if goal is None and separator is None:
        separator = _separator_of(texts)
        if separator is not None:
            note("assumed", f"{shown(separator)} stands between the labels of a cell")
            goal = "labels"
        else:
            goal = "class"
    if goal == "labels" or (goal is None and separator):
        mark = separator or _separator_of(texts) or "|"
        rows = [_clean(text.split(mark)) for text in texts]
        empty = sum(not row for row in rows)
        if empty:
            note("values", "texts with an empty cell of labels, which have none", count=empty)
        return TextLabels("labels", list(rows), np.zeros(0), mark)
    names = [(text,) if text else None for text in texts]
    return TextLabels("class", list(names), np.zeros(0))


def flags_as_labels(where: str, table: pl.DataFrame) -> TextLabels:
    """The labels of a table with a column of 1 and 0 for each. Raises InputError for other
    cells."""
    rows: list[list[str]] = [[] for _ in range(table.height)]
    for name in table.columns:
        cells = table[name].cast(pl.String).str.strip_chars().str.to_lowercase().fill_null("")
        for row, cell in enumerate(cells.to_list()):
            if cell in YES:
                rows[row].append(name)
            elif cell not in NO:
                problem = f"is {shown(cell)}, not 1 or 0; leave it out of --label-columns"
                raise fail(f"{where}: column {shown(name)}, row {row + 1}", problem)
    return TextLabels("labels", [tuple(row) for row in rows], np.zeros(0))


def label_names(
    where: object, rows: Sequence[tuple[str, ...]], goal: Goal, least: int
) -> list[str]:
    """The labels of a training part that at least `least` of its texts have, sorted; the others go
    into the account. Spellings that differ in case alone are named there, too.

    Raises InputError where nothing is left to learn.
    """
    counts = Counter(name for row in rows for name in row)
    names = sorted(name for name, count in counts.items() if count >= least)
    if rare := sorted(set(counts) - set(names)):
        what = f"labels that fewer than {least} texts of the training part have (--least)"
        note("left out", what, rare)
    spellings = Counter(name.casefold() for name in names)
    if alike := [name for name in names if spellings[name.casefold()] > 1]:
        note("values", "labels that differ in upper and lower case alone, and count as two", alike)
    if goal == "class" and len(names) < 2:
        only = f"the label {shown(names[0])}" if names else "no label often enough"
        raise fail(where, f"the training part has {only}; two classes are needed to learn from")
    if not names:
        raise fail(where, f"no label is on {least} texts of the training part; lower --least")
    if goal == "class" and len(names) > max(20, len(rows) // 2):
        raise fail(
            where,
            f"has {len(names):,} different labels on {len(rows):,} texts; name the column of the "
            "labels with --columns label=COLUMN",
        )
    return names


def levels_of(names: Sequence[str]) -> str:
    """What stands between the levels of labels such as "facet::tag": "::", " > " or "/" where
    nearly all of them hold it; else "". It goes into the account.
    """
    for mark in LEVELS:
        inside = [name for name in names if 0 < name.find(mark) < len(name) - len(mark)]
        several = len({name.partition(mark)[0] for name in inside}) < len(inside)
        if len(inside) >= 0.9 * len(names) and several:
            note("assumed", f"{shown(mark)} stands between the levels of a label")
            return mark
    return ""


def note_missing(where: object, known: np.ndarray) -> None:
    """Raise InputError for rows without a label, or note them where such doubts are accepted."""
    if missing := np.flatnonzero(~known).tolist():
        rows = ", ".join(str(row + 1) for row in missing[:3]) + (", …" if missing[3:] else "")
        doubt("missing-labels", where, f"{len(missing):,} rows have no label (rows {rows})")


def _clean(names: Sequence[object]) -> tuple[str, ...]:
    texts = (str(name).strip() for name in names if name is not None)
    return tuple(dict.fromkeys(text for text in texts if text))


def _all_json_lists(texts: Sequence[str]) -> bool:
    filled = [text for text in texts if text]
    if not filled or not all(text[0] == "[" and text[-1] == "]" for text in filled):
        return False
    try:
        return all(isinstance(json.loads(text), list) for text in filled)
    except ValueError:
        return False


def _is_number(cells: pl.Series, texts: Sequence[str]) -> bool:
    """Whether a column holds numbers to predict, and not a few whole numbers that name classes."""
    if cells.dtype == pl.Boolean:
        return False
    values, bad = numbers(cells)
    filled = np.isfinite(values)
    if bad.any() or not filled.any():
        return False
    distinct = np.unique(values[filled])
    whole = bool((distinct == np.round(distinct)).all())
    return not (whole and len(distinct) <= MOST_CLASSES_OF_NUMBERS)


def _numbers(where: str, cells: pl.Series, assumed: bool) -> TextLabels:
    values, bad = numbers(cells)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise fail(f"{where}, row {row + 1}", f"{shown(cells[row])} is no number")
    if assumed:
        note("assumed", "the labels are numbers, whose value is predicted (--goal class: not so)")
    return TextLabels("number", [], values)


def _separator_of(texts: Sequence[str]) -> str | None:
    """The mark between the labels of a cell: that in at least 2 % of the cells of which the pieces
    recur, where the cells themselves recur less.
    """
    cells = Counter(text for text in texts if text)
    filled = sum(cells.values())
    for mark in SEPARATORS:
        if sum(count for text, count in cells.items() if mark in text) < LEAST_SHARED * filled:
            continue
        pieces = {piece.strip() for text in cells for piece in text.split(mark)} - {""}
        if len(pieces) < 0.7 * len(cells):
            return mark
    return None
