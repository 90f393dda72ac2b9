"""Cohorts: bags and slides with their labels, patients and parts; and lists of slides.

A list of slides is a table with the columns `slide` and `label`, and optionally `patient`, `split`
(train, validation or test) and `mpp`. Columns may have the names that people usually give them, see
`data.columns`. Tables of bags are in `bag_tables`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import polars as pl

from ...base.account import doubt, note
from ...base.errors import fail, shown
from ..columns import SYNONYMS, find_columns, note_groups, plain_name
from ..formats.tables import collect, number_column, scan_table
from ..groups import read_groups, without_flag_columns
from ..items import check_items, is_missing, join_copies, read_labels
from ..parts import read_part, text_of, without_other_parts

FIELDS = ("slide", "label", "patient", "part", "mpp")
"""What the columns of a list of slides may hold."""


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

    def one_row_a_file(self, where: object, files: Mapping[str, Path]) -> "Cohort":
        """The same where two names of one file, such as a and a.svs, are refused; where that is
        accepted, names with one label count once.
        """
        first: dict[Path, int] = {}
        rows = []
        for row, name in enumerate(self.names):
            other = first.setdefault(files[name], row)
            if self.names[other] == name:  # what the list names twice was judged when it was read
                rows.append(row)
                continue
            pair = f"{shown(self.names[other])} and {shown(name)} are one slide"
            if self.labels[other] != self.labels[row]:
                both = f"{shown(self.labels[other])} and {shown(self.labels[row])}"
                doubt("two-labels", where, f"{pair} with the labels {both}; keep one")
                rows.append(row)
            else:
                doubt("copies", where, f"{pair}; list it once")
        return self.take(rows)


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
    slides = names_in(path, table, columns["slide"])
    if labelled:
        cells = table[columns["label"]].to_list()
        labels = whole_names(read_labels(f"{path}: column {shown(columns['label'])}", cells))
    else:
        labels = [""] * len(slides)
    patients = slides
    if "patient" in columns:
        named = read_groups("patient", names_in(path, table, columns["patient"]))
        patients = [patient or slide for patient, slide in zip(named, slides, strict=True)]
    empty = (None,) * len(slides)
    splits = read_splits(path, table, columns["part"]) if "part" in columns else empty
    mpp = _read_mpp(path, table, columns["mpp"]) if "mpp" in columns else empty
    rows = check_items(path, "slide", slides, labels, splits if labelled else ())
    rows = [row for row in rows if labels[row] or not labelled]
    cohort = Cohort(tuple(slides), tuple(labels), tuple(patients), tuple(splits), tuple(mpp))
    cohort = cohort.take(rows)
    if "patient" in columns and labelled:
        refuse_shared_patients(path, cohort)
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


def read_splits(path: object, table: pl.DataFrame, column: str) -> tuple[str, ...]:
    """The part of each row. Raises `InputError` for other words than those of parts."""
    cells = names_in(path, table, column)
    where = f"{path}: column {shown(column)}"
    return tuple(read_part(f"{where}, row {row}", cell) for row, cell in enumerate(cells, 1))


def refuse_shared_patients(path: object, cohort: Cohort) -> None:
    """Raise `InputError` for a patient in two parts of a split."""
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


def names_in(path: object, table: pl.DataFrame, column: str) -> list[str]:
    """A column as text, without missing cells; 1.0 and 1 are the same name."""
    cells = table[column].cast(pl.String).to_list()
    for row, cell in enumerate(cells):
        if is_missing(cell):
            problem = (
                f"holds {shown(cell)}, which is no name" if (cell or "").strip() else "is empty"
            )
            raise fail(path, f"column {shown(column)}, row {row + 1}: {problem}")
    return whole_names([cell.strip() for cell in cells])


def whole_names(cells: Sequence[str]) -> list[str]:
    """Cells with whole numbers written without ".0"."""
    return [
        cell.removesuffix(".0") if cell.removesuffix(".0").lstrip("-").isdigit() else cell
        for cell in cells
    ]
