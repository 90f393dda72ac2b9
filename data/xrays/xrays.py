"""Chest X-rays: folders by class, tables, DICOM, MedMNIST files and the lists of COVIDx, as rows.

Shapes: Y rows and X columns; a picture is float32 (Y, X) in [0, 1]. `read_xray_set` lists without
opening a picture (of DICOM it reads headers); row r is the picture files[r] with labels[r]."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ...base.errors import InputError, fail, nearest, shown
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

PARTS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
SUFFIXES = (*PICTURE_SUFFIXES, *DICOM_SUFFIXES)
LABELS = "labels.csv"
NPZ_BYTES = 4 << 30  # of a MedMNIST file, unpacked
MEDMNIST = {
    "pneumoniamnist": ("normal", "pneumonia"),
    "breastmnist": ("malignant", "normal or benign"),
}
_IMAGE = ("image", "file", "filename", "path")
_OTHER = {"patient": ("patient", "patient_id"), "part": ("part", "split")}


@dataclass(frozen=True, eq=False)
class XraySet:
    """N pictures; all lists have N entries, "" where the data does not say."""

    where: str  # for messages
    layout: str  # "classes", "table", "medmnist" or "covidx"
    names: list[str]  # item ids
    files: list[str]
    places: list[tuple[str, int] | None]  # array and row in a MedMNIST file
    labels: list[str]
    patients: list[
        str
    ]  # numbers of persons as they come, or what a table says; by default each picture is its own
    views: list[str]
    sources: list[str]
    parts: list[str]  # train, validation, test or ""

    def __len__(self) -> int:
        return len(self.names)

    def rows(self, *parts: str) -> np.ndarray:
        """Rows of these parts in their order, int64 (n,); all rows where none is named."""
        return np.array(
            [row for row, part in enumerate(self.parts) if not parts or part in parts], np.int64
        )

    def of(self, rows: Sequence[int]) -> XraySet:
        """Some of the pictures."""
        lists = ("names", "files", "places", "labels", "patients", "views", "sources", "parts")
        return replace(self, **{name: [getattr(self, name)[row] for row in rows] for name in lists})


def read_xray_set(
    path: str | os.PathLike[str], *, classes: Sequence[str] = (), need_label: bool = True
) -> XraySet:
    """List a data set.

    path        folder whose folders are the classes, or train, val and test with classes in them; a table with image
                (or file) and label, and if it likes patient, view, source, part, or a folder with
                it as labels.csv; a MedMNIST .npz; a list of COVIDx (.txt), or a folder with its
                lists, pictures in train/ and test/ beside
    classes     those to keep, in this order; by default all
    need_label  whether a table must have labels; not to predict

    Patients of DICOM files come from their headers, as numbers. Raises InputError, one line, for
    what is missing or does not fit."""
    given = Path(path)
    if not given.exists():
        raise fail(path, "there is no such folder, table or list")
    if given.is_dir():
        lists = sorted(
            name
            for name in os.listdir(given)
            if name.lower().endswith(".txt") and _part_of_list(name)
        )
        if (given / LABELS).is_file():
            found = _table(given / LABELS, need_label)
        else:
            found = _covidx(given, [given / name for name in lists]) if lists else _classes(given)
    elif given.suffix.lower() == ".npz":
        found = _medmnist(given)
    elif given.suffix.lower() == ".txt":
        found = _covidx(given.parent, [given])
    elif suffix_of(given) in TABLE_SUFFIXES:
        found = _table(given, need_label)
    else:
        raise fail(
            path,
            f"is neither a folder, a table ({', '.join(TABLE_SUFFIXES)}), an .npz of MedMNIST nor a .txt",
        )
    if classes:
        there = set(found.labels)
        if lost := [name for name in classes if name not in there]:
            known = ", ".join(sorted(there))
            raise fail(
                path, f"has no class {shown(lost[0])}{nearest(lost[0], there)}; it has {known}"
            )
        found = found.of([row for row, label in enumerate(found.labels) if label in set(classes)])
    return _numbered(found)


def _numbered(found: XraySet) -> XraySet:
    """Views and patients of DICOM files, where the data does not say."""
    views, patients, known = list(found.views), list(found.patients), {}
    for row, file in enumerate(found.files):
        if found.places[row] is None and is_dicom(file) and not (views[row] and patients[row]):
            view, patient = read_header(file)
            views[row] = views[row] or view
            if patient and not patients[row]:
                patients[row] = known.setdefault(patient, f"patient {len(known) + 1}")
    return replace(
        found, views=views, patients=[p or f"picture {row + 1}" for row, p in enumerate(patients)]
    )


def _set(where: object, layout: str, rows: list[dict[str, Any]]) -> XraySet:
    """From a dict a picture."""
    if not rows:
        raise fail(where, "holds no pictures")

    def column(name: str) -> list[Any]:
        return [row.get(name) or "" for row in rows]

    return XraySet(
        str(where),
        layout,
        column("name"),
        column("file"),
        [row.get("place") for row in rows],
        column("label"),
        column("patient"),
        column("view"),
        column("source"),
        column("part"),
    )


def _classes(home: Path) -> XraySet:
    """The folder that a picture lies in is its class; folders above may name a part."""
    rows = []
    for file, name in list_xrays(home):
        above = name.split("/")[:-1]
        part = next((PARTS[one.lower()] for one in above[:-1] if one.lower() in PARTS), "")
        if not above or above[-1].lower() in PARTS:
            raise fail(
                home,
                f"{shown(name)} lies in no folder of a class; put each class into a folder of its name",
            )
        rows.append({"name": name, "file": file, "label": above[-1], "part": part})
    return _set(home, "classes", rows)


def list_xrays(path: str | os.PathLike[str]) -> list[tuple[str, str]]:
    """Pictures and DICOM files as (file, id), sorted by id; see `list_pictures`. Files without an
    ending that are DICOM count where nothing else is there."""
    given = Path(path)
    if given.is_file() and not given.suffix and is_dicom(given):
        return [(str(given), given.name)]
    try:
        return list_pictures(path, SUFFIXES)
    except InputError:
        if not given.is_dir():
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
    frame, columns = scan_table(path)
    image = next((name for name in _IMAGE if name in columns), None)
    if image is None:
        require_columns(path, ("image",), columns)
    if need_label:
        require_columns(path, ("label",), columns)
    named = {"image": image, **{n: n for n in ("label", "view", "source") if n in columns}}
    for name, given in _OTHER.items():
        there = [one for one in given if one in columns]
        if len(there) > 1:
            raise fail(path, f"has both columns {shown(there[0])} and {shown(there[1])}; keep one")
        if there:
            named[name] = there[0]
    wanted = [
        pl.col(own).cast(pl.String).str.strip_chars().alias(name) for name, own in named.items()
    ]
    table = collect(path, frame.select(wanted))
    home, rows = PictureFolder(path.parent), []
    for line, row in enumerate(table.iter_rows(named=True), 1):
        for name in ("image", "label") if need_label else ("image",):
            if not row[name]:
                raise fail(f"{path}: column {named[name]!r}, row {line}", "is empty; fill it")
        part = row.get("part") or ""
        if part and part.lower() not in PARTS:
            where = f"{path}: column {named['part']!r}, row {line}"
            raise fail(where, f"{shown(part)} is none of train, validation, test")
        file, name = home.find(f"{path}: column {image!r}, row {line}", row["image"])
        rows.append({**row, "file": file, "name": name, "part": PARTS.get(part.lower(), "")})
    return _set(path, "table", rows)


def _part_of_list(name: str) -> str:
    return next(
        (part for word, part in PARTS.items() if name.lower().startswith((f"{word}_", f"{word}."))),
        "",
    )


def _covidx(home: Path, lists: Sequence[Path]) -> XraySet:
    """Lines `patient file class source`; a file's name may have spaces."""
    rows = []
    for path in lists:
        part = _part_of_list(path.name)
        folder = next(
            (home / name for name in (part, "val", "data") if name and (home / name).is_dir()), home
        )
        inside = PictureFolder(folder)
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
            file, name = inside.find(where, " ".join(words[1:-2]))
            name = f"{folder.name}/{name}" if folder != home else name
            rows.append(
                {
                    "name": name,
                    "file": file,
                    "patient": words[0],
                    "label": words[-2],
                    "source": words[-1],
                    "part": part,
                }
            )
    return _set(home if len(lists) > 1 else lists[0], "covidx", rows)


