"""A table with a row a picture: image, identity, and if it likes camera, split and any attributes.

Paths are relative to the folder of the pictures (`images`, or where the table lies), or absolute
and in it; nothing outside of that folder is read, whatever the table says."""

import os
from pathlib import Path

import polars as pl

from ...base.errors import fail, shown
from ..formats.pictures import PictureFolder
from ..formats.tables import collect, require_columns, scan_table
from .layouts import PART_FOLDERS, Listing

PARTS = {**PART_FOLDERS, "training": "train"}


def read_table(
    path: str | os.PathLike[str], images: str | os.PathLike[str] | None = None
) -> Listing:
    """Read a csv or parquet table of pictures.

    path    columns `image` and `identity`; `camera`; `split` or `part` (train, val or validation, test, query,
            gallery); every other column is an attribute (empty cells are None). Identity -1 is junk
    images  folder in which the pictures lie; None: the folder of the table

    Raises InputError for a table without those columns or without rows, an empty cell in them, an
    unknown part, and a picture that is not there or lies outside of the folder."""
    frame, names = scan_table(str(path))
    require_columns(path, ("image", "identity"), names)
    if "split" in names and "part" in names:
        raise fail(path, "has both columns 'split' and 'part'; keep one")
    part = "part" if "part" in names else "split"
    schema = frame.collect_schema()
    for name in names:
        kind = schema[name]
        if kind.is_nested() or kind in (pl.Binary, pl.Object):
            raise fail(
                path,
                f"column {shown(name)} holds {kind}, not text or numbers; leave it out, or give paths",
            )
    table = collect(path, frame.select(pl.all().cast(pl.String).str.strip_chars()))
    if not table.height:
        raise fail(path, "has column names but no rows")
    if images is not None and not Path(images).is_dir():
        raise fail(images, "is no folder; give the folder in which the pictures of the table lie")
    home = PictureFolder(images if images is not None else Path(path).parent)
    found = Listing(identities=_filled(path, table, "identity"))
    for row, given in enumerate(_filled(path, table, "image"), 1):
        file, name = home.find(f"{path}: column 'image', row {row}", given)
        found.paths.append(file)
        found.names.append(name)
    found.parts = _parts(path, table, part) if part in names else [""] * table.height
    found.cameras = _filled(path, table, "camera") if "camera" in names else None
    found.distractor = [False] * table.height
    for name in names:
        if name not in ("image", "identity", "camera", part):
            found.attributes[name] = [cell or None for cell in table[name].to_list()]
    return found


def _filled(path: object, table: pl.DataFrame, name: str) -> list[str]:
    """The cells of a column, none of which may be empty."""
    cells = table[name].to_list()
    for row, cell in enumerate(cells, 1):
        if not cell:
            hint = (
                "fill it, or leave the column out"
                if name in ("camera", "split", "part")
                else "fill it"
            )
            raise fail(path, f"column {name!r}, row {row}: is empty; {hint}")
    return cells


def _parts(path: object, table: pl.DataFrame, name: str) -> list[str]:
    cells = _filled(path, table, name)
    for row, cell in enumerate(cells, 1):
        if cell.lower() not in PARTS:
            known = "train, validation, test, query, gallery"
            raise fail(path, f"column {name!r}, row {row}: {shown(cell)} is none of {known}")
    return [PARTS[cell.lower()] for cell in cells]
