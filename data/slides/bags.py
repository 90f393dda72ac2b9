"""Bags of instances with a label: tables with one row per instance, and lists of slides.

A bag table is CSV or Parquet, either without a header (the layout of the classic multiple-instance
sets): column 0 is the label of the bag, column 1 its name, the rest are numbers; or with a header
and the columns `label` and `bag`. A cohort is a table with the columns `slide` and `label`, and
optionally `patient`, `split` (train, validation or test) and `mpp`.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from ...base.errors import fail, shown
from ..formats.tables import collect, number_column, require_columns, scan_table
from ..parts import read_part


@dataclass(frozen=True)
class Cohort:
    """Slides (or bags) with what is known about each, in the order of the file."""

    names: tuple[str, ...]
    labels: tuple[str, ...]
    patients: tuple[str, ...]  # the name of the slide where the file has no such column
    splits: tuple[str | None, ...]  # train, validation, test
    mpp: tuple[float | None, ...]  # micrometres per pixel, for slides whose file does not say

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class BagTable:
    """Bags with their instances: rows offsets[b] to offsets[b + 1] of `features` are bag b's."""

    cohort: Cohort
    features: np.ndarray  # float32 (M, D)
    offsets: np.ndarray  # int64 (B + 1,)
    columns: tuple[str, ...]

    def bag(self, row: int) -> np.ndarray:
        """The instances of a bag, float32 (n, D)."""
        return self.features[self.offsets[row] : self.offsets[row + 1]]


def is_bag_table(path: str | Path) -> bool:
    """Whether a table has one row per instance, not one per slide.

    Raises `InputError` where it cannot be opened.
    """
    _, names = scan_table(path)
    return "slide" not in names and (names[:2] == ["0", "1"] or {"bag", "label"} <= set(names))


def read_bag_table(path: str | Path) -> BagTable:
    """Read a table of bags, in order of appearance; the rows of a bag need not be adjacent.

    Raises `InputError` for a bag with two labels, cells that are not finite numbers, and a table
    without features.
    """
    frame, names = scan_table(path)
    if len(names) < 3:
        raise fail(path, "holds no bags: needs a label, a name of the bag, and features")
    has_header = {"bag", "label"} <= set(names)
    bag_column, label_column = ("bag", "label") if has_header else (names[1], names[0])
    features = [name for name in names if name not in (bag_column, label_column)]
    table = collect(path, frame)
    if not table.height:
        raise fail(path, "holds no rows")
    bag_names, row_labels = _text(path, table, bag_column), _text(path, table, label_column)
    number_of = {name: number for number, name in enumerate(dict.fromkeys(bag_names))}
    bags = np.array([number_of[name] for name in bag_names])
    label_of: dict[str, str] = {}
    for name, label in zip(bag_names, row_labels, strict=True):
        if label_of.setdefault(name, label) != label:
            labels = f"{shown(label_of[name])} and {shown(label)}"
            raise fail(path, f"bag {shown(name)} has the labels {labels}")
    rows = np.argsort(bags, kind="stable")
    count = len(number_of)
    cohort = Cohort(
        tuple(number_of),
        tuple(label_of.values()),
        tuple(number_of),
        (None,) * count,
        (None,) * count,
    )
    offsets = np.r_[0, np.bincount(bags).cumsum()].astype(np.int64)
    return BagTable(cohort, _finite(path, table, features)[rows], offsets, tuple(features))


def _finite(path: object, table: pl.DataFrame, columns: list[str]) -> np.ndarray:
    """float32 (rows, columns)."""
    values = np.empty((table.height, len(columns)), np.float32)
    for k, name in enumerate(columns):
        values[:, k], bad = number_column(path, table[name])
        if (bad | np.isnan(values[:, k])).any():
            row = int(np.argmax(bad | np.isnan(values[:, k])))
            cell = shown(table[name][row])
            raise fail(path, f"column {shown(name)}, row {row + 1}: {cell} is no finite number")
    return values


def read_cohort(path: str | Path) -> Cohort:
    """Read a list of slides.

    Raises `InputError` for missing columns or cells, a slide listed twice, a patient in two parts
    of a split, an unknown part, and an mpp that is not a positive number.
    """
    frame, names = scan_table(path)
    require_columns(path, ("slide", "label"), names)
    columns = [name for name in ("slide", "label", "patient", "split", "mpp") if name in names]
    table = collect(path, frame.select(columns))
    if not table.height:
        raise fail(path, "lists no slides")
    slides, labels = _text(path, table, "slide"), _text(path, table, "label")
    patients = _text(path, table, "patient") if "patient" in columns else slides
    name, count = Counter(slides).most_common(1)[0]
    if count > 1:
        raise fail(path, f"slide {shown(name)} is listed more than once")
    empty = (None,) * len(slides)
    splits = _read_splits(path, table, patients) if "split" in columns else empty
    mpp = _read_mpp(path, table) if "mpp" in columns else empty
    return Cohort(tuple(slides), tuple(labels), tuple(patients), splits, mpp)


def _read_splits(path: object, table: pl.DataFrame, patients: list[str]) -> tuple[str, ...]:
    cells = _text(path, table, "split")
    splits = [
        read_part(f"{path}: column 'split', row {row}", cell) for row, cell in enumerate(cells, 1)
    ]
    part_of: dict[str, str] = {}
    for patient, part in zip(patients, splits, strict=True):
        if part_of.setdefault(patient, part) != part:
            parts = f"in {part_of[patient]} and in {part}"
            raise fail(path, f"patient {shown(patient)} is {parts}; give them one part")
    return tuple(splits)


def _read_mpp(path: object, table: pl.DataFrame) -> tuple[float | None, ...]:
    values, bad = number_column(path, table["mpp"])
    if (bad | (values <= 0)).any():
        row = int(np.argmax(bad | (values <= 0)))
        cell = shown(table["mpp"][row])
        raise fail(path, f"column 'mpp', row {row + 1}: {cell} is no positive number")
    return tuple(None if np.isnan(value) else float(value) for value in values)


def _text(path: object, table: pl.DataFrame, column: str) -> list[str]:
    """A column as text, without empty cells; 1.0 and 1 are the same label."""
    cells = table[column].cast(pl.String).str.strip_chars()
    for row, cell in enumerate(cells):
        if not cell:
            raise fail(path, f"column {shown(column)}, row {row + 1}: is empty")
    return [
        cell.removesuffix(".0") if cell.removesuffix(".0").lstrip("-").isdigit() else cell
        for cell in cells
    ]


def match_files(names: tuple[str, ...], files: list[str], where: object) -> dict[str, str]:
    """The file of each name, by its file name with or without its ending. Names without a file are
    left out.

    Raises `InputError` where two files match a name.
    """
    by_name: dict[str, str] = {}
    for file in files:
        path = Path(file)
        for key in {path.name, path.name[: -len(path.suffix)] if path.suffix else path.name}:
            if key in by_name and key in names:
                raise fail(where, f"slide {shown(key)} could be {by_name[key]} or {file}; move one")
            by_name.setdefault(key, file)
    return {name: by_name[name] for name in names if name in by_name}