def _medmnist(path: Path) -> XraySet:
    rows = []
    with _arrays(path) as opened:
        for part, word in (("train", "train"), ("validation", "val"), ("test", "test")):
            images, labels = (
                _array(path, opened, f"{word}_images"),
                _array(path, opened, f"{word}_labels"),
            )
            if labels.ndim == 2 and labels.shape[1] > 1:
                raise fail(path, f"has {labels.shape[1]} labels a picture; one is read")
            labels = labels.reshape(-1)
            grey = images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)
            if (
                not grey
                or images.dtype != np.uint8
                or labels.dtype.kind not in "iu"
                or len(labels) != len(images)
            ):
                raise fail(
                    path,
                    f"{word}: needs uint8 pictures (N, Y, X) and as many labels, got {images.dtype} "
                    f"{images.shape} and {labels.dtype} {labels.shape}",
                )
            known = next(
                (names for name, names in MEDMNIST.items() if path.stem.lower().startswith(name)),
                (),
            )
            rows += [
                {
                    "name": f"{word}/{k}",
                    "file": str(path),
                    "place": (f"{word}_images", k),
                    "part": part,
                    "label": known[label] if label < len(known) else str(label),
                }
                for k, label in enumerate(labels.tolist())
            ]
    return _set(path, "medmnist", rows)


