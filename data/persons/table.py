"""A table of pictures: one row per picture, with image and identity, and optionally camera, split
and any attributes.

Paths are relative to the folder of the pictures (`images`, or the folder of the table), or absolute
and in it; nothing outside of that folder is read, whatever the table says.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from ...base.account import note
from ...base.errors import fail
from ..columns import find_columns, parse_columns
from ..formats.picture_folder import PictureFolder
from ..formats.tables import collect, scan_table
from ..groups import one_spelling
from ..items import is_missing, read_labels
from ..parts import SEARCH_PARTS, read_part, text_of, without_other_parts
from .listing import JUNK, Listing

FIELDS = ("image", "identity", "camera", "part")
"""What a table of pictures may hold, besides attributes."""


def read_cells(path: str | os.PathLike[str]) -> tuple[pl.DataFrame, list[str]]:
    """All cells of a table as text without spaces around it, and the names of its columns.

    Raises `InputError` for a column of anything but text and numbers.
    """
    frame, names = scan_table(str(path))
    for name, kind in frame.collect_schema().items():
        if kind.is_nested() or kind in (pl.Binary, pl.Object):
            cure = "leave it out, or give paths"
            raise fail(path, f"column {name!r} holds {kind}, not text or numbers; {cure}")
    table = collect(path, frame.select(pl.all().cast(pl.String).str.strip_chars()))
    if not table.height:
        raise fail(path, "has column names but no rows")
    return table, names


def read_table(
    path: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    columns: Sequence[str] = (),
) -> Listing:
    """Read a table of pictures.

    path    columns `image` and `identity`; `camera`; `part` or `split` (train, validation, test,
            query, gallery), also under other usual names (`columns.SYNONYMS`); every other column
            is an attribute (empty cells are None). Identity -1 is junk
    images  folder of the pictures; None: the folder of the table
    columns names of columns by field, "identity=who"

    Raises `InputError` for a table without those columns or without rows, an empty cell in them, an
    unknown part, and a picture that is missing or lies outside of the folder.
    """
    table, names = read_cells(path)
    if "split" in names and "part" in names:
        raise fail(path, "has both columns 'split' and 'part'; keep one")
    chosen = parse_columns(columns, FIELDS)
    candidates = without_other_parts(
        names, text_of(table), SEARCH_PARTS, fields=FIELDS, chosen=chosen.values()
    )
    column = find_columns(
        path, candidates, FIELDS, required=("image", "identity"), chosen=chosen, unused_noted=False
    )
    if images is not None and not Path(images).is_dir():
        raise fail(images, "is no folder; give the folder in which the pictures of the table lie")
    cells = table[column["identity"]].to_list()
    labels = read_labels(f"{path}: column {column['identity']!r}", cells)
    one_spelling("identities", labels)  # names those that look alike
    rows = [row for row, label in enumerate(labels) if label]
    identities = [JUNK if labels[row] == f"{JUNK}.0" else labels[row] for row in rows]
    home = PictureFolder(images if images is not None else Path(path).parent)
    listing = Listing(identities=identities, distractor=[False] * len(rows))
    pictures = _filled(path, table, column["image"], rows)
    for row, cell in zip(rows, pictures):
        file, name = home.find(f"{path}: column {column['image']!r}, row {row + 1}", cell)
        listing.paths.append(file)
        listing.names.append(name)
    listing.parts = [""] * len(rows)
    if "part" in column:
        name, cells = column["part"], _filled(path, table, column["part"], rows, optional=True)
        listing.parts = [
            read_part(f"{path}: column {name!r}, row {row + 1}", cell, SEARCH_PARTS)
            for row, cell in zip(rows, cells)
        ]
    if "camera" in column:
        listing.cameras = _filled(path, table, column["camera"], rows, optional=True)
    for name in names:
        if name not in column.values():
            listing.attributes[name] = _attribute(table[name].to_list(), rows, name)
    return listing


def _attribute(cells: Sequence[str | None], rows: Sequence[int], name: str) -> list[str | None]:
    """The values of an attribute. "none" is one of them: a hat, a beard may be none."""
    chosen = [cells[row] for row in rows]
    empty = [is_missing(cell) and (cell or "").lower() != "none" for cell in chosen]
    if words := {cell for cell, lacks in zip(chosen, empty) if lacks and cell}:
        note("values", f"attribute {name!r}: no value is what {', '.join(sorted(words))} says")
    return [None if lacks else cell for cell, lacks in zip(chosen, empty)]


def _filled(
    path: object, table: pl.DataFrame, name: str, rows: Sequence[int], *, optional: bool = False
) -> list[str]:
    """The cells of a column in these rows, none of which may be empty.

    optional: whether the table may do without the column.
    """
    cells = table[name].to_list()
    for row in rows:
        if is_missing(cells[row]):
            cure = "fill it, or leave the column out" if optional else "fill it"
            raise fail(path, f"column {name!r}, row {row + 1}: is empty; {cure}")
    return [cells[row] for row in rows]
