"""Bags of instances with a label: tables with one row per instance, and lists of slides.

A bag table is CSV or Parquet, either without a header (the layout of the classic multiple-instance
sets): column 0 is the label of the bag, column 1 its name, the rest are numbers; or with a header
and the columns `label` and `bag`. A cohort is a table with the columns `slide` and `label`, and
optionally `patient`, `split` (train, validation or test) and `mpp`. Columns may have the names that
people usually give them, see `data.columns`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import polars as pl

from ...base.account import note, opened
from ...base.errors import fail, shown
from ..columns import SYNONYMS, find_columns, note_groups, plain_name
from ..formats.tables import collect, decimal_commas, number_column, scan_table
from ..groups import read_groups, without_flag_columns
from ..items import check_items, digest, is_missing, join_copies, read_labels
from ..parts import read_part, text_of, without_other_parts

FIELDS = ("slide", "label", "patient", "part", "mpp")
"""What the columns of a list of slides may hold."""
_BAG_COLUMNS, _LABEL_COLUMNS = ("bag", "bag_id", "bag_name"), ("label", "class", "target")


@dataclass(frozen=True)
class Cohort:
    """Slides (or bags) with what is known about each, in the order of the file."""

    names: tuple[str, ...]
    labels: tuple[str, ...]
    patients: tuple[str, ...]  # the name of the slide where the file has no such column
    splits: tuple[str | None, ...]  # train, validation, test
    mpp: tuple[float | None, ...]  # micrometres per pixel as the file gives them

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: Sequence[int]) -> "Cohort":
        """Some of the slides, in the order of `rows`."""
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        return Cohort(**{n: tuple(values[k] for k in rows) for n, values in columns.items()})

    def joined(self, where: object, noun: str, digests: Sequence[str]) -> "Cohort":
        """The same with the patients of exact copies joined, so that copies share a part.

        digests: what tells the contents of the slides apart. Raises InputError as `join_copies`.
        """
        patients = join_copies(
            where, noun, self.names, digests, self.patients, self.labels, self.splits
        )
        return replace(self, patients=tuple(patients))


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
    _, names = _scan(path)
    slides = {plain_name(name) for name in names} & {"slide", "slide_id", "wsi"}
    return not slides and (names[:2] == ["0", "1"] or _bag_columns(names) is not None)


def _scan(path: str | Path) -> tuple[pl.LazyFrame, list[str]]:
    """A table of bags or slides. A text whose first line holds numbers from the third cell on, and
    no name that we know, has no header, whatever its label and the name of its bag are.
    """
    with opened():  # what is assumed here is not what is assumed in the end
        frame, _ = scan_table(path, header=False)
        cells = collect(path, frame.head(1))
    first = [] if not cells.height else [str(cell).strip() for cell in cells.row(0)]
    known = {"slide", "slide_id", "wsi", *_BAG_COLUMNS, *_LABEL_COLUMNS}
    named = known & {plain_name(cell) for cell in first}
    headless = len(first) > 2 and not named and all(map(_is_number, first[2:]))
    return scan_table(path, header=False if headless else None)


def _is_number(cell: str) -> bool:
    try:
        return bool(np.isfinite(float(cell.replace(",", "."))))
    except ValueError:
        return False


def _bag_columns(names: Sequence[str]) -> tuple[str, str] | None:
    """The columns of the bag and of its label, None for a table without."""

    def of(synonyms: Sequence[str]) -> str | None:
        fitting = ((n for n in names if plain_name(n) == synonym) for synonym in synonyms)
        return next((n for column in fitting for n in column), None)

    bag, label = of(_BAG_COLUMNS), of(_LABEL_COLUMNS)
    return None if bag is None or label is None else (bag, label)


def read_bag_table(path: str | Path, *, noted: bool = True, copies_joined: bool = True) -> BagTable:
    """Read a table of bags, in order of appearance; the rows of a bag need not be adjacent.

    noted: whether the account takes what was read. copies_joined: whether exact copies share a
    patient. Raises `InputError` for a bag with two labels or
    none, cells that are not finite numbers, a table without features, and bags that are exact
    copies with different labels.
    """
    frame, names = _scan(path)
    if len(names) < 3:
        raise fail(path, "holds no bags: needs a label, a name of the bag, and features")
    named = _bag_columns(names)
    bag_column, label_column = named or (names[1], names[0])
    features = [name for name in names if name not in (bag_column, label_column)]
    table = collect(path, frame)
    if not table.height:
        raise fail(path, "holds no rows")
    cells = table[label_column].cast(pl.String).to_list()
    labels = _whole(read_labels(f"{path}: column {shown(label_column)}", cells))
    if "" in labels:  # left out, which the user accepts
        table = table.filter(pl.Series([label != "" for label in labels]))
        labels = [label for label in labels if label]
    bag_names = _text(path, table, bag_column)
    number_of = {name: number for number, name in enumerate(dict.fromkeys(bag_names))}
    bags = np.array([number_of[name] for name in bag_names])
    label_of: dict[str, str] = {}
    for name, label in zip(bag_names, labels, strict=True):
        if label_of.setdefault(name, label) != label:
            both = f"{shown(label_of[name])} and {shown(label)}"
            raise fail(path, f"bag {shown(name)} has the labels {both}")
    rows = np.argsort(bags, kind="stable")
    unknown = (None,) * len(number_of)
    unique = tuple(number_of)
    cohort = Cohort(unique, tuple(label_of.values()), unique, unknown, unknown)
    offsets = np.r_[0, np.bincount(bags).cumsum()].astype(np.int64)
    bag_table = BagTable(cohort, _finite(path, table, features)[rows], offsets, tuple(features))
    if copies_joined:
        digests = [digest(bag_table.bag(k)) for k in range(len(cohort))]
        bag_table = replace(bag_table, cohort=cohort.joined(path, "bag", digests))
    if noted:
        _note_bags(bag_table, (bag_column, label_column) if named else None)
    return bag_table


def _note_bags(table: BagTable, columns: tuple[str, str] | None) -> None:
    rows = f"bags of {len(table.features):,} rows and {len(table.columns)} features"
    note("read", rows, count=len(table.cohort))
    if columns is None:
        note("assumed", "the table has no header: label, name of the bag, features")
    for column, field in zip(columns or (), ("bag", "label")):
        if column != field:
            note("columns", f"{shown(column)} is taken as the {field}")
    note_groups("patient", "bags", None, table.cohort.patients)


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


def read_cohort(
    path: str | Path,
    chosen: Mapping[str, str] | None = None,
    *,
    labelled: bool = True,
    noted: bool = True,
    usual_names: bool = True,
) -> Cohort:
    """Read a list of slides.

    chosen: the columns of `FIELDS` that the user named. labelled: False where labels are not
    needed; they may then be missing, and are "". noted: whether the account takes the groups.
    usual_names: whether a column of patients may have any usual name, not only `patient`.

    Raises `InputError` for missing columns or cells, a slide listed twice or with two labels, a
    patient in two parts of a split, an unknown part, and an mpp that is not a positive number.
    """
    frame, names = scan_table(path)
    named = set((chosen or {}).values())
    known = {synonym for field in FIELDS for synonym in (field, *SYNONYMS[field])}
    table = collect(path, frame.select(n for n in names if n in named or plain_name(n) in known))
    if table.width and not table.height:
        raise fail(path, "lists no slides")
    columns = _columns(path, table, names, chosen, labelled)
    if not usual_names and "patient" not in (chosen or {}) and columns.get("patient") != "patient":
        columns.pop("patient", None)
    slides = _text(path, table, columns["slide"])
    if labelled:
        cells = table[columns["label"]].to_list()
        labels = _whole(read_labels(f"{path}: column {shown(columns['label'])}", cells))
    else:
        labels = [""] * len(slides)
    patients = slides
    if "patient" in columns:
        named = read_groups("patient", _text(path, table, columns["patient"]))
        patients = [patient or slide for patient, slide in zip(named, slides, strict=True)]
    empty = (None,) * len(slides)
    splits = _read_splits(path, table, columns["part"]) if "part" in columns else empty
    mpp = _read_mpp(path, table, columns["mpp"]) if "mpp" in columns else empty
    rows = check_items(path, "slide", slides, labels, splits if labelled else ())
    rows = [row for row in rows if labels[row] or not labelled]
    cohort = Cohort(tuple(slides), tuple(labels), tuple(patients), tuple(splits), tuple(mpp))
    cohort = cohort.take(rows)
    if "patient" in columns and labelled:
        _refuse_shared_patients(path, cohort)
    if noted:
        note("read", "slides listed", count=len(cohort))
        note_groups("patient", "slides", columns.get("patient"), cohort.patients)
    return cohort


def _columns(
    path: object,
    table: pl.DataFrame,
    names: Sequence[str],
    chosen: Mapping[str, str] | None,
    labelled: bool,
) -> dict[str, str]:
    """The column of each field; those that are called like parts or mpp but hold something else are
    not used.
    """
    named = set((chosen or {}).values())
    text = table.select(pl.exclude(pl.List, pl.Struct, pl.Array).cast(pl.String, strict=False))
    doubtful = [name for name in text.columns if name not in named]
    other = set(doubtful) - set(without_other_parts(doubtful, text_of(text)))
    usable = [name for name in names if name not in other]
    cells = text_of(text)
    usable = without_flag_columns(usable, lambda n: cells(n) if n in text else [], "patient", named)
    unfit = [
        name
        for name in doubtful
        if plain_name(name) == "resolution" and number_column(path, text[name])[1].any()
    ]
    if unfit:
        note("columns", "not used as micrometres per pixel, since they are no numbers", unfit)
    usable = [name for name in usable if name not in unfit]
    needed = ("slide", "label") if labelled else ("slide",)
    wished = [field for field in FIELDS if labelled or field not in ("label", "part")]
    picked = {field: column for field, column in (chosen or {}).items() if field in wished}
    return find_columns(path, usable, wished, required=needed, chosen=picked, unused_noted=labelled)


def _read_splits(path: object, table: pl.DataFrame, column: str) -> tuple[str, ...]:
    cells = _text(path, table, column)
    where = f"{path}: column {shown(column)}"
    return tuple(read_part(f"{where}, row {row}", cell) for row, cell in enumerate(cells, 1))


def _refuse_shared_patients(path: object, cohort: Cohort) -> None:
    part_of: dict[str, str] = {}
    for patient, part in _parted(cohort):
        if part_of.setdefault(patient, part) != part:
            parts = f"in {part_of[patient]} and in {part}"
            raise fail(path, f"patient {shown(patient)} is {parts}; give them one part")


def _parted(cohort: Cohort) -> Iterator[tuple[str, str]]:
    pairs = zip(cohort.patients, cohort.splits, strict=True)
    return ((patient, part) for patient, part in pairs if part is not None)


def _read_mpp(path: object, table: pl.DataFrame, column: str) -> tuple[float | None, ...]:
    values, bad = number_column(path, table[column])
    if (bad | (values <= 0)).any():
        row = int(np.argmax(bad | (values <= 0)))
        cell = shown(table[column][row])
        raise fail(path, f"column {shown(column)}, row {row + 1}: {cell} is no positive number")
    return tuple(None if np.isnan(value) else float(value) for value in values)


def _text(path: object, table: pl.DataFrame, column: str) -> list[str]:
    """A column as text, without missing cells; 1.0 and 1 are the same name."""
    cells = table[column].cast(pl.String).to_list()
    for row, cell in enumerate(cells):
        if is_missing(cell):
            problem = (
                f"holds {shown(cell)}, which is no name" if (cell or "").strip() else "is empty"
            )
            raise fail(path, f"column {shown(column)}, row {row + 1}: {problem}")
    return _whole([cell.strip() for cell in cells])


def _whole(cells: Sequence[str]) -> list[str]:
    """The same with whole numbers written without ".0"."""
    return [
        cell.removesuffix(".0") if cell.removesuffix(".0").lstrip("-").isdigit() else cell
        for cell in cells
    ]
