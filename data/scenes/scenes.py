"""Scenes of colour, depth and a mask of what is salient: public sets, any three folders, and
tables.

`read_rgbd_set` lists them without opening one. A set is rows: row r is the picture images[r] with
depths[r] and masks[r]."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ...base.errors import fail, shown
from ..formats.pictures import (
    PictureFolder,
    as_array,
    decode_picture,
    list_folder,
    list_pictures,
    to_rgb,
    upright,
)
from ..formats.tables import TABLE_SUFFIXES, collect, require_columns, scan_table, suffix_of
from .layouts import DEPTH, IMAGE, MASK, Home, by_stem, find_homes, part_of, role_of, set_of
from .pictures import Near, read_depth, read_mask

PARTS = ("train", "validation", "test", "")
INVERTED = (
    0.5  # share of scenes nearer outside of the mask than in it from which depth counts as inverted
)


@dataclass(frozen=True, eq=False)
class RgbdSet:
    """N scenes; all lists have N entries."""

    where: str  # the folder or table, for messages
    layout: str  # the public set, "folders", "several sets" or "table"
    names: list[str]  # item ids: relative to the folder, with "/"
    images: list[str]
    depths: list[str | None]
    masks: list[str | None]
    sets: list[str]  # the data set that a scene belongs to
    parts: list[str]  # one of PARTS; "" where the data has none
    groups: list[str]  # scenes that show the same things; by default each is its own
    unmatched: dict[str, list[str]]  # what was left out, by reason

    def __len__(self) -> int:
        return len(self.names)

    def rows(self, *parts: str) -> np.ndarray:
        """Rows of these parts in their order, int64 (n,); all rows where none is named."""
        wanted = set(parts or PARTS)
        return np.array([row for row, part in enumerate(self.parts) if part in wanted], np.int64)


def read_rgbd_set(
    path: str | os.PathLike[str],
    *,
    depth: str | os.PathLike[str] | None = None,
    mask: str | os.PathLike[str] | None = None,
    groups: str | os.PathLike[str] | None = None,
    strict: bool = True,
    need_depth: bool = True,
    need_mask: bool = True,
) -> RgbdSet:
    """List the scenes of a data set.

    path        folder of a public set or of several, of any three folders with telling names; a folder of pictures,
                with `depth` and `mask`; or a table (image, depth, mask, and if it likes set, part,
                group)
    depth, mask folders beside `path` where their names do not tell
    groups      table (image, group) of scenes that must not be in two parts; image is a stem or the name of an item
    strict      whether what lacks its partner is an error; else it is left out and listed in `unmatched`

    Raises InputError, one line, for what is missing or does not fit.
    """
    given = Path(path)
    if not given.exists():
        raise fail(path, "there is no such folder or table")
    if not given.is_dir():
        if suffix_of(given) not in TABLE_SUFFIXES:
            raise fail(path, f"is neither a folder nor a table ({', '.join(TABLE_SUFFIXES)})")
        found = _from_table(given, need_depth, need_mask)
    else:
        homes = _homes(given, depth, mask, need_depth, need_mask)
        found = _from_homes(given, homes, need_depth, need_mask)
    if found.unmatched and strict:
        raise fail(
            path,
            describe(found.unmatched) + "; add or remove them, or leave out what does not match",
        )
    if not len(found):
        why = f" ({describe(found.unmatched)})" if found.unmatched else ""
        raise fail(path, f"holds no complete scene{why}")
    return found if groups is None else replace(found, groups=_groups(groups, found))


def describe(unmatched: dict[str, list[str]]) -> str:
    """What does not match, in one line: the number of each kind and the first names."""
    said = [
        f"{len(names)} {reason} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for reason, names in unmatched.items()
    ]
    return "; ".join(said)


def _homes(
    given: Path,
    depth: str | os.PathLike[str] | None,
    mask: str | os.PathLike[str] | None,
    need_depth: bool,
    need_mask: bool,
) -> list[Home]:
    """Where pictures, depth and masks lie."""
    if depth is not None or mask is not None:
        for name, folder in (("depth", depth), ("mask", mask)):
            if folder is not None and not Path(folder).is_dir():
                raise fail(
                    folder, f"is no folder; --{name} names the folder of the {name} pictures"
                )
        image = given if list_folder(given) else None
        if image is None:
            below = [
                name
                for name in sorted(os.listdir(given))
                if (given / name).is_dir() and role_of(name) == IMAGE
            ]
            if len(below) != 1:
                raise fail(
                    given,
                    "holds no pictures; with --depth or --mask give the folder of the pictures itself",
                )
            image = given / below[0]
        beside = {
            role: image.parent / name
            for name in sorted(os.listdir(image.parent))
            if (image.parent / name).is_dir() and (role := role_of(name)) in (DEPTH, MASK)
        }
        depths = Path(depth) if depth is not None else beside.get(DEPTH)
        masks = Path(mask) if mask is not None else beside.get(MASK)
        homes = [Home(image, depths, masks, set_of([given.name], given.name), "")]
    else:
        homes = find_homes(given)
        if not homes:
            what = "pictures, but no" if list_folder(given) else "no"
            raise fail(
                given,
                f"holds {what} folder of pictures (RGB, image, ...) with depth and GT beside it; name "
                "them with --depth and --mask, or give a table",
            )
    for home in homes:
        for needed, folder, role in (
            (need_depth, home.depth, "depth"),
            (need_mask, home.mask, "mask"),
        ):
            if needed and folder is None:
                raise fail(home.image, f"has no folder of {role} beside it; name it with --{role}")
    return homes


def _from_homes(given: Path, homes: list[Home], need_depth: bool, need_mask: bool) -> RgbdSet:
    images, depths, masks, sets, parts, names = [], [], [], [], [], []
    unmatched: dict[str, list[str]] = {}
    for home in homes:
        own = by_stem(home.image)
        depth = by_stem(home.depth) if home.depth is not None else {}
        mask = by_stem(home.mask) if home.mask is not None else {}
        for stem in sorted(own):
            name = os.path.relpath(own[stem], given).replace(os.sep, "/")
            lacks = [
                word
                for word, there, needed in (("depth", depth, need_depth), ("mask", mask, need_mask))
                if needed and stem not in there
            ]
            if lacks:
                unmatched.setdefault(f"without {' and '.join(lacks)}", []).append(name)
                continue
            images.append(own[stem])
            depths.append(depth.get(stem))
            masks.append(mask.get(stem))
            sets.append(home.name)
            parts.append(home.part)
            names.append(name)
        for word, there in (("depth", depth), ("mask", mask)):
            if alone := sorted(set(there) - set(own)):
                unmatched.setdefault(f"{word} without picture", []).extend(alone)
    public = sorted(set(sets))
    layout = "several sets" if len(public) > 1 else public[0] if public else "folders"
    return RgbdSet(
        str(given), layout, names, images, depths, masks, sets, parts, list(names), unmatched
    )


def _from_table(path: Path, need_depth: bool, need_mask: bool) -> RgbdSet:
    """A row a scene. Paths are relative to the table's folder; nothing outside of it is read."""
    frame, columns = scan_table(path)
    needed = ["image", *(["depth"] if need_depth else []), *(["mask"] if need_mask else [])]
    require_columns(path, needed, columns)
    wanted = [
        name for name in ("image", "depth", "mask", "set", "part", "group") if name in columns
    ]
    table = collect(
        path, frame.select(pl.col(name).cast(pl.String).str.strip_chars() for name in wanted)
    )
    if not table.height:
        raise fail(path, "has column names but no rows")
    home = PictureFolder(path.parent)
    cells = {name: table[name].to_list() for name in wanted}
    names, files = [], {name: [] for name in ("image", "depth", "mask")}
    for row in range(table.height):
        for name in files:
            cell = cells[name][row] if name in cells else None
            where = f"{path}: column {name!r}, row {row + 1}"
            if not cell:
                if name in needed:
                    raise fail(where, "is empty; fill it")
                files[name].append(None)
                continue
            file, short = home.find(where, cell)
            files[name].append(file)
            if name == "image":
                names.append(short)
    parts = []
    for row, cell in enumerate(cells.get("part", [""] * table.height), 1):
        found = part_of([cell]) if cell else ""
        if cell and not found:
            raise fail(
                f"{path}: column 'part', row {row}",
                f"{shown(cell)} is none of train, validation, test",
            )
        parts.append(found)
    own_set = path.parent.resolve().name
    return RgbdSet(
        str(path),
        "table",
        names,
        files["image"],
        files["depth"],
        files["mask"],
        [cell or own_set for cell in cells.get("set", [None] * table.height)],
        parts,
        [cell or name for cell, name in zip(cells.get("group", [None] * table.height), names)],
        {},
    )