def _arrays(path: str | Path) -> Any:
    """The arrays of an .npz, without unpickling, none read yet; InputError where it is none or too
    large.
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


def _array(path: str | Path, opened: Any, name: str) -> np.ndarray:
    try:
        return opened[name]
    except KeyError:
        raise fail(
            path, f"has no array {name!r}; a file of MedMNIST has train_images, train_labels, ..."
        ) from None
    except Exception as error:  # objects, damaged bytes
        raise fail(
            path, f"array {name!r} cannot be read ({' '.join(str(error).split())[:80]})"
        ) from None


def read_row(rows: XraySet, row: int) -> np.ndarray:
    """The picture of a row, as `read_xray`. Raises InputError for one that cannot be read."""
    file, place = rows.files[row], rows.places[row]
    return read_xray(file) if place is None else read_place(file, place)


@lru_cache(maxsize=6)
def _held_array(file: str, name: str, changed: float) -> np.ndarray:
    with _arrays(file) as opened:
        return _array(file, opened, name)


def read_place(file: str, place: tuple[str, int]) -> np.ndarray:
    """A picture of a MedMNIST file, as `read_xray`; its arrays are read once."""
    name, index = place
    values = _held_array(file, name, os.stat(file).st_mtime)[index].astype(np.float32)
    return (values if values.ndim == 2 else values.mean(2)) / 255


def read_xray(path: str | os.PathLike[str]) -> np.ndarray:
    """One picture or DICOM file, grey: float32 (Y, X) in [0, 1]. Pictures of 16 bits keep them,
    colours become grey, what is transparent is black.

    Raises InputError as `read_picture` and `read_dicom` do.
    """
    if is_dicom(path):
        return read_dicom(path).pixels
    return decode_picture(path, lambda opened: _grey(path, opened))


def _grey(path: object, opened: Any) -> np.ndarray:
    if opened.mode.startswith("I"):  # 16 bits, kept by Pillow as 16 or 32
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
    """The picture as the classifier and as the body see it, float32 (1, Y, X) and (1, y, x); the
    aspect is not kept.
    """
    return resized(pixels, size)[None], resized(pixels, small)[None]
