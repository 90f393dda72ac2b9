"""Chest X-rays: folders by class, tables, DICOM, MedMNIST files and the lists of COVIDx, as rows.

Shapes: Y rows and X columns; a picture is float32 (Y, X) in [0, 1]. `read_xray_set` lists pictures
without opening them (it reads the headers of DICOM files); row r is the picture files[r] with
labels[r].
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from ...base.errors import InputError, fail, nearest, reason, shown
from ..formats.dicom import DICOM_SUFFIXES, is_dicom, read_dicom, read_header
from ..formats.pictures import (
    PICTURE_SUFFIXES,
    PictureFolder,
    decode_picture,
    list_pictures,
    resized,
    upright,
)
from ..formats.tables import TABLE_SUFFIXES, collect, require_columns, scan_table, suffix_of
from ..parts import PARTS, read_part, rows_in

if TYPE_CHECKING:
    from numpy.lib.npyio import NpzFile
    from PIL.Image import Image

SUFFIXES = (*PICTURE_SUFFIXES, *DICOM_SUFFIXES)
LABELS = "labels.csv"
NPZ_BYTES = 4 << 30  # most bytes of a MedMNIST file, unpacked
MEDMNIST = {
    "pneumoniamnist": ("normal", "pneumonia"),
    "breastmnist": ("malignant", "normal or benign"),
}
_IMAGE = ("image", "file", "filename", "path")
_SYNONYMS = {"patient": ("patient", "patient_id"), "part": ("part", "split")}


@dataclass(frozen=True, eq=False)
class XraySet:
    """N pictures; all lists have N entries, "" where the data does not say."""

    where: str  # for messages
    layout: str  # "classes", "table", "medmnist" or "covidx"
    names: list[str]  # item ids
    files: list[str]
    places: list[tuple[str, int] | None]  # array and row in a MedMNIST file
    labels: list[str]
    patients: list[str]  # from the table, or numbers; by default each picture is its own patient
    views: list[str]
    sources: list[str]
    parts: list[str]  # train, validation, test or ""

    def __len__(self) -> int:
        return len(self.names)

    def rows(self, *parts: str) -> np.ndarray:
        """Rows of these parts in their order, int64 (n,); all rows where none is named."""
        return rows_in(self.parts, parts)

    def of(self, rows: Sequence[int]) -> XraySet:
        """The pictures of these rows."""
        lists = ("names", "files", "places", "labels", "patients", "views", "sources", "parts")
        return replace(self, **{name: [getattr(self, name)[row] for row in rows] for name in lists})


def read_xray_set(
    path: str | os.PathLike[str], *, classes: Sequence[str] = (), need_label: bool = True
) -> XraySet:
    """List a data set.

    path        folder whose folders are the classes, or train, val and test with classes in them; a
                table with image (or file) and label, and optionally patient, view, source, part, or
                a folder with it as labels.csv; a MedMNIST .npz; a list of COVIDx (.txt), or a
                folder with its lists, whose pictures lie in train/ and test/ next to it
    classes     the classes to use; by default all
    need_label  whether a table must have labels; not needed for predictions

    Patients of DICOM files come from their headers, as numbers. Raises `InputError`, one line, for
    what is missing or does not fit.
    """
    source = Path(path)
    if not source.exists():
        raise fail(path, "there is no such folder, table or list")
    xrays = _read(source, need_label)
    if classes:
        known = sorted(set(xrays.labels))
        if missing := [name for name in classes if name not in known]:
            hint = f"{nearest(missing[0], known)}; it has {', '.join(known)}"
            raise fail(path, f"has no class {shown(missing[0])}{hint}")
        xrays = xrays.of([row for row, label in enumerate(xrays.labels) if label in classes])
    return _with_headers(xrays)


def _read(source: Path, need_label: bool) -> XraySet:
    if source.is_dir():
        if (source / LABELS).is_file():
            return _table(source / LABELS, need_label)
        lists = [n for n in sorted(os.listdir(source)) if n.lower().endswith(".txt")]
        lists = [source / name for name in lists if _part_of_list(name)]
        return _covidx(source, lists) if lists else _classes(source)
    if source.suffix.lower() == ".npz":
        return _medmnist(source)
    if source.suffix.lower() == ".txt":
        return _covidx(source.parent, [source])
    if suffix_of(source) in TABLE_SUFFIXES:
        return _table(source, need_label)
    tables = f"a table ({', '.join(TABLE_SUFFIXES)})"
    raise fail(source, f"is neither a folder, {tables}, an .npz of MedMNIST nor a .txt")


def _with_headers(xrays: XraySet) -> XraySet:
    """Add the views and patients of DICOM files, where the data does not say."""
    views, patients = list(xrays.views), list(xrays.patients)
    numbers: dict[str, str] = {}
    for row, file in enumerate(xrays.files):
        if xrays.places[row] is None and is_dicom(file) and not (views[row] and patients[row]):
            view, patient = read_header(file)
            views[row] = views[row] or view
            if patient and not patients[row]:
                patients[row] = numbers.setdefault(patient, f"patient {len(numbers) + 1}")
    patients = [patient or f"picture {row}" for row, patient in enumerate(patients, 1)]
    return replace(xrays, views=views, patients=patients)


@dataclass(frozen=True)
class _Xray:
    name: str
    file: str
    label: str
    part: str
    patient: str = ""
    view: str = ""
    source: str = ""
    place: tuple[str, int] | None = None


def _xray_set(where: object, layout: str, xrays: Sequence[_Xray]) -> XraySet:
    if not xrays:
        raise fail(where, "holds no pictures")
    return XraySet(
        str(where),
        layout,
        [xray.name for xray in xrays],
        [xray.file for xray in xrays],
        [xray.place for xray in xrays],
        [xray.label for xray in xrays],
        [xray.patient for xray in xrays],
        [xray.view for xray in xrays],
        [xray.source for xray in xrays],
        [xray.part for xray in xrays],
    )


def _classes(home: Path) -> XraySet:
    """The folder of a picture is its class; folders above may name a part."""
    xrays: list[_Xray] = []
    for file, name in list_xrays(home):
        *above, label = ["", *name.split("/")[:-1]]
        if label.lower() in PARTS or not label:
            cure = "put each class into a folder of its name"
            raise fail(home, f"{shown(name)} lies in no folder of a class; {cure}")
        part = next((PARTS[word.lower()] for word in above if word.lower() in PARTS), "")
        xrays.append(_Xray(name, file, label, part))
    return _xray_set(home, "classes", xrays)


def list_xrays(path: str | os.PathLike[str]) -> list[tuple[str, str]]:
    """Pictures and DICOM files as (file, id), sorted by id; see `list_pictures`. DICOM files
    without an ending count where there is nothing else.
    """
    source = Path(path)
    if source.is_file() and not source.suffix and is_dicom(source):
        return [(str(source), source.name)]
    try:
        return list_pictures(path, SUFFIXES)
    except InputError:
        if not source.is_dir():
            raise
        bare = [
            (file, name)
            for file, name in list_pictures(path, ("",))
            if not Path(name).suffix and is_dicom(file)
        ]
        if not bare:
            raise
        return bare


def _table(path: Path, need_label: bool) -> XraySet:
    frame, names = scan_table(path)
    image = next((name for name in _IMAGE if name in names), None)
    if image is None:
        require_columns(path, ("image",), names)
    if need_label:
        require_columns(path, ("label",), names)
    column = {"image": image, **{name: name for name in ("label", "view", "source")}}
    for field, synonyms in _SYNONYMS.items():
        present = [name for name in synonyms if name in names]
        if len(present) > 1:
            both = f"{shown(present[0])} and {shown(present[1])}"
            raise fail(path, f"has both columns {both}; keep one")
        column[field] = present[0] if present else None
    cells = [
        pl.lit("").alias(field)
        if name not in names
        else pl.col(name).cast(pl.String).str.strip_chars().fill_null("").alias(field)
        for field, name in column.items()
    ]
    table = collect(path, frame.select(cells))
    home, xrays = PictureFolder(path.parent), []
    for line, row in enumerate(table.iter_rows(named=True), 1):
        for field in ("image", "label") if need_label else ("image",):
            if not row[field]:
                raise fail(f"{path}: column {column[field]!r}, row {line}", "is empty; fill it")
        where = f"{path}: column {column['part']!r}, row {line}"
        part = read_part(where, row["part"]) if row["part"] else ""
        file, name = home.find(f"{path}: column {image!r}, row {line}", row["image"])
        known = (row["label"], part, row["patient"], row["view"], row["source"])
        xrays.append(_Xray(name, file, *known))
    return _xray_set(path, "table", xrays)


def _part_of_list(name: str) -> str:
    beginnings = ((word, name.lower().startswith((f"{word}_", f"{word}."))) for word in PARTS)
    return next((PARTS[word] for word, begins in beginnings if begins), "")


def _covidx(home: Path, lists: Sequence[Path]) -> XraySet:
    """Lines `patient file class source`; the name of a file may have spaces."""
    xrays: list[_Xray] = []
    for path in lists:
        part = _part_of_list(path.name)
        folders = [home / name for name in (part, "val", "data") if name]
        folder = next((folder for folder in folders if folder.is_dir()), home)
        pictures = PictureFolder(folder)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            raise fail(path, "is no text in UTF-8") from None
        for line, text in enumerate(lines, 1):
            words = text.split()
            if not words:
                continue
            where = f"{path}: line {line}"
            if len(words) < 4:
                raise fail(where, f"{shown(text)} is not `patient file class source`")
            file, name = pictures.find(where, " ".join(words[1:-2]))
            name = f"{folder.name}/{name}" if folder != home else name
            xrays.append(_Xray(name, file, words[-2], part, patient=words[0], source=words[-1]))
    return _xray_set(home if len(lists) > 1 else lists[0], "covidx", xrays)


def _medmnist(path: Path) -> XraySet:
    set_name = path.stem.lower()
    names = [n for name, names in MEDMNIST.items() if set_name.startswith(name) for n in names]
    xrays: list[_Xray] = []
    with _arrays(path) as arrays:
        for word in ("train", "val", "test"):
            images = _array(path, arrays, f"{word}_images")
            labels = _array(path, arrays, f"{word}_labels")
            if labels.ndim == 2 and labels.shape[1] > 1:
                raise fail(path, f"has {labels.shape[1]} labels a picture; one is read")
            labels = labels.reshape(-1)
            is_image = images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)
            fits = images.dtype == np.uint8 and len(labels) == len(images)
            if not (is_image and fits and labels.dtype.kind in "iu"):
                types = f"{images.dtype} {images.shape} and {labels.dtype} {labels.shape}"
                needed = "needs uint8 pictures (N, Y, X) and as many labels"
                raise fail(path, f"{word}: {needed}, got {types}")
            for k, number in enumerate(labels.tolist()):
                label = names[number] if number < len(names) else str(number)
                place = (f"{word}_images", k)
                xrays.append(_Xray(f"{word}/{k}", str(path), label, PARTS[word], place=place))
    return _xray_set(path, "medmnist", xrays)


def _arrays(path: str | Path) -> NpzFile:
    """Open an .npz without reading its arrays, and without unpickling.

    Raises `InputError` where it is damaged or too large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(member.file_size for member in archive.infolist())
        if total > NPZ_BYTES:
            raise fail(path, f"unpacks to {total:,} bytes; at most {NPZ_BYTES:,} are read")
        return np.load(path, allow_pickle=False)
    except InputError:
        raise
    except (OSError, ValueError, zipfile.BadZipFile):
        raise fail(path, "is no .npz of MedMNIST, or is damaged") from None


