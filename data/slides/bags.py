"""Bags of instances with a label: tables with a row an instance, and lists of slides with patient,
label and part.

A bag table is csv or parquet without a header (the layout of the classic multiple-instance sets):
column 0 the label of the bag, column 1 its name, the rest numbers; or with a header and columns
`label` and `bag`. A cohort is a table with columns `slide` and `label`, and if it likes `patient`,
`split` (train, validation or val, test) and `mpp`."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from ...base.errors import fail, shown
from ..formats.tables import collect, numbers, require_columns, scan_table

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}


@dataclass(frozen=True)
class Cohort:
    """Slides (or bags) with what is known of each, in the order of the file."""

    names: tuple[str, ...]
    labels: tuple[str, ...]
    patients: tuple[str, ...]  # the slide itself where the file has no column
    splits: tuple[str | None, ...]
    mpp: tuple[float | None, ...]  # micrometres a pixel, for slides whose file does not say

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class BagTable:
    """Bags with their instances: rows offsets[b] to offsets[b + 1] of `features` are bag b's."""

    cohort: Cohort
    features: np.ndarray  # float32 (M, D)
    offsets: np.ndarray  # int64 (B + 1,)
    columns: tuple[str, ...]


def is_bag_table(path: str | Path) -> bool:
    """Whether a table has a row an instance, not a row a slide. Raises InputError where it cannot
    be opened.
    """
    _, names = scan_table(path)
    return "slide" not in names and (names[:2] == ["0", "1"] or {"bag", "label"} <= set(names))


def read_bag_table(path: str | Path) -> BagTable:
    """Read a table of bags; rows of a bag need not lie together, bags come in order of appearance.

    Raises InputError for a bag of two labels, cells that are no finite numbers, or no feature at
    all."""
    frame, names = scan_table(path)
    named = {"bag", "label"} <= set(names)
    bag, label = ("bag", "label") if named or len(names) < 3 else (names[1], names[0])
    features = [name for name in names if name not in (bag, label)]
    if len(names) < 3:
        raise fail(path, "holds no bags: needs a label, a name of the bag, and features")
    table = collect(path, frame)
    if not table.height:
        raise fail(path, "holds no rows")
    keys = [_text(path, table, bag), _text(path, table, label)]
    order: dict[str, int] = {}
    member = np.array([order.setdefault(name, len(order)) for name in keys[0]])
    first = np.full(len(order), len(member))
    np.minimum.at(first, member, np.arange(len(member)))
    labels = [keys[1][row] for row in first]
    for row, (b, said) in enumerate(zip(member, keys[1])):
        if said != labels[b]:
            raise fail(
                path,
                f"bag {shown(keys[0][row])} has the labels {shown(labels[b])} and {shown(said)}",
            )
    values = np.empty((table.height, len(features)), np.float32)
    for k, name in enumerate(features):
        try:
            column, bad = numbers(table[name])
        except TypeError as error:
            raise fail(path, f"column {shown(name)} holds {error}, not numbers") from None
        if bad.any() or np.isnan(column).any():
            row = int(np.flatnonzero(bad | np.isnan(column))[0])
            raise fail(
                path,
                f"column {shown(name)}, row {row + 1}: {shown(table[name][row])} is no finite number",
            )
        values[:, k] = column
    rows = np.argsort(member, kind="stable")
    count = len(order)
    cohort = Cohort(tuple(order), tuple(labels), tuple(order), (None,) * count, (None,) * count)
    return BagTable(
        cohort,
        values[rows],
        np.r_[0, np.bincount(member).cumsum()].astype(np.int64),
        tuple(features),
    )


def read_cohort(path: str | Path) -> Cohort:
    """Read a list of slides.

    Raises InputError for missing columns or cells, a slide that comes twice, a patient in two parts
    of a split, an unknown part, and mpp that is no positive number."""
    frame, names = scan_table(path)
    require_columns(path, ("slide", "label"), names)
    kept = [name for name in ("slide", "label", "patient", "split", "mpp") if name in names]
    table = collect(path, frame.select(kept))
    if not table.height:
        raise fail(path, "lists no slides")
    slides, labels = _text(path, table, "slide"), _text(path, table, "label")
    patients = _text(path, table, "patient") if "patient" in kept else slides
    twice = [name for name, count in Counter(slides).items() if count > 1]
    if twice:
        raise fail(path, f"slide {shown(twice[0])} is listed more than once")
    splits: list[str | None] = [None] * len(slides)
    if "split" in kept:
        for row, said in enumerate(_text(path, table, "split")):
            if said.lower() not in SPLITS:
                raise fail(
                    path,
                    f"column 'split', row {row + 1}: {shown(said)} is none of train, validation, test",
                )
            splits[row] = SPLITS[said.lower()]
        parts: dict[str, str | None] = {}
        for patient, part in zip(patients, splits):
            if parts.setdefault(patient, part) != part:
                raise fail(
                    path,
                    f"patient {shown(patient)} is in {parts[patient]} and in {part}; give them one part",
                )
    mpp: list[float | None] = [None] * len(slides)
    if "mpp" in kept:
        found, bad = numbers(table["mpp"])
        if (bad | (found <= 0)).any():
            row = int(np.flatnonzero(bad | (found <= 0))[0])
            raise fail(
                path,
                f"column 'mpp', row {row + 1}: {shown(table['mpp'][row])} is no positive number",
            )
        mpp = [None if np.isnan(value) else float(value) for value in found]
    return Cohort(tuple(slides), tuple(labels), tuple(patients), tuple(splits), tuple(mpp))


def _text(path: object, table: pl.DataFrame, column: str) -> list[str]:
    """A column as text, nothing missing; 1.0 and 1 are the same label."""
    cells = table[column].cast(pl.String).str.strip_chars()
    for row, cell in enumerate(cells):
        if not cell:
            raise fail(path, f"column {shown(column)}, row {row + 1}: is empty")
    return [
        cell.removesuffix(".0") if cell.removesuffix(".0").lstrip("-").isdigit() else cell
        for cell in cells
    ]


def match_files(names: tuple[str, ...], files: list[str], where: object) -> dict[str, str]:
    """The file of each name, by its file name with or without ending. Names without a file are left
    out.

    Raises InputError where two files answer to one name.
    """
    by_name: dict[str, str] = {}
    for file in files:
        path = Path(file)
        for key in {path.name, path.name[: -len(path.suffix)] if path.suffix else path.name}:
            if key in by_name and key in names:
                raise fail(where, f"slide {shown(key)} could be {by_name[key]} or {file}; move one")
            by_name.setdefault(key, file)
    return {name: by_name[name] for name in names if name in by_name}
