"""Pictures of identities or classes: public re-identification and fine-grained sets, folders, and
tables.

`read_picture_set` lists them without opening one. A set is rows: row r is picture paths[r] of
identity identities[r]. "Identity" is a person, a vehicle, or a class of a fine-grained set."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...base.errors import fail, nearest, shown
from ..formats.pictures import list_folder, visible_folders
from ..formats.tables import TABLE_SUFFIXES, suffix_of
from .layouts import FOLDER_LAYOUTS, JUNK, Listing, checked, named_layout
from .table import read_table

LAYOUTS = ("auto", *FOLDER_LAYOUTS, "table")
PARTS = ("train", "validation", "query", "gallery", "test", "")
_CHILDREN = 100  # a folder with more folders in it is no shelf of data sets


@dataclass(frozen=True, eq=False)
class PictureSet:
    """N pictures with what is known of each; all lists have N entries."""

    paths: list[str]
    names: list[str]  # item ids: relative to the folder of the set, with "/"
    identities: list[str]  # "-1" for junk
    cameras: list[str] | None  # None where the data does not say
    parts: list[str]  # one of PARTS; "" where the data has none
    attributes: dict[str, list[str | None]]  # other columns of a table, None where a cell is empty
    junk: (
        np.ndarray
    )  # bool (N,): counts neither for nor against a search (bad boxes of Market-1501)
    distractor: (
        np.ndarray
    )  # bool (N,): belongs to no identity, and counts against a search (its 0000)
    layout: str
    where: str  # the folder or table, for messages

    def __len__(self) -> int:
        return len(self.paths)

    def rows(self, *parts: str) -> np.ndarray:
        """Rows of these parts in their order, int64 (n,), junk and distractors included; all rows
        where none is named.

        Raises ValueError for a part that no set has.
        """
        for part in parts:
            if part not in PARTS:
                raise ValueError(
                    f"PictureSet.rows: {part!r} is none of the parts {', '.join(map(repr, PARTS))}"
                )
        wanted = set(parts or PARTS)
        return np.array(
            [row for row, part in enumerate(self.parts) if part in wanted], dtype=np.int64
        )


def read_picture_set(
    path: str | os.PathLike[str],
    layout: str = "auto",
    *,
    images: str | os.PathLike[str] | None = None,
) -> PictureSet:
    """List the pictures of a data set with identity, camera and part.

    path    folder of the set, or the folder above it; or a table (csv, parquet)
    layout  one of LAYOUTS; "auto" goes by what lies there: the signs of a public set, else a folder for each identity
    images  folder of the pictures of a table (see `reid_table.read_table`); only for tables

    Raises InputError, one line, for what is missing or does not fit.
    """
    if layout not in LAYOUTS:
        raise fail("layout", f"there is no layout {shown(layout)}{nearest(layout, LAYOUTS)}")
    given = Path(path)
    if not given.exists():
        raise fail(path, "there is no such folder or table")
    if layout == "table" or (layout == "auto" and not given.is_dir()):
        if given.is_dir():
            raise fail(
                path,
                f"is a folder; layout table needs the table itself ({', '.join(TABLE_SUFFIXES)})",
            )
        return _made(read_table(path, images), "table", path)
    if images is not None:
        raise fail(
            path, "is no table, and only a table has a separate folder of images; leave images out"
        )
    if not given.is_dir():
        raise fail(path, f"is no folder, which layout {layout} needs" + _table_hint(given))
    name, root = _find(given) if layout == "auto" else (layout, _root(given, layout))
    return _made(FOLDER_LAYOUTS[name].read(root), name, root)


def _made(found: Listing, layout: str, where: str | os.PathLike[str]) -> PictureSet:
    checked(where, found)
    junk = np.array([identity == JUNK for identity in found.identities], dtype=bool)
    distractor = np.array(found.distractor, dtype=bool)
    return PictureSet(
        found.paths,
        found.names,
        found.identities,
        found.cameras,
        found.parts,
        found.attributes,
        junk,
        distractor,
        layout,
        str(where),
    )


def _table_hint(path: Path) -> str:
    return "; for a table say layout table" if suffix_of(path) in TABLE_SUFFIXES else ""


def _below(given: Path) -> list[Path]:
    folders = visible_folders(given)
    return [given / name for name in folders] if len(folders) <= _CHILDREN else []


def _find(given: Path) -> tuple[str, Path]:
    """The layout and folder of the data set in, or one level below, a folder."""
    for root in (given, None):
        places = [given] if root else _below(given)
        fits = [
            (name, place)
            for place in places
            for name, one in FOLDER_LAYOUTS.items()
            if one.looks_like(place)
        ]
        if len({place for _, place in fits}) > 1:
            listed = ", ".join(shown(place.name) for _, place in fits[:4])
            raise fail(given, f"holds several data sets ({listed}); give the folder of one")
        if fits:
            return fits[0]
    if not visible_folders(given):
        names = [name for _, name in list_folder(given)]
        flat = named_layout(names)
        if flat:
            return flat, given
        what = (
            "pictures that no folder or name gives an identity"
            if names
            else "neither pictures nor folders"
        )
        raise fail(
            given,
            f"holds {what}; put those of each identity into a folder of its own, or give a table",
        )
    return "folders", given


def _root(given: Path, layout: str) -> Path:
    """The folder of a data set of this layout: the given one, unless only one below it looks like
    it.
    """
    sign = FOLDER_LAYOUTS[layout].looks_like
    if layout == "folders" or sign(given):
        return given
    fits = [place for place in _below(given) if sign(place)]
    if len(fits) > 1:
        raise fail(
            given,
            f"holds several data sets of layout {layout} ({fits[0].name}, {fits[1].name}); give one",
        )
    return fits[0] if fits else given
