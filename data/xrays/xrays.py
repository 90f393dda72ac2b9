"""Chest X-rays: folders by class, tables, DICOM, MedMNIST files and the lists of COVIDx, as rows.

Shapes: Y rows and X columns; a picture is float32 (Y, X) in [0, 1]. `read_xray_set` lists pictures
without opening them (it reads the headers of DICOM files); row r is the picture files[r] with
labels[r].
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...base.account import note
from ...base.errors import InputError, fail, nearest, shown
from ..columns import note_groups
from ..formats.dicom import is_dicom, read_dicom, read_header
from ..formats.grey_range import unit_range, wide_values
from ..formats.pictures import decode_picture, resized, upright
from ..formats.tables import TABLE_SUFFIXES, endings_of, suffix_of
from ..groups import read_groups
from ..items import check_items, readable_rows
from ..listed import note_unlisted
from .files import SUFFIXES, is_mask
from .findings import classes_of, one_against_rest, refuse_several
from .layouts import read_covidx, read_folder
from .medmnist import read_medmnist, read_place
from .records import Reading, Xray, XraySet, xray_set
from .several import several_findings
from .table import read_table

if TYPE_CHECKING:
    from PIL.Image import Image

_LUMA = np.array(
    [0.299, 0.587, 0.114], np.float32
)  # grey of red, green and blue, as Pillow weights them


def read_xray_set(
    path: str | os.PathLike[str], reading: Reading | None = None, *, classes: Sequence[str] = ()
) -> XraySet:
    """List a data set.

    path     folder whose folders are the classes, or train, val and test with classes in them; a
             table with image and label, and optionally patient, view, source, part, or a folder
             with it as labels.csv; the folder or table of NIH, CheXpert and others; a MedMNIST
             .npz; a list of COVIDx (.txt), or a folder with its lists, whose pictures lie in train/
             and test/ next to it
    reading  how to read it; by default as it is
    classes  the classes to use; by default those of `reading`

    Patients of DICOM files come from their headers, as numbers. Raises `InputError`, one line, for
    what is missing or does not fit.
    """
    source = Path(path)
    if not source.exists():
        raise fail(path, "there is no such folder, table or list")
    reading = reading or Reading()
    reading = replace(reading, classes=tuple(classes) or tuple(reading.classes))
    layout, xrays = _read(source, reading)
    if layout in ("table", "covidx"):
        files = [xray.file for xray in xrays if not xray.problem]
        note_unlisted(source, files, SUFFIXES, "pictures", belongs=lambda file: not is_mask(file))
    if reading.need_label:  # rows without a label were judged when the table was read
        xrays = [xray for xray in xrays if xray.label]
    listed = xray_set(source, layout, xrays)
    if reading.need_label:
        if reading.use_labels:
            listed = _with_labels(listed, reading)
        listed = leave_out_unreadable(listed, dict(enumerate(listed.problems)))
        items = _identities(listed)
        rows = check_items(listed.where, "picture", items, listed.labels, listed.parts)
        listed = listed.of(rows)
        listed = replace(listed, patients=read_groups("patient", listed.patients))
        listed = _with_patients(_with_headers(listed))
    else:
        listed = listed.of(_first_rows(listed))
    note("read", "pictures", count=len(listed))
    return listed


def _read(source: Path, reading: Reading) -> tuple[str, list[Xray]]:
    """The layout and its pictures."""
    is_table = source.is_file() and suffix_of(source) in TABLE_SUFFIXES
    if source.is_dir():
        layout, xrays = read_folder(source, reading)
    elif source.suffix.lower() == ".npz":
        layout, xrays = "medmnist", read_medmnist(source)
    elif source.suffix.lower() == ".txt":
        layout, xrays = "covidx", read_covidx(source.parent, [source], reading)
    elif is_table:
        layout, xrays = "table", read_table(source, reading)
    else:
        tables = f"a table ({endings_of(TABLE_SUFFIXES)})"
        raise fail(source, f"is neither a folder, {tables}, an .npz of MedMNIST nor a .txt")
    for name, value in (("columns", reading.columns), ("uncertain", reading.uncertain)):
        if value and layout != "table" and reading.strict:
            raise fail(source, f"--{name} is read with a table; leave it out")
    if reading.images and layout not in ("table", "covidx"):
        raise fail(source, "--images is read with a table or list; leave it out")
    return layout, xrays


def _first_rows(xrays: XraySet) -> list[int]:
    """Rows without those of pictures that are listed before; a table may have a row for each
    finding or box.
    """
    first: dict[str, int] = {}
    repeated = []
    for row, item in enumerate(_identities(xrays)):
        if first.setdefault(item, row) != row:
            repeated.append(xrays.names[row])
    if repeated:
        note("items", "pictures that are listed more than once, predicted once", repeated)
    return list(first.values())


def _identities(xrays: XraySet) -> list[str]:
    """What tells the pictures of a set apart: their names, or files where they share names."""
    pairs = set(zip(xrays.names, xrays.files, strict=True))
    return xrays.names if len(pairs) == len(set(xrays.names)) else xrays.files


def _with_labels(xrays: XraySet, reading: Reading) -> XraySet:
    """With the labels of one finding or of several, and of the chosen classes alone."""
    where, labels = xrays.where, xrays.labels
    if reading.findings:
        findings, labels = several_findings(where, labels, reading.findings, strict=reading.strict)
        return replace(xrays, labels=labels, findings=findings)
    if reading.finding is None:
        if not reading.classes:
            refuse_several(where, labels)
    elif not set(labels) <= set(classes_of(reading.finding)):
        labels = one_against_rest(where, labels, reading.finding, required=reading.strict)
        xrays = _joined_rows(replace(xrays, labels=labels), reading.finding)
    labels = xrays.labels
    if not reading.classes:
        return xrays
    known = sorted(set(labels))
    if missing := [name for name in reading.classes if name not in known]:
        hint = f"{nearest(missing[0], known)}; it has {', '.join(known[:40])}"
        raise fail(where, f"has no class {shown(missing[0])}{hint}")
    rows = [row for row, label in enumerate(labels) if label in reading.classes]
    if len(rows) < len(labels):
        note("left out", "pictures of other classes than --classes", count=len(labels) - len(rows))
    return xrays.of(rows)


def _joined_rows(xrays: XraySet, finding: str) -> XraySet:
    """One row for each picture of a table that has a row for each finding: it has the finding if
    one of its rows has. Rows in two parts stay, and are refused later.
    """
    _, with_it = classes_of(finding)
    items = _identities(xrays)
    having = {item for item, label in zip(items, xrays.labels) if label == with_it}
    labels = [with_it if item in having else label for item, label in zip(items, xrays.labels)]
    first: dict[tuple[str, str], int] = {}
    for row, key in enumerate(zip(items, xrays.parts)):
        first.setdefault(key, row)
    rows = set(first.values())
    joined = [name for row, name in enumerate(xrays.names) if row not in rows]
    if joined:
        note("items", "pictures with several rows, joined by the finding", joined)
    return replace(xrays, labels=labels).of(list(first.values()))


def leave_out_unreadable(xrays: XraySet, problems: dict[int, str]) -> XraySet:
    """Without the pictures that are missing or cannot be read; see `readable_rows`."""
    rows = readable_rows("pictures", xrays.names, problems)
    return xrays if len(rows) == len(xrays) else xrays.of(rows)


def _with_headers(xrays: XraySet) -> XraySet:
    """Add the views and patients of DICOM files, where the data does not say.

    A header that cannot be read says nothing; what is wrong shows when the pixels are read.
    """
    views, patients = list(xrays.views), list(xrays.patients)
    headers: dict[int, str] = {}
    for row, file in enumerate(xrays.files):
        if xrays.places[row] is None and not (views[row] and patients[row]) and is_dicom(file):
            try:
                view, patient = read_header(file)
            except InputError:
                continue
            views[row] = views[row] or view
            if patient and not patients[row]:
                headers[row] = patient
    if len(headers) > 1 and len(set(headers.values())) == 1 and not any(patients):
        what = "all DICOM headers name one patient (an anonymised export?), which is not used"
        note("assumed", what)
        headers = {}
    elif headers:
        note("groups", "pictures whose patients come from DICOM headers", count=len(headers))
    numbers: dict[str, str] = {}
    for row, patient in zip(headers, read_groups("patient", list(headers.values())), strict=True):
        if patient:
            patients[row] = numbers.setdefault(patient, f"patient {len(numbers) + 1}")
    return replace(xrays, views=views, patients=patients)


def _with_patients(xrays: XraySet) -> XraySet:
    """Number the pictures whose patient is unknown, each as a patient of its own."""
    unknown = sum(not patient for patient in xrays.patients)
    patients = [patient or f"picture {row}" for row, patient in enumerate(xrays.patients, 1)]
    if unknown == len(patients):
        note_groups("patient", "pictures", None, patients)
    else:
        count = len(set(patients)) - unknown
        note("groups", f"{len(patients) - unknown:,} pictures of {count:,} patients stay together")
        if unknown:
            what = "pictures without a patient, each of which counts as its own"
            note("groups", what, count=unknown)
    return replace(xrays, patients=patients)


def read_row(rows: XraySet, row: int) -> np.ndarray:
    """The picture of a row, as `read_xray`. Raises `InputError` for one that cannot be read."""
    if rows.problems[row]:
        raise InputError(rows.problems[row])
    file, place = rows.files[row], rows.places[row]
    return read_xray(file) if place is None else read_place(file, place)


def read_xray(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a picture or DICOM file in grey: float32 (Y, X) in [0, 1]. 16 bits are not reduced to 8,
    colours become grey, and what is transparent is black. A file of 16 bits whose values need only
    8, 10, 12 or 14, as detectors give them, is scaled by these; burnt-in markers do not count.

    Raises `InputError` as `read_picture` and `read_dicom`.
    """
    if is_dicom(path):
        return read_dicom(path).pixels
    return decode_picture(path, lambda opened: _grey(path, opened))


