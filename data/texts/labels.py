"""The labels of texts as people write them: one, several in a cell, a column each, or a number."""

from __future__ import annotations

import ast
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
from ..items import is_missing, look_alike
from ..items import read_labels as read_classes

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

    Raises InputError, at `where`, for cells that are no labels of the goal, and for rows without a
    class, unless doubts of the kind "missing-labels" are accepted.
    """
    if isinstance(cells.dtype, pl.List | pl.Array):
        if goal not in (None, "labels"):
            raise fail(where, f"holds lists of labels, which are no {goal}; use --goal labels")
        lists = [None if row is None else _names_of(where, row) for row in cells.to_list()]
        _note_empty(lists)
        return TextLabels("labels", lists, np.zeros(0))
    texts = _texts_of(where, cells)
    listed = _lists_in(texts) if goal in (None, "labels") else None
    if listed is not None:
        note("assumed", 'cells such as ["a", "b"] are lists of labels')
        rows = [_names_of(where, row) for row in listed]
        _note_empty(rows)
        return TextLabels("labels", list(rows), np.zeros(0))
    if not cells.dtype.is_numeric() and cells.dtype != pl.Boolean:
        cells = pl.Series(cells.name, texts)  # also dates and the categories of pandas
    if goal == "number" or (goal is None and separator is None and _is_number(cells)):
        return _numbers(where, cells, goal is None)
    if goal is None:
        mark = separator or _separator_of(texts)
        if mark is not None and separator is None:
            note("assumed", f"{shown(mark)} stands between the labels of a cell")
        goal = "class" if mark is None else "labels"
        for other in SEPARATORS if goal == "class" else ():
            if inside := sum(other in text for text in set(texts)):
                what = f"labels with {shown(other)} in them, one class each (--separator: several)"
                note("assumed", what, count=inside)
    if goal == "labels":
        mark = separator or _separator_of(texts) or SEPARATORS[0]
        rows = [() if is_missing(text) else _names_of(where, text.split(mark)) for text in texts]
        _note_empty(rows)
        return TextLabels("labels", list(rows), np.zeros(0), mark)
    names = [(name,) if name else None for name in read_classes(where, texts)]
    return TextLabels("class", list(names), np.zeros(0))


def _note_empty(rows: Sequence[tuple[str, ...] | None]) -> None:
    if empty := sum(row == () for row in rows):
        note("values", "texts with an empty cell of labels, which have none", count=empty)


def flags_as_labels(where: str, table: pl.DataFrame) -> TextLabels:
    """The labels of a table with a column of 1 and 0 for each. An empty cell is a 0, which is
    noted. Raises InputError for other cells.
    """
    rows: list[list[str]] = [[] for _ in range(table.height)]
    empty = []
    for name in table.columns:
        if table[name].dtype.is_nested() or table[name].dtype == pl.Binary:
            raise fail(f"{where}: column {shown(name)}", f"holds {table[name].dtype}, not 1 or 0")
        cells = table[name].cast(pl.String).str.strip_chars().str.to_lowercase().fill_null("")
        for row, cell in enumerate(cells.to_list()):
            if cell in YES:
                rows[row].append(name)
            elif cell not in NO:
                problem = f"is {shown(cell)}, not 1 or 0; leave it out of --label-columns"
                raise fail(f"{where}: column {shown(name)}, row {row + 1}", problem)
        if (cells == "").any():
            empty.append(name)
    if empty:
        note("values", "columns of labels with empty cells, which are taken as 0", empty)
    return TextLabels("labels", [tuple(row) for row in rows], np.zeros(0))


def label_names(
    where: object, rows: Sequence[tuple[str, ...]], goal: Goal, least: int
) -> list[str]:
    """The labels of a training part that at least `least` of its texts have, sorted; the others go
    into the account. Labels that look alike are named there, too.

    Raises InputError where nothing is left to learn.
    """
    counts = Counter(name for row in rows for name in row)
    names = sorted(name for name, count in counts.items() if count >= least)
    if rare := sorted(set(counts) - set(names)):
        what = f"labels that fewer than {least} texts of the training part have (--least)"
        note("left out", what, rare)
    alike = [name for similar in look_alike(names) for name in similar]
    if alike and goal == "labels":  # those of classes were named when they were read
        what = "labels that differ in case or in what cannot be seen alone, and count as two"
        note("values", what, alike)
    if goal == "class" and len(names) < 2:
        only = f"the label {shown(names[0])}" if names else "no label often enough"
        raise fail(where, f"the training part has {only}; two classes are needed to learn from")
    if not names:
        raise fail(where, f"no label is on {least} texts of the training part; lower --least")
    if goal == "class":
        refuse_many_classes(where, len(names), len(rows))
    return names


def refuse_many_classes(where: object, classes: int, texts: int) -> None:
    """Raise InputError for so many classes that their column holds something else."""
    if classes > max(20, texts // 2):
        problem = f"has {classes:,} different labels on {texts:,} texts"
        cure = "name the column of the labels with --columns label=COLUMN, or, if they are numbers"
        raise fail(where, f"{problem}; {cure}, write them with decimal points alone")


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
    if missing := (np.flatnonzero(~known) + 1).tolist():
        more = f" (and {len(missing) - 1:,} more)" if missing[1:] else ""
        problem = "has no label; fill it or leave the row out"
        doubt("missing-labels", f"{where}, row {missing[0]}{more}", problem)
        note("left out", "rows without a label", [f"row {row}" for row in missing])


def refuse_label_as_feature(
    file: object, frame: pl.DataFrame, labels: Sequence[str], table: Sequence[str]
) -> None:
    """Raise InputError for a column that a model is to see and that says what a column of labels
    says, in the same words or others, unless that is accepted.
    """
    cells_of = {name: _plain(frame[name]) for name in labels}
    for name in table:
        cells = _plain(frame[name])
        for label, values in cells_of.items():
            if name == label or cells == values or _say_the_same(cells, values):
                problem = f"says the same as the labels in column {shown(label)}; leave it out"
                doubt("label-as-feature", f"{file}: --table {name}", problem)
                break


def _plain(cells: pl.Series) -> list[str]:
    return [str(cell).strip().casefold() for cell in cells.to_list()]


def _say_the_same(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether each value of the one stands beside one value of the other, and the other way round:
    a code beside a name.
    """
    kinds = len(set(first))
    pairs = set(zip(first, second, strict=True))
    return 1 < kinds < len(first) // 2 and kinds == len(pairs) == len(set(second))


