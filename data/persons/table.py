"""A table of pictures: one row per picture, with image and identity, and optionally camera, split
and any attributes.

Paths are relative to the folder of the pictures (`images`, or the folder of the table), or absolute
and in it; nothing outside of that folder is read, whatever the table says.
"""

import os
from pathlib import Path

import polars as pl

from ...base.errors import fail, shown
from ..formats.pictures import PictureFolder
from ..formats.tables import collect, require_columns, scan_table
from ..parts import SEARCH_PARTS, read_part
from .listing import Listing


def read_table(
    path: str | os.PathLike[str], images: str | os.PathLike[str] | None = None
) -> Listing:
    """Read a CSV or Parquet table of pictures.

    path    columns `image` and `identity`; `camera`; `split` or `part` (train, validation, test,
            query, gallery); every other column is an attribute (empty cells are None). Identity -1
            is junk
    images  folder of the pictures; None: the folder of the table

    Raises `InputError` for a table without those columns or without rows, an empty cell in them, an
    unknown part, and a picture that is missing or lies outside of the folder.
    """
    frame, names = scan_table(str(path))
    require_columns(path, ("image", "identity"), names)
    if "split" in names and "part" in names:
        raise fail(path, "has both columns 'split' and 'part'; keep one")
    part_column = "part" if "part" in names else "split"
    for name, kind in frame.collect_schema().items():
        if kind.is_nested() or kind in (pl.Binary, pl.Object):
            cure = "leave it out, or give paths"
            raise fail(path, f"column {shown(name)} holds {kind}, not text or numbers; {cure}")
    table = collect(path, frame.select(pl.all().cast(pl.String).str.strip_chars()))
    if not table.height:
        raise fail(path, "has column names but no rows")
    if images is not None and not Path(images).is_dir():
        raise fail(images, "is no folder; give the folder in which the pictures of the table lie")
    home = PictureFolder(images if images is not None else Path(path).parent)
    listing = Listing(identities=_filled(path, table, "identity"))
    for row, cell in enumerate(_filled(path, table, "image"), 1):
        file, name = home.find(f"{path}: column 'image', row {row}", cell)
        listing.paths.append(file)
        listing.names.append(name)
    listing.parts = [""] * table.height
    if part_column in names:
        listing.parts = [
            read_part(f"{path}: column {part_column!r}, row {row}", cell, SEARCH_PARTS)
            for row, cell in enumerate(_filled(path, table, part_column), 1)
        ]
    listing.cameras = _filled(path, table, "camera") if "camera" in names else None
    listing.distractor = [False] * table.height
    for name in names:
        if name not in ("image", "identity", "camera", part_column):
            listing.attributes[name] = [cell or None for cell in table[name].to_list()]
    return listing


def _filled(path: object, table: pl.DataFrame, name: str) -> list[str]:
    """The cells of a column, none of which may be empty."""
    cells = table[name].to_list()
    for row, cell in enumerate(cells, 1):
        if not cell:
            optional = name in ("camera", "split", "part")
            cure = "fill it, or leave the column out" if optional else "fill it"
            raise fail(path, f"column {name!r}, row {row}: is empty; {cure}")
    return cells