def _grey(path: object, opened: Image) -> np.ndarray:
    if opened.mode == "F":
        raise fail(path, "holds fractions, not 8 or 16 bit numbers; save it as png")
    wide = wide_values(path, opened, lambda channel: upright(channel, opened))
    if wide is not None:
        if wide.min() < 0 or wide.max() > 65535:
            raise fail(path, "holds numbers beyond 16 bits; save it with 8 or 16 bits")
        values = unit_range(path, wide[..., :3].astype(np.float32))
        grey = values[..., 0] if wide.shape[2] == 1 else values @ _LUMA
        return grey if wide.shape[2] < 4 else grey * wide[..., 3].astype(np.float32) / 65535
    if "A" in opened.mode or "transparency" in opened.info:
        clear = np.asarray(upright(opened.convert("LA"), opened)).astype(np.float32)
        return clear[..., 0] * clear[..., 1] / 65025
    return np.asarray(upright(opened.convert("L"), opened)).astype(np.float32) / 255


def two_sizes(
    pixels: np.ndarray, size: tuple[int, int], small: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """The picture at two sizes (height, width) in pixels, for the classifier and for the body
    model: float32 (1, Y, X) and (1, y, x), without regard to its aspect ratio.
    """
    return resized(pixels, size)[None], resized(pixels, small)[None]