def _groups(path: str | os.PathLike[str], scenes: RgbdSet) -> list[str]:
    """The group of each scene; one that the table does not name is its own."""
    frame, columns = scan_table(Path(path))
    require_columns(path, ("image", "group"), columns)
    table = collect(path, frame.select(pl.col("image", "group").cast(pl.String).str.strip_chars()))
    known = {name: row for row, name in enumerate(scenes.names)}
    by_name = {Path(name).stem: row for name, row in known.items()}
    groups = list(scenes.names)
    for line, (image, group) in enumerate(table.iter_rows(), 1):
        row = known.get(image or "", by_name.get(Path(image or "").stem))
        if row is None:
            raise fail(f"{path}: row {line}", f"there is no scene {shown(image)} in {scenes.where}")
        if not group:
            raise fail(f"{path}: row {line}", "the group is empty; name it, or leave the row out")
        groups[row] = group
    return groups


def read_scene(
    image: str | os.PathLike[str],
    depth: str | os.PathLike[str] | None,
    size: tuple[int, int],
    near: Near = "bright",
) -> dict[str, Any]:
    """image uint8 (3, *size), depth float32 (1, *size) or None, shape: (height, width) of the
    picture as it is.

    Raises InputError for a file that cannot be read.
    """
    whole = decode_picture(image, lambda opened: upright(to_rgb(image, opened), opened))
    return {
        "image": as_array(whole, size),
        "depth": None if depth is None else read_depth(depth, near, size),
        "shape": (whole.height, whole.width),
    }