def _names_of(where: str, names: Sequence[object]) -> tuple[str, ...]:
    """The labels of a text, each once. Raises InputError for what is no name."""
    if nested := [name for name in names if isinstance(name, list | dict | bytes)]:
        raise fail(where, f"{shown(nested[0])} is no label; a label is a text or a number")
    texts = (str(name).strip() for name in names if name is not None)
    return tuple(dict.fromkeys(text for text in texts if text))


def _texts_of(where: str, cells: pl.Series) -> list[str]:
    """Cells as text, "" for an empty one. Raises InputError for what has no text."""
    if not cells.dtype.is_nested() and cells.dtype != pl.Binary:
        try:
            return cells.cast(pl.String).str.strip_chars().fill_null("").to_list()
        except pl.exceptions.PolarsError:
            pass
    raise fail(where, f"holds {cells.dtype}, no labels")


def _lists_in(texts: Sequence[str]) -> list[list[object]] | None:
    """The lists that all cells are, as JSON or Python writes them, an empty one for an empty cell;
    None where a cell is no list.
    """
    filled = [text for text in texts if not is_missing(text)]
    if not filled or not all(text[0] == "[" and text[-1] == "]" for text in filled):
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            lists = [[] if is_missing(text) else read(text) for text in texts]
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
        if all(isinstance(row, list) for row in lists):
            return lists
    return None


def _is_number(cells: pl.Series) -> bool:
    """Whether a column holds numbers to predict, and not a few whole numbers that name classes."""
    if cells.dtype == pl.Boolean:
        return False
    values, bad = numbers(cells)
    filled = np.isfinite(values)
    if bad.any() or not filled.any():
        return False
    distinct = np.unique(values[filled])
    integral = bool((distinct == np.round(distinct)).all())
    return not (integral and len(distinct) <= MOST_CLASSES_OF_NUMBERS)


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