def _array(path: str | Path, arrays: NpzFile, name: str) -> np.ndarray:
    try:
        return arrays[name]
    except KeyError:
        known = "a file of MedMNIST has train_images, train_labels, ..."
        raise fail(path, f"has no array {name!r}; {known}") from None
    except Exception as error:  # objects, damaged bytes
        raise fail(path, f"array {name!r} cannot be read ({reason(error, 80)})") from None


def read_row(rows: XraySet, row: int) -> np.ndarray:
    """The picture of a row, as `read_xray`. Raises `InputError` for one that cannot be read."""
    file, place = rows.files[row], rows.places[row]
    return read_xray(file) if place is None else read_place(file, place)


@lru_cache(maxsize=6)
def _cached_array(file: str, name: str, changed: float) -> np.ndarray:
    """changed: when the file was last changed, so that it is read again after that."""
    with _arrays(file) as arrays:
        return _array(file, arrays, name)


def read_place(file: str, place: tuple[str, int]) -> np.ndarray:
    """A picture of a MedMNIST file, as `read_xray`; its arrays are read once."""
    name, index = place
    values = _cached_array(file, name, os.stat(file).st_mtime)[index].astype(np.float32)
    return (values if values.ndim == 2 else values.mean(2)) / 255


def read_xray(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a picture or DICOM file in grey: float32 (Y, X) in [0, 1]. 16 bits are not reduced to 8,
    colours become grey, and what is transparent is black.

    Raises `InputError` as `read_picture` and `read_dicom`.
    """
    if is_dicom(path):
        return read_dicom(path).pixels
    return decode_picture(path, lambda opened: _grey(path, opened))


def _grey(path: object, opened: Image) -> np.ndarray:
    if opened.mode.startswith("I"):  # 16 bits, which Pillow stores as 16 or 32
        values = np.asarray(upright(opened.copy(), opened)).astype(np.float32)
        if values.min() < 0 or values.max() > 65535:
            raise fail(path, "holds numbers beyond 16 bits; save it with 8 or 16 bits")
        return values / 65535
    if opened.mode == "F":
        raise fail(path, "holds fractions, not 8 or 16 bit numbers; save it as png")
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
