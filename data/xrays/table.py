"""Tables of X-rays, our own and those of NIH (Data_Entry), CheXpert, PadChest and others."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import polars as pl

from ...base.account import note
from ...base.errors import InputError, fail, shown
from ..columns import find_columns, is_named, plain_name
from ..formats.tables import collect, scan_table
from ..groups import without_flag_columns
from ..items import is_missing, read_labels
from ..parts import called_like_parts, read_part, without_other_parts
from .files import MissingPicture, XrayFolder
from .finding_columns import finding_columns, labels_of_flags, reader_column
from .findings import finding_column, flags_as_labels, listed_findings
from .records import Reading, Xray
from .several import joined_labels
from .studies import has_studies, pictures_of_studies

FIELDS = ("image", "label", "patient", "view", "source", "part")
PATIENT_FOLDER = re.compile(r"(patient|subject|subj|sub|case|pat)[-_ ]?\d+|p\d{4,}", re.IGNORECASE)


def read_table(path: Path, reading: Reading, part: str = "") -> list[Xray]:
    """The pictures that a table lists, in its order; the label is "" in rows that have none, where
    that is accepted.

    part: that of the table itself, where it has no column. Raises InputError for columns that are
    missing, cells that do not fit and pictures outside of the folder.
    """
    frame, names = scan_table(path)
    if "image" not in reading.columns and has_studies(names):
        frame, names = pictures_of_studies(path, frame, names, reading.images)
    columns = _columns(path, frame, names, reading)
    if not reading.need_label:
        return _pictures_alone(path, frame, columns["image"], reading)
    flags = finding_columns(path, names, columns, reading)
    use_labels = reading.use_labels and not flags
    labelled_by = _label_column(path, names, columns, reading) if use_labels else ""
    texts = {field: columns[field] for field in FIELDS if field in columns and field != "label"}
    if labelled_by:
        texts["label"] = labelled_by
    if (frontal := _named(names, "frontal_lateral")) and frontal != columns.get("view"):
        texts["frontal"] = frontal
    if reading.findings:
        used = {*columns.values(), *flags.values(), *texts.values()}
        if unused := [name for name in names if name not in used]:
            note("columns", "not used", unused)
    cells = _cells(path, frame, texts)
    count = len(cells["image"])
    for row, name in enumerate(cells["image"], 1):
        if not name:
            where = f"{path}: column {columns['image']!r}, row {row}"
            raise fail(where, "is empty; fill it")
    parts = _parts(path, columns, cells, part)
    if flags:
        labels = labels_of_flags(path, _cells(path, frame, flags), flags, reading)
    elif labelled_by:
        labels = _labels(path, cells, labelled_by, columns, reading)
    else:
        labels = ["(not read)"] * count
    if reading.findings and (not flags or reader_column(names)):
        labels = joined_labels(list(zip(cells["image"], parts, strict=True)), labels)
    views = _views(cells, count)
    patients = cells.get("patient") or _patients_of_folders(cells["image"])
    sources = cells.get("source", [""] * count)
    folder, xrays = _folder(path, reading), []
    for row, name in enumerate(cells["image"]):
        where = f"{path}: column {columns['image']!r}, row {row + 1}"
        file, item, problem = _find(folder, where, name, reading)
        known = (labels[row], parts[row], patients[row], views[row], sources[row])
        xrays.append(Xray(item, file, *known, problem=problem))
    return xrays


def _pictures_alone(path: Path, frame: pl.LazyFrame, column: str, reading: Reading) -> list[Xray]:
    """The pictures without what is known about them; one that is not there has a problem."""
    folder, xrays = _folder(path, reading), []
    for row, name in enumerate(_cells(path, frame, {"image": column})["image"], 1):
        file, item, problem = _find(folder, f"{path}: column {column!r}, row {row}", name, reading)
        xrays.append(Xray(item or f"row {row}", file or str(path), "", problem=problem))
    return xrays


def _folder(path: Path, reading: Reading) -> XrayFolder:
    """The folders in which the pictures of a table lie."""
    if reading.images and not Path(reading.images).is_dir():
        raise fail(reading.images, "is no folder of pictures; --images names it")
    return XrayFolder([reading.images, path.parent] if reading.images else [path.parent])


def _columns(
    path: Path, frame: pl.LazyFrame, names: Sequence[str], reading: Reading
) -> dict[str, str]:
    """Columns by field, without those that are called like parts but hold other words; of
    CheXpert's two columns of views, the one that tells AP from PA.
    """
    chosen = {
        field: column
        for field, column in reading.columns.items()
        if reading.strict or column in names
    }
    both = _named(names, "frontal_lateral"), _named(names, "ap_pa")
    if "view" not in chosen and "view" not in names and all(both):
        chosen["view"] = str(both[1])
    usable = names
    if reading.need_label:
        doubtful = {n: n for n in names if called_like_parts(n) or is_named(n, "patient")}
        cells = _cells(path, frame, doubtful) if doubtful else {}
        usable = without_other_parts(
            names, cells.__getitem__, fields=FIELDS, chosen=chosen.values()
        )
        usable = without_flag_columns(usable, cells.__getitem__, "patient", chosen.values())
    return find_columns(
        path,
        usable,
        FIELDS if reading.need_label else FIELDS[:1],
        required=("image",),
        chosen=chosen if reading.need_label else {k: v for k, v in chosen.items() if k == "image"},
        unused_noted=reading.need_label and not reading.findings,
    )


def _named(names: Sequence[str], plain: str) -> str | None:
    return next((name for name in names if plain_name(name) == plain), None)


def _label_column(
    path: Path, names: Sequence[str], columns: dict[str, str], reading: Reading
) -> str:
    """The column of the labels or flags."""
    if reading.finding is not None and "label" not in reading.columns:
        by_name = finding_column(names, reading.finding)
        if by_name is not None and by_name not in columns.values():
            return by_name
    if "label" not in columns:
        if len(findings := listed_findings(names)) > 1:
            listed = ", ".join(findings)
            problem = f"has no column of labels, but one for each finding ({listed})"
            raise fail(path, f"{problem}; learn all with --findings all, or name one: --finding")
        find_columns(path, names, FIELDS, required=("label",), chosen=reading.columns)
    return columns["label"]


def _cells(path: Path, frame: pl.LazyFrame, columns: dict[str, str]) -> dict[str, list[str]]:
    """The cells of each field as text, "" for what is missing; labels as they are."""
    table = collect(
        path,
        frame.select(
            pl.col(column).cast(pl.String).str.strip_chars().fill_null("").alias(field)
            for field, column in columns.items()
        ),
    )
    if not table.height:
        raise fail(path, "lists no pictures")
    return {
        field: [
            "" if field not in ("label", "image") and is_missing(cell) else cell
            for cell in table[field].to_list()
        ]
        for field in columns
    }


def _labels(
    path: Path, cells: dict[str, list[str]], column: str, columns: dict[str, str], reading: Reading
) -> list[str]:
    """The label of each row, "" for rows to leave out."""
    where = f"{path}: column {column!r}"
    if column != columns.get("label") and reading.finding is not None:
        note("columns", f"{shown(column)} is taken as the finding")
        return flags_as_labels(where, cells["label"], reading.finding, reading.uncertain)
    if reading.uncertain is not None and reading.strict:
        problem = "--uncertain is read with a column for each finding (1, 0, -1), not with labels"
        raise fail(path, f"{problem}; leave it out")
    return read_labels(where, cells["label"])


def _parts(
    path: Path, columns: dict[str, str], cells: dict[str, list[str]], part: str
) -> list[str]:
    """The part of each row."""
    count = len(cells["image"])
    if "part" not in cells:
        return [part] * count
    column = columns["part"]
    return [
        read_part(f"{path}: column {column!r}, row {row}", cell) if cell else ""
        for row, cell in enumerate(cells["part"], 1)
    ]


def _views(cells: dict[str, list[str]], count: int) -> list[str]:
    """PA, AP, ...; where CheXpert gives none, lateral or frontal."""
    views = cells.get("view", [""] * count)
    frontal = cells.get("frontal")
    return views if frontal is None else [a or b for a, b in zip(views, frontal, strict=True)]


def _patients_of_folders(images: Sequence[str]) -> list[str]:
    """Patients from folders such as patient00001, where all paths have one; else ""."""
    patients = []
    for image in images:
        folders = PurePosixPath(image.replace("\\", "/")).parts[:-1]
        fitting = [name for name in folders if PATIENT_FOLDER.fullmatch(name)]
        if not fitting:
            return [""] * len(images)
        patients.append(fitting[-1])
    note("groups", f"patients are read from the folders of the pictures ({patients[0]}, …)")
    return patients


def _find(folder: XrayFolder, where: str, name: str, reading: Reading) -> tuple[str, str, str]:
    """(file, item, problem) of a picture."""
    try:
        file, item = folder.find(where, name)
    except InputError as error:
        if reading.need_label and not isinstance(error, MissingPicture):
            raise
        return name, name, str(error)
    return file, item, ""
