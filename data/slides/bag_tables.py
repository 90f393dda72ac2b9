"""Tables of bags: one row per instance, with the bag's label, its name, and numbers.

A bag table is CSV or Parquet, either without a header (the layout of the classic multiple-instance
sets): column 0 is the label of the bag, column 1 its name, the rest are features; or with a header
and the columns `label` and `bag`, and optionally `patient` and `split`; the rest are features.
Columns may have the names that people usually give them, see `data.columns`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from ...base.account import note, opened
from ...base.errors import InputError, fail, shown
from ..columns import SYNONYMS, find_columns, note_groups, plain_name
from ..formats.tables import collect, decimal_commas, number_column, scan_table
from ..groups import read_groups
from ..items import digest, read_labels
from ..parts import text_of, without_other_parts
from .bags import Cohort, names_in, read_splits, refuse_shared_patients, whole_names

_SYNONYMS: Mapping[str, Sequence[str]] = {
    "bag": ("bag", "bag_id", "bag_name"),
    "label": ("label", "class", "target"),
    "patient": SYNONYMS["patient"],
    "part": SYNONYMS["part"],
}
"""What the columns of a table of bags may hold, besides features."""
_SLIDES = {"slide", "slide_id", "wsi"}


@dataclass(frozen=True)
class BagTable:
    """Bags with their instances: rows offsets[b] to offsets[b + 1] of `features` are bag b's.

    columns: the names of the features. named: False for a table without a header.
    """

    cohort: Cohort
    features: np.ndarray  # float32 (M, D)
    offsets: np.ndarray  # int64 (B + 1,)
    columns: tuple[str, ...]
    named: bool = True

    def bag(self, row: int) -> np.ndarray:
        """The instances of a bag, float32 (n, D)."""
        return self.features[self.offsets[row] : self.offsets[row + 1]]


def is_bag_table(path: str | Path, chosen: Mapping[str, str] | None = None) -> bool:
    """Whether a table has one row per instance, not one per slide.

    chosen: columns that the user named. Raises `InputError` where it cannot be opened.
    """
    if {"bag", "slide"} & set(chosen or {}):
        return "bag" in (chosen or {})
    _, names = _scan(path)
    slides = {plain_name(name) for name in names} & _SLIDES
    return not slides and (names[:2] == ["0", "1"] or bool(_called(names, "bag")))


def _scan(path: str | Path) -> tuple[pl.LazyFrame, list[str]]:
    """A table of bags or slides. A text whose first line holds numbers from the third cell on, and
    no name that we know, has no header, whatever its label and the name of its bag are.
    """
    with opened():  # what is assumed here is not what is assumed in the end
        frame, _ = scan_table(path, header=False)
        cells = collect(path, frame.head(1))
    first = [] if not cells.height else [str(cell).strip() for cell in cells.row(0)]
    known = {*_SLIDES, *_SYNONYMS["bag"], *_SYNONYMS["label"]}
    named = known & {plain_name(cell) for cell in first}
    headless = len(first) > 2 and not named and all(map(_is_number, first[2:]))
    return scan_table(path, header=False if headless else None)


def _is_number(cell: str) -> bool:
    try:
        return bool(np.isfinite(float(cell.replace(",", "."))))
    except ValueError:
        return False


def _called(names: Sequence[str], *fields: str) -> list[str]:
    """The columns that are called like fields of a table of bags."""
    words = {word for field in fields for word in _SYNONYMS[field]}
    return [name for name in names if plain_name(name) in words]


def read_bag_table(
    path: str | Path,
    chosen: Mapping[str, str] | None = None,
    *,
    features: Sequence[str] | int | None = None,
    labelled: bool = True,
    noted: bool = True,
    copies_joined: bool = True,
) -> BagTable:
    """Read a table of bags, in order of appearance; the rows of a bag need not be adjacent.

    chosen: columns that the user named, by what they hold: bag, label, patient or part. features:
    those that a run was trained on, in its order; their number where the run does not know their
    names. labelled: False where labels, patients and parts are not needed. noted: whether the
    account takes how many bags were read. copies_joined: whether exact copies share a patient.

    Raises `InputError` for a bag with two labels or none, with two patients or parts, cells that
    are not finite numbers, a table without features or without those that are asked for, and bags
    that are exact copies with different labels.
    """
    frame, names = _scan(path)
    if len(names) < 2:
        raise fail(path, "holds no bags: needs a label, a name of the bag, and features")
    table = collect(path, frame)
    if not table.height:
        raise fail(path, "holds no rows")
    fields, headed = _fields_of(path, table, names, chosen, labelled)
    taken = _features_of(path, names, fields, features, headed)
    fields = {field: name for field, name in fields.items() if name not in taken}
    if labelled:
        cells = table[fields["label"]].cast(pl.String).to_list()
        labels = whole_names(read_labels(f"{path}: column {shown(fields['label'])}", cells))
        if "" in labels:  # left out, which the user accepts
            table = table.filter(pl.Series([label != "" for label in labels]))
            labels = [label for label in labels if label]
    else:
        labels = [""] * table.height
    bag_names = names_in(path, table, fields["bag"])
    number_of = {name: number for number, name in enumerate(dict.fromkeys(bag_names))}
    bags = np.array([number_of[name] for name in bag_names])
    unique, unknown = tuple(number_of), (None,) * len(number_of)
    patients, parts = unique, unknown
    if "patient" in fields:
        cells = names_in(path, table, fields["patient"])
        named = read_groups("patient", _one_of_each(path, bag_names, cells, "patients"))
        patients = tuple(patient or bag for patient, bag in zip(named, unique, strict=True))
    if "part" in fields:
        cells = read_splits(path, table, fields["part"])
        parts = _one_of_each(path, bag_names, cells, "parts")
    labels_of = _one_of_each(path, bag_names, labels, "labels")
    cohort = Cohort(unique, labels_of, patients, parts, unknown)
    refuse_shared_patients(path, cohort)
    rows = np.argsort(bags, kind="stable")
    offsets = np.r_[0, np.bincount(bags).cumsum()].astype(np.int64)
    values = _finite(path, table, taken)[rows]
    bag_table = BagTable(cohort, values, offsets, tuple(taken), headed)
    if copies_joined:
        digests = [digest(bag_table.bag(k)) for k in range(len(cohort))]
        bag_table = replace(bag_table, cohort=cohort.joined(path, "bag", digests))
    if noted:
        _note_bags(bag_table, fields.get("patient"))
    return bag_table


def _fields_of(
    path: object,
    table: pl.DataFrame,
    names: Sequence[str],
    chosen: Mapping[str, str] | None,
    labelled: bool,
) -> tuple[dict[str, str], bool]:
    """The column of each field, and whether the table has a header."""
    chosen = dict(chosen or {})
    if foreign := [field for field in chosen if field not in _SYNONYMS]:
        field = foreign[0]
        raise InputError(
            f"--columns {field}={chosen[field]}: a table of bags has no {field}; leave it out"
        )
    if "bag" not in chosen and not _called(names, "bag"):
        if chosen:
            raise fail(path, "has no header, so --columns names nothing in it; leave it out")
        note("assumed", "the table has no header: label, name of the bag, features")
        return {"label": names[0], "bag": names[1]}, False
    doubtful = _called(names, "part")
    text = table.select(pl.col(doubtful).cast(pl.String, strict=False))
    parts = without_other_parts(doubtful, text_of(text), chosen=chosen.values())
    usable = [name for name in names if name in parts or name not in doubtful]
    wished = tuple(_SYNONYMS) if labelled else ("bag", "label")
    picked = {field: column for field, column in chosen.items() if field in wished}
    fields = find_columns(
        path,
        usable,
        wished,
        required=("bag", "label") if labelled else ("bag",),
        chosen=picked,
        unused_noted=False,
        synonyms=_SYNONYMS,
    )
    return fields, True


def _features_of(
    path: object,
    names: Sequence[str],
    fields: Mapping[str, str],
    features: Sequence[str] | int | None,
    headed: bool,
) -> list[str]:
    """The columns of the features, in the order of those that a run was trained on.

    What is called like a bag, a label, a patient or a part is no feature, whether it is used or
    not; older versions took some of these for features.
    """
    rest = [name for name in names if name not in fields.values()]
    plain = [name for name in rest if name not in _called(rest, *_SYNONYMS)] if headed else rest
    if features is None or isinstance(features, int):
        if features is not None and headed:
            note("assumed", "features are taken by place: the run does not know their names")
        older = [name for name in names if name not in (fields["bag"], fields.get("label"))]
        if features == len(older):
            plain = older
        if not plain:
            raise fail(path, "holds no bags: there is no column of features")
    elif not headed:
        if len(plain) != len(features):
            counts = f"holds {len(plain)} features, the run has {len(features)}"
            raise fail(path, f"{counts}; give it a header with bag and the names of the features")
        note("assumed", "features are taken by place: the table has no names for them")
    else:
        column_of = _matched(path, rest, features)
        extra = [name for name in plain if name not in column_of.values()]
        if extra:
            note("left out", "columns that the run was not trained on", extra)
        plain = [column_of[name] for name in features]
    if unused := [name for name in rest if headed and features is None and name not in plain]:
        note("columns", "no features, since they are called like patients, parts or labels", unused)
    return plain


def _matched(path: object, columns: Sequence[str], features: Sequence[str]) -> dict[str, str]:
    """The column of each feature of a run: of its name, else of one that differs only in case,
    spaces and marks.
    """
    matched = {name: name for name in features if name in columns}
    rest = [column for column in columns if column not in matched]
    missing = []
    for name in features:
        if name in matched:
            continue
        alike = [column for column in rest if plain_name(column) == plain_name(name) != ""]
        rivals = [other for other in features if plain_name(other) == plain_name(name)]
        if len(alike) == len(rivals) == 1:
            matched[name] = alike[0]
            note("columns", f"{shown(alike[0])} is taken as the feature {shown(name)}")
        else:
            missing.append(name)
    if missing:
        lacking = ", ".join(map(shown, missing[:3])) + (", …" if missing[3:] else "")
        present = ", ".join(map(shown, rest[:3])) + (", …" if rest[3:] else "")
        others = f"; its other columns are {present}" if rest else ""
        raise fail(
            path,
            f"lacks {len(missing)} of the {len(features)} features of the run: {lacking}{others}; "
            "call them as in the training",
        )
    return matched


def _one_of_each(
    path: object, bags: Sequence[str], cells: Sequence[str], noun: str
) -> tuple[str, ...]:
    """The cell of each bag, in order of appearance. Raises `InputError` for a bag with two."""
    cell_of: dict[str, str] = {}
    for name, cell in zip(bags, cells, strict=True):
        if cell_of.setdefault(name, cell) != cell:
            both = f"{shown(cell_of[name])} and {shown(cell)}"
            raise fail(path, f"bag {shown(name)} has the {noun} {both}")
    return tuple(cell_of.values())


def _note_bags(table: BagTable, patients: str | None) -> None:
    rows = f"bags of {len(table.features):,} rows and {len(table.columns)} features"
    note("read", rows, count=len(table.cohort))
    if table.named:
        note("columns", "features", table.columns)
    note_groups("patient", "bags", patients, table.cohort.patients)


def _finite(path: object, table: pl.DataFrame, columns: list[str]) -> np.ndarray:
    """float32 (rows, columns)."""
    values = np.empty((table.height, len(columns)), np.float32)
    commas = decimal_commas(table.lazy(), columns)
    for k, name in enumerate(columns):
        values[:, k], bad = number_column(path, table[name], comma=commas.get(name))
        if (bad | np.isnan(values[:, k])).any():
            row = int(np.argmax(bad | np.isnan(values[:, k])))
            cell = shown(table[name][row])
            raise fail(path, f"column {shown(name)}, row {row + 1}: {cell} is no finite number")
    return values
