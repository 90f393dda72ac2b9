"""Layouts of folders of X-rays: folders by class, the lists of COVIDx, and the tables that public
sets come with.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...base.account import note
from ...base.errors import fail, reason, shown
from ..formats.tables import TABLE_SUFFIXES, stem_of, suffix_of
from ..items import read_folder_classes, read_labels
from ..listed import labels_table
from ..parts import PARTS, note_other_folders
from .files import MissingPicture, XrayFolder, list_xrays, without_masks
from .records import Reading, Xray
from .table import PATIENT_FOLDER, read_table

_PICTURES = ("images", "image", "pictures", "xrays")  # folders inside of a class that are no class
_TABLES = (
    "data_entry_2017", "data_entry_2017_v2020", "metadata",  # of NIH, and of others
    "mimic-cxr-2.0.0-chexpert", "mimic-cxr-2.0.0-negbio",
)  # fmt: skip
_PART_LISTS = {"train_val_list.txt": "train", "test_list.txt": "test"}  # of NIH


def read_folder(home: Path, reading: Reading) -> tuple[str, list[Xray]]:
    """The layout of a folder and its pictures.

    A folder may hold labels.csv; the table of a public set (NIH: Data_Entry_2017.csv with its two
    lists of parts; CheXpert: train.csv and valid.csv; MIMIC-CXR: that of its labels); lists of
    COVIDx; or a folder for each class.
    """
    if tables := listing_tables(home):
        xrays = [xray for path, part in tables for xray in read_table(path, reading, part)]
        is_nih = any(stem_of(path).lower() in _TABLES for path, _ in tables)
        return "table", _with_part_lists(home, xrays) if is_nih else xrays
    if lists := _covidx_lists(home):
        return "covidx", read_covidx(home, lists, reading)
    return "classes", _read_classes(home, _all_tables(home))


def has_lists(home: Path) -> bool:
    """Whether tables or lists of a folder name its pictures, which else lie in folders by class."""
    return bool(listing_tables(home)) or bool(_covidx_lists(home))


def _covidx_lists(home: Path) -> list[Path]:
    names = [name for name in _files(home) if name.lower().endswith(".txt")]
    return [home / name for name in names if part_of_list(name) and name not in _PART_LISTS]


def listing_tables(home: Path) -> list[tuple[Path, str]]:
    """The tables of a folder that list its pictures, each with its part ("" where it has all or
    says it itself); none for folders by class and for lists of COVIDx.
    """
    if (labels := labels_table(home)) is not None:
        return [(labels, "")]
    tables = _all_tables(home)
    for path in tables:
        if stem_of(path).lower() in _TABLES:
            return [(path, "")]
    by_part = {path: PARTS.get(stem_of(path).lower(), "") for path in tables}
    if "train" not in by_part.values():
        return []
    return [(path, part) for path, part in by_part.items() if part]


def _all_tables(home: Path) -> list[Path]:
    tables = [home / name for name in _files(home) if suffix_of(Path(name)) in TABLE_SUFFIXES]
    return [path for path in tables if path.suffix.lower() != ".txt" and path.is_file()]


def _files(home: Path) -> list[str]:
    try:
        return sorted(os.listdir(home))
    except OSError as error:
        raise fail(home, f"cannot be listed ({reason(error)}); check the permissions") from error


def _with_part_lists(home: Path, xrays: list[Xray]) -> list[Xray]:
    """NIH's parts: pictures of train_val_list.txt and of test_list.txt."""
    part_of: dict[str, str] = {}
    for name, part in _PART_LISTS.items():
        if (home / name).is_file():
            lines = (line.strip() for line in _lines(home / name))
            part_of |= {Path(line).name: part for line in lines if line}
    if not part_of or any(xray.part for xray in xrays):
        return xrays
    note("columns", f"parts are read from {' and '.join(_PART_LISTS)}")
    pairs = ((xray, part_of.get(Path(xray.name).name, "")) for xray in xrays)
    return [replace(xray, part=part) for xray, part in pairs]


def _read_classes(home: Path, tables: Sequence[Path]) -> list[Xray]:
    """The folder of a picture is its class; folders above may name a part, folders between class
    and picture a patient. Folders of masks are left out. tables: in the folder, for the message.
    """
    xrays: list[Xray] = []
    pictures = without_masks(home, list_xrays(home))
    placed = [_class_and_patient(name) for _, name in pictures]
    for (file, name), (label, patient) in zip(pictures, placed, strict=True):
        if label.lower() in PARTS or not label:
            cure = "put each class into a folder of its name"
            cure += f", or give the table {tables[0]}" if tables else ""
            raise fail(home, f"{shown(name)} lies in no folder of a class; {cure}")
        above = name.split("/")[:-1]
        part = next((PARTS[word.lower()] for word in above if word.lower() in PARTS), "")
        xrays.append(Xray(name, file, label, part, patient=patient))
    note_other_folders([xray.name for xray in xrays], [xray.part for xray in xrays])
    labels = read_folder_classes(home, [xray.label for xray in xrays])
    return [replace(xray, label=label) for xray, label in zip(xrays, labels, strict=True)]


def _class_and_patient(name: str) -> tuple[str, str]:
    """The folder that is the class of a picture, and the folder of its patient, "" for none."""
    folders, patient = name.split("/")[:-1], ""
    while len(folders) > 1 and folders[-2].lower() not in PARTS:
        if PATIENT_FOLDER.fullmatch(folders[-1]):
            patient = folders.pop()
        elif folders[-1].lower() in _PICTURES:
            folders.pop()
        else:
            break
    return (folders[-1] if folders else ""), patient


def part_of_list(name: str) -> str:
    """The part that the beginning of a file's name says, "" for none."""
    beginnings = ((word, name.lower().startswith((f"{word}_", f"{word}."))) for word in PARTS)
    return next((PARTS[word] for word, begins in beginnings if begins), "")


def read_covidx(home: Path, lists: Sequence[Path], reading: Reading) -> list[Xray]:
    """Lines `patient file class source`; the name of a file may have spaces."""
    xrays: list[Xray] = []
    for path in lists:
        part = part_of_list(path.name)
        folders = [home / name for name in (part, "val", "data") if name]
        folder = next((folder for folder in folders if folder.is_dir()), home)
        folder = Path(reading.images) if reading.images else folder
        pictures = XrayFolder([folder])
        for line, text in enumerate(_lines(path), 1):
            words = text.split()
            if not words:
                continue
            where = f"{path}: line {line}"
            if len(words) < 4:
                raise fail(where, f"{shown(text)} is not `patient file class source`")
            wanted_file, problem = " ".join(words[1:-2]), ""
            try:
                file, name = pictures.find(where, wanted_file)
            except MissingPicture as error:
                file, name, problem = wanted_file, wanted_file, str(error)
            name = f"{folder.name}/{name}" if folder != home else name
            patient, label, source = words[0], words[-2], words[-1]
            xrays.append(
                Xray(name, file, label, part, patient=patient, source=source, problem=problem)
            )
    labels = read_labels(home, [xray.label for xray in xrays])
    pairs = zip(xrays, labels, strict=True)
    return [replace(xray, label=label) for xray, label in pairs if label]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise fail(path, "is no text in UTF-8") from None
    except OSError as error:
        raise fail(path, f"cannot be read ({reason(error)})") from None
