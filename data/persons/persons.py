"""Pictures of identities or classes: public re-identification and fine-grained sets, folders, and
tables.

`read_picture_set` lists them without opening any. A set is rows: row r is picture paths[r] of
identity identities[r]. An "identity" is a person, a vehicle, or a class of a fine-grained set.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...base.account import note
from ...base.errors import fail, nearest, shown
from ..columns import parse_columns
from ..formats.pictures import PICTURE_SUFFIXES, list_folder, visible_folders
from ..formats.tables import TABLE_SUFFIXES, endings_of, suffix_of
from ..listed import fitting_table, note_unlisted
from ..parts import SEARCH_PARTS, rows_in
from .identity_sets import named_layout
from .layouts import FOLDER_LAYOUTS
from .listing import JUNK, Listing
from .table import FIELDS, read_table

LAYOUTS = ("auto", *FOLDER_LAYOUTS, "table")
PART_NAMES = (*dict.fromkeys(SEARCH_PARTS.values()), "")
_CHILDREN = 100  # a folder with more folders than this is no collection of data sets


@dataclass(frozen=True, eq=False)
class PictureSet:
    """N pictures with what is known about each; all lists have N entries."""

    paths: list[str]
    names: list[str]  # item ids: relative to the folder of the set, with "/"
    identities: list[str]  # "-1" for junk
    cameras: list[str] | None  # None where the data does not say
    parts: list[str]  # one of PART_NAMES; "" where the data has none
    attributes: dict[str, list[str | None]]  # other columns of a table, None where a cell is empty
    junk: np.ndarray  # bool (N,): ignored in a search (the bad boxes of Market-1501)
    distractor: np.ndarray  # bool (N,): no identity, counts against a search (0000 of Market-1501)
    layout: str
    where: str  # the folder or table, for messages

    def __len__(self) -> int:
        return len(self.paths)

    def of(self, rows: Sequence[int]) -> "PictureSet":
        """The pictures of these rows."""
        chosen = np.asarray(rows, np.int64)
        columns = {
            name: [values[row] for row in chosen]
            for name, values in vars(self).items()
            if isinstance(values, list)
        }
        attributes = {
            name: [values[row] for row in chosen] for name, values in self.attributes.items()
        }
        return replace(
            self,
            **columns,
            attributes=attributes,
            junk=self.junk[chosen],
            distractor=self.distractor[chosen],
        )

    def rows(self, *parts: str) -> np.ndarray:
        """Rows of these parts in their order, int64 (n,), junk and distractors included; all rows
        where none is named.

        Raises `ValueError` for an unknown part.
        """
        if unknown := set(parts) - set(PART_NAMES):
            names = ", ".join(map(repr, PART_NAMES))
            raise ValueError(f"PictureSet.rows: {min(unknown)!r} is none of the parts {names}")
        return rows_in(self.parts, parts)


def read_picture_set(
    path: str | os.PathLike[str],
    layout: str = "auto",
    *,
    images: str | os.PathLike[str] | None = None,
    columns: Sequence[str] = (),
) -> PictureSet:
    """List the pictures of a data set with identity, camera and part.

    path    folder of the set, or the folder above it; or a table, or the folder that holds it as
            labels.csv
    layout  one of LAYOUTS; "auto" recognises a public set by its folders and files, else takes one
            folder per identity
    images  folder of the pictures of a table (see `table.read_table`); only for tables
    columns names of columns by field, "identity=who"; only for tables

    Raises `InputError`, one line, for what is missing or does not fit.
    """
    if layout not in LAYOUTS:
        raise fail("layout", f"there is no layout {shown(layout)}{nearest(layout, LAYOUTS)}")
    source = Path(path)
    if not source.exists():
        raise fail(path, "there is no such folder or table")
    if layout in ("auto", "table") and source.is_dir():
        table = fitting_table(source, ("image", "identity"), parse_columns(columns, FIELDS))
        if table is not None:
            note("assumed", f"{table.name} lists the pictures (--layout)")
            layout, path, source = "table", table, table
    if layout == "table" or (layout == "auto" and not source.is_dir()):
        if source.is_dir():
            suffixes = endings_of(TABLE_SUFFIXES)
            raise fail(path, f"is a folder; layout table needs the table itself ({suffixes})")
        listing = read_table(path, images, columns)
        note_unlisted(path, listing.paths, PICTURE_SUFFIXES, "pictures")
        return _picture_set(listing, "table", path)
    if images is not None:
        cure = "and only a table has a separate folder of images; leave images out"
        raise fail(path, f"is no table, {cure}")
    if columns:
        raise fail(path, "is no table; --columns is read with a table")
    if not source.is_dir():
        hint = "; for a table say layout table" if suffix_of(source) in TABLE_SUFFIXES else ""
        raise fail(path, f"is no folder, which layout {layout} needs{hint}")
    name, root = _recognise(source) if layout == "auto" else (layout, _root(source, layout))
    if layout == "auto":
        note("assumed", f"layout {name} (--layout)")
    return _picture_set(FOLDER_LAYOUTS[name].read(root), name, root)


def _picture_set(listing: Listing, layout: str, where: str | os.PathLike[str]) -> PictureSet:
    listing = listing.checked(where)
    if not listing.names:
        raise fail(where, "holds no picture with an identity")
    pictures = PictureSet(
        listing.paths,
        listing.names,
        listing.identities,
        listing.cameras,
        listing.parts,
        listing.attributes,
        np.array([identity == JUNK for identity in listing.identities], dtype=bool),
        np.array(listing.distractor, dtype=bool),
        layout,
        str(where),
    )
    _note(pictures)
    return pictures


def _note(pictures: PictureSet) -> None:
    """Put into the account what was read."""
    people = ~(pictures.junk | pictures.distractor)
    identities = {pictures.identities[row] for row in np.flatnonzero(people)}
    note("read", "pictures", count=len(pictures))
    note("read", "identities", count=len(identities))
    if pictures.junk.any():
        what = f"pictures of identity {JUNK}, which count neither for nor against a search"
        note("items", what, count=int(pictures.junk.sum()))
    if pictures.distractor.any():
        what = "pictures of nobody in the query, which count against a search"
        note("items", what, count=int(pictures.distractor.sum()))


def _children(folder: Path) -> list[Path]:
    names = visible_folders(folder)
    return [folder / name for name in names] if len(names) <= _CHILDREN else []


def _recognise(folder: Path) -> tuple[str, Path]:
    """The layout and the root of the data set in a folder, or one level below it."""
    for places in ([folder], _children(folder)):
        fits = [
            (name, place)
            for place in places
            for name, layout in FOLDER_LAYOUTS.items()
            if layout.looks_like(place)
        ]
        if len({place for _, place in fits}) > 1:
            names = ", ".join(shown(place.name) for _, place in fits[:4])
            raise fail(folder, f"holds several data sets ({names}); give the folder of one")
        if fits:
            return fits[0]
    if visible_folders(folder):
        return "folders", folder
    pictures = [name for _, name in list_folder(folder)]
    if layout := named_layout(pictures):
        return layout, folder
    unnamed = "pictures that no folder or name gives an identity"
    content = unnamed if pictures else "neither pictures nor folders"
    cure = "put those of each identity into a folder of its own, or give a table"
    raise fail(folder, f"holds {content}; {cure}")


def _root(folder: Path, layout: str) -> Path:
    """The root of a data set of this layout: the folder itself, unless only one below it looks like
    it.
    """
    looks_like = FOLDER_LAYOUTS[layout].looks_like
    if layout == "folders" or looks_like(folder):
        return folder
    fits = [place for place in _children(folder) if looks_like(place)]
    if len(fits) > 1:
        names = f"{fits[0].name}, {fits[1].name}"
        raise fail(folder, f"holds several data sets of layout {layout} ({names}); give one")
    return fits[0] if fits else folder
