"""Scenes of colour, depth and a mask of what is salient: public sets, any three folders, and
tables.

`read_rgbd_set` lists them without opening any. A set is rows: row r is the picture images[r] with
depths[r] and masks[r].
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import polars as pl

from ...base.account import note
from ...base.errors import fail, shown
from ..columns import find_columns, parse_columns
from ..formats.picture_folder import PictureFolder
from ..formats.pictures import PICTURE_SUFFIXES, list_folder
from ..formats.tables import TABLE_SUFFIXES, collect, endings_of, scan_table, suffix_of
from ..groups import read_groups
from ..item_sets import ItemSet, of_record
from ..items import check_items
from ..listed import fitting_table, note_unlisted
from ..parts import note_other_folders, read_part, text_of, without_other_parts
from .depths import DEPTH_SUFFIXES
from .layouts import (
    DEPTH,
    IMAGE,
    MASK,
    Home,
    by_stem,
    find_homes,
    pair_stems,
    part_of,
    role_of,
    set_of,
)
from .masks import read_mask as read_mask

FIELDS = ("image", "depth", "mask", "set", "part", "group")
"""What a table of scenes may hold."""


@dataclass(frozen=True, eq=False)
class RgbdSet(ItemSet):
    """N scenes; all lists have N entries. The layout is the public set, "folders", "several sets"
    or "table".
    """

    images: list[str] = field(metadata=of_record("image"))
    depths: list[str | None] = field(metadata=of_record("depth"))
    masks: list[str | None] = field(metadata=of_record("mask"))
    sets: list[str] = field(metadata=of_record("home"))  # the data set of each scene
    # Scenes that show the same things; by default each is its own group.
    groups: list[str] = field(metadata=of_record("group"))
    unmatched: dict[str, list[str]] = field(default_factory=dict)  # names left out, by reason


def read_rgbd_set(
    path: str | os.PathLike[str],
    *,
    depth: str | os.PathLike[str] | None = None,
    mask: str | os.PathLike[str] | None = None,
    groups: str | os.PathLike[str] | None = None,
    strict: bool = True,
    need_depth: bool = True,
    need_mask: bool = True,
    columns: Sequence[str] = (),
) -> RgbdSet:
    """List the scenes of a data set.

    path        folder of a public set or of several, or of any three folders with telling names; a
                folder of pictures, with `depth` and `mask`; or a table (image, depth, mask, and
                optionally set, part, group), or the folder that holds it as labels.csv
    depth, mask folders of depth and masks, where their names do not tell
    groups      table (image, group) of scenes that must not be in two parts; image is a stem or the
                name of an item
    strict      whether a file without its partner is an error; else it is left out and listed in
                `unmatched`
    columns     columns of the table by field, "depth=kinect", where `columns.SYNONYMS` has not
                their names

    Raises `InputError`, one line, for what is missing or does not fit.
    """
    source = Path(path)
    if not source.exists():
        raise fail(path, "there is no such folder or table")
    if source.is_dir() and depth is None and mask is None:
        source = table_in(source, need_depth, need_mask, columns) or source
    if source.is_dir():
        if columns:
            raise fail(path, "is a folder; --columns is read with a table")
        named = depth is not None or mask is not None
        homes = _named_homes(source, depth, mask) if named else find_homes(source)
        if not homes:
            content = "pictures, but no" if list_folder(source) else "no"
            partners = "folder of pictures (RGB, image, ...) with depth and GT next to it"
            cure = "name them with --depth and --masks, or give a table"
            raise fail(source, f"holds {content} {partners}; {cure}")
        _require_folders(homes, need_depth, need_mask)
        scenes = _from_homes(source, homes, need_depth, need_mask)
    elif suffix_of(source) in TABLE_SUFFIXES:
        for option, folder in (("depth", depth), ("masks", mask)):
            if folder is not None:
                raise fail(path, f"is a table, which names its own files; leave out --{option}")
        scenes = scenes_of_table(source, need_depth, need_mask, columns=columns)
        listed = [*scenes.images, *filter(None, (*scenes.depths, *scenes.masks))]
        note_unlisted(source, listed, PICTURE_SUFFIXES, "pictures")
    else:
        raise fail(path, f"is neither a folder nor a table ({endings_of(TABLE_SUFFIXES)})")
    if scenes.unmatched and strict:
        cure = "add or remove them, or leave out what does not match"
        raise fail(path, f"{describe(scenes.unmatched)}; {cure}")
    if not len(scenes):
        why = f" ({describe(scenes.unmatched)})" if scenes.unmatched else ""
        raise fail(path, f"holds no complete scene{why}")
    for why, names in scenes.unmatched.items():
        note("left out", why, names)
    note("read", "scenes", count=len(scenes))
    if groups is not None:
        scenes = replace(scenes, groups=_groups(groups, scenes))
    _note_groups(scenes)
    return scenes


def table_in(
    folder: Path, need_depth: bool, need_mask: bool, columns: Sequence[str]
) -> Path | None:
    """The table of scenes in a folder; None for none with the columns that are needed."""
    return fitting_table(folder, _required(need_depth, need_mask), parse_columns(columns, FIELDS))


def _required(need_depth: bool, need_mask: bool) -> list[str]:
    return ["image", *(["depth"] if need_depth else []), *(["mask"] if need_mask else [])]


def _note_groups(scenes: RgbdSet) -> None:
    count = len(set(scenes.groups))
    if count == len(scenes):
        note("groups", "no groups are named: each scene counts as its own group")
    else:
        note("groups", f"{len(scenes):,} scenes of {count:,} groups")


def describe(unmatched: Mapping[str, list[str]]) -> str:
    """What does not match, in one line: the number of each kind and the first names."""
    kinds = [
        f"{len(names)} {why} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for why, names in unmatched.items()
    ]
    return "; ".join(kinds)


def _named_homes(
    folder: Path, depth: str | os.PathLike[str] | None, mask: str | os.PathLike[str] | None
) -> list[Home]:
    """The pictures of a folder with the depth and masks that options name; what they do not name is
    looked for next to the pictures.
    """
    for name, partner in (("depth", depth), ("mask", mask)):
        if partner is not None and not Path(partner).is_dir():
            raise fail(partner, f"is no folder; --{name} names the folder of the {name} pictures")
    image = folder
    if not list_folder(folder):
        below = [name for name, role in roles_in(folder).items() if role == IMAGE]
        if len(below) != 1:
            cure = "with --depth or --masks give the folder of the pictures itself"
            raise fail(folder, f"holds no pictures; {cure}")
        image = folder / below[0]
    partners = {role: image.parent / name for name, role in roles_in(image.parent).items()}
    depths = Path(depth) if depth is not None else partners.get(DEPTH)
    masks = Path(mask) if mask is not None else partners.get(MASK)
    return [Home(image, depths, masks, set_of([folder.name], folder.name), "")]


def roles_in(folder: Path) -> dict[str, str]:
    """The role of each folder in a folder whose name tells it, sorted by name."""
    names = (name for name in sorted(os.listdir(folder)) if (folder / name).is_dir())
    return {name: role for name in names if (role := role_of(name))}


def _require_folders(homes: list[Home], need_depth: bool, need_mask: bool) -> None:
    for home in homes:
        needed = (("depth", need_depth, home.depth), ("masks", need_mask, home.mask))
        for role, is_needed, folder in needed:
            if is_needed and folder is None:
                raise fail(home.image, f"has no folder of {role} next to it; name it with --{role}")


class _Scene(NamedTuple):
    name: str
    image: str
    depth: str | None
    mask: str | None
    home: str
    part: str
    group: str


def _from_homes(folder: Path, homes: list[Home], need_depth: bool, need_mask: bool) -> RgbdSet:
    scenes: list[_Scene] = []
    unmatched: dict[str, list[str]] = {}
    for home in homes:
        images = by_stem(home.image)
        depth_files = by_stem(home.depth, DEPTH_SUFFIXES) if home.depth is not None else {}
        mask_files = by_stem(home.mask) if home.mask is not None else {}
        depths, masks = pair_stems(images, depth_files), pair_stems(images, mask_files)
        partners = (("depth", depths, need_depth), ("mask", masks, need_mask))
        for stem, image in sorted(images.items()):
            name = os.path.relpath(image, folder).replace(os.sep, "/")
            if lacks := [w for w, files, needed in partners if needed and stem not in files]:
                unmatched.setdefault(f"without {' and '.join(lacks)}", []).append(name)
                continue
            depth, mask = depths.get(stem), masks.get(stem)
            scenes.append(_Scene(name, image, depth, mask, home.name, home.part, name))
        for role, files, used in (("depth", depth_files, depths), ("mask", mask_files, masks)):
            if alone := sorted(set(files.values()) - set(used.values())):
                stems = [Path(file).stem for file in alone]
                unmatched.setdefault(f"{role} without picture", []).extend(stems)
    note_other_folders([scene.name for scene in scenes], [scene.part for scene in scenes])
    public = sorted({scene.home for scene in scenes})
    layout = "several sets" if len(public) > 1 else public[0] if public else "folders"
    return RgbdSet.of_records(folder, layout, scenes, unmatched=unmatched)


def scenes_of_table(
    path: Path,
    need_depth: bool,
    need_mask: bool,
    *,
    columns: Sequence[str] = (),
    present: bool = True,
) -> RgbdSet:
    """One row per scene. Paths are relative to the folder of the table; nothing outside of it is
    read. present: whether all files must be there; else those that are missing fail when read.
    """
    table, fields = _read_cells(path, need_depth, need_mask, columns)
    needed = _required(need_depth, need_mask)
    home, set_name = PictureFolder(path.parent), path.parent.resolve().name
    scenes: list[_Scene] = []
    groups = read_groups("group", table["group"].to_list()) if "group" in table.columns else []
    for row, cells in enumerate(table.iter_rows(named=True), 1):
        files: dict[str, tuple[str, str]] = {}
        for role in ("image", "depth", "mask"):
            where = f"{path}: column {fields.get(role, role)!r}, row {row}"
            if cells.get(role):
                files[role] = home.find(where, cells[role], needed=present)
            elif role in needed:
                raise fail(where, "is empty; fill it")
        image, name = files["image"]
        depth, mask = (files[role][0] if role in files else None for role in ("depth", "mask"))
        part = _part(f"{path}: column {fields.get('part')!r}, row {row}", cells.get("part"))
        group = (groups[row - 1] if groups else "") or name
        scenes.append(_Scene(name, image, depth, mask, cells.get("set") or set_name, part, group))
    names, parts = [scene.name for scene in scenes], [scene.part for scene in scenes]
    rows = check_items(path, "picture", names, [scene.mask or "" for scene in scenes], parts)
    return RgbdSet.of_records(path, "table", [scenes[row] for row in rows])


def _read_cells(
    path: Path, need_depth: bool, need_mask: bool, columns: Sequence[str]
) -> tuple[pl.DataFrame, dict[str, str]]:
    """The cells of a table as text, under the names of the fields, and the column of each field."""
    frame, names = scan_table(path)
    kinds = frame.collect_schema()
    plain = [n for n in names if not (kinds[n].is_nested() or kinds[n] in (pl.Binary, pl.Object))]
    cells = frame.select(pl.col(name).cast(pl.String).str.strip_chars() for name in plain)
    table = collect(path, cells)
    chosen = parse_columns(columns, FIELDS)
    usable = without_other_parts(plain, text_of(table), fields=FIELDS, chosen=chosen.values())
    fields = find_columns(
        path, usable, FIELDS, required=_required(need_depth, need_mask), chosen=chosen
    )
    if not table.height:
        raise fail(path, "has column names but no rows")
    return table.select(pl.col(column).alias(field) for field, column in fields.items()), fields


def _part(where: str, cell: str | None) -> str:
    return (part_of([cell]) or read_part(where, cell)) if cell else ""


def _groups(path: str | os.PathLike[str], scenes: RgbdSet) -> list[str]:
    """The group of each scene; a scene that the table does not name is its own group."""
    frame, names = scan_table(Path(path))
    fields = find_columns(path, names, ("image", "group"), required=("image", "group"))
    chosen = (pl.col(fields[field]).alias(field) for field in ("image", "group"))
    table = collect(path, frame.select(cell.cast(pl.String).str.strip_chars() for cell in chosen))
    row_of_name = {name: row for row, name in enumerate(scenes.names)}
    row_of_stem = {Path(name).stem: row for name, row in row_of_name.items()}
    groups = list(scenes.names)
    spelt = read_groups("group", table["group"].to_list())
    for line, (image, group) in enumerate(table.iter_rows(), 1):
        row = row_of_name.get(image or "", row_of_stem.get(Path(image or "").stem))
        if row is None:
            raise fail(f"{path}: row {line}", f"there is no scene {shown(image)} in {scenes.where}")
        if not group:
            raise fail(f"{path}: row {line}", "the group is empty; name it, or leave the row out")
        groups[row] = spelt[line - 1] or groups[row]
    return groups