def read_sample(
    scenes: RgbdSet, row: int, size: tuple[int, int], near: Near = "bright"
) -> dict[str, Any]:
    """`read_scene` of a row, and mask: bool *size, or None."""
    found = read_scene(scenes.images[row], scenes.depths[row], size, near)
    mask = scenes.masks[row]
    return {**found, "mask": None if mask is None else read_mask(mask, size)}


def depth_polarity(depths: Iterable[np.ndarray], masks: Iterable[np.ndarray]) -> float:
    """Share of scenes whose depth is farther in the mask than out of it; NaN where none has both.

    What is salient is mostly near: a share above `INVERTED` says that `near` is the wrong way
    round."""
    wrong = []
    for depth, mask in zip(depths, masks):
        if mask.any() and not mask.all():
            wrong.append(float(depth[0][mask].mean() < depth[0][~mask].mean()))
    return float(np.mean(wrong)) if wrong else float("nan")


def list_scenes(
    path: str | os.PathLike[str], depth: str | os.PathLike[str] | None = None
) -> list[tuple[str, str, str | None]]:
    """Pictures to predict for, as (file, item id, depth or None), sorted by id; none is opened.

    path: a picture, a quoted pattern, a table with columns image and perhaps depth, or a folder at
    any depth, in which folders of depth maps and masks are left out. depth: the depth map of a
    picture, or the folder in which depth maps lie under the same names; by default that beside the
    folder of pictures.

    Raises InputError where there is nothing, or a depth that was named is not there.
    """
    given = Path(path)
    if depth is not None and not Path(depth).exists():
        raise fail(depth, "there is no such depth map or folder")
    if given.is_file() and suffix_of(given) in TABLE_SUFFIXES:
        found = _from_table(given, False, False)
        return sorted(zip(found.images, found.names, found.depths), key=lambda scene: scene[1])
    pictures = list_pictures(path)
    kept = {name for _, name in pictures if _inner_role(name) not in (DEPTH, MASK)}
    if not kept:
        raise fail(path, "holds depth maps or masks only; give the folder of the pictures")
    if depth is not None and Path(depth).is_file():
        if len(kept) > 1:
            raise fail(depth, f"is one depth map for {len(kept)} pictures; give their folder")
        return [(file, name, str(depth)) for file, name in pictures if name in kept]
    beside: dict[str, dict[str, str]] = {}
    return [
        (file, name, _depth_of(file, name, depth, beside))
        for file, name in pictures
        if name in kept
    ]


def _inner_role(name: str) -> str | None:
    parents = name.split("/")[:-1]
    return role_of(parents[-1]) if parents else None


def _depth_of(
    file: str, name: str, depth: str | os.PathLike[str] | None, known: dict[str, dict[str, str]]
) -> str | None:
    """The depth map of a picture: in the same place below the named folder, else in the folder
    beside its own.
    """
    home = os.path.dirname(file)
    if home not in known:
        places = []
        if depth is not None:
            places = [Path(depth, *name.split("/")[:-1]), Path(depth)]
        elif role_of(os.path.basename(os.path.abspath(home))) == IMAGE:
            above = Path(os.path.abspath(home)).parent
            mine = part_of([os.path.basename(home)])
            places = [
                above / other
                for other in sorted(os.listdir(above))
                if role_of(other) == DEPTH and part_of([other]) == mine and (above / other).is_dir()
            ]
        folder = next((place for place in places if place.is_dir() and list_folder(place)), None)
        own = (
            {path: stem for stem, path in by_stem(Path(home)).items()} if folder is not None else {}
        )
        there = by_stem(folder) if folder is not None else {}
        known[home] = {path: there[stem] for path, stem in own.items() if stem in there}
    return known[home].get(os.path.join(home, os.path.basename(file)))
