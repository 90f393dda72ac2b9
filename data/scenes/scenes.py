"""Scenes of colour, depth and a mask of what is salient: public sets, any three folders, and
tables.

`read_rgbd_set` lists them without opening any. A set is rows: row r is the picture images[r] with
depths[r] and masks[r].
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypedDict

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
from ..parts import read_part, rows_in
from .layouts import DEPTH, IMAGE, MASK, Home, by_stem, find_homes, part_of, role_of, set_of
from .pictures import Near, read_depth, read_mask

INVERTED = 0.5  # share of scenes that are farther in the mask from which depth counts as inverted


@dataclass(frozen=True, eq=False)
class RgbdSet:
    """N scenes; all lists have N entries."""

    where: str  # the folder or table, for messages
    layout: str  # the public set, "folders", "several sets" or "table"
    names: list[str]  # item ids: relative to the folder, with "/"
    images: list[str]
    depths: list[str | None]
    masks: list[str | None]
    sets: list[str]  # the data set of each scene
    parts: list[str]  # train, validation, test; "" where the data has none
    groups: list[str]  # scenes that show the same things; by default each is its own group
    unmatched: dict[str, list[str]]  # names that were left out, by reason

    def __len__(self) -> int:
        return len(self.names)

    def rows(self, *parts: str) -> np.ndarray:
        """Rows of these parts in their order, int64 (n,); all rows where none is named."""
        return rows_in(self.parts, parts)


class SceneArrays(TypedDict):
    """A scene in memory, resized to (height, width) = *size."""

    image: np.ndarray  # uint8 (3, *size)
    depth: np.ndarray | None  # float32 (1, *size)
    shape: tuple[int, int]  # (height, width) of the file, pixels


class Sample(SceneArrays):
    """A scene with its mask."""

    mask: np.ndarray | None  # bool (*size)


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

    path        folder of a public set or of several, or of any three folders with telling names; a
                folder of pictures, with `depth` and `mask`; or a table (image, depth, mask, and
                optionally set, part, group)
    depth, mask folders of depth and masks, where their names do not tell
    groups      table (image, group) of scenes that must not be in two parts; image is a stem or the
                name of an item
    strict      whether a file without its partner is an error; else it is left out and listed in
                `unmatched`

    Raises `InputError`, one line, for what is missing or does not fit.
    """
    source = Path(path)
    if not source.exists():
        raise fail(path, "there is no such folder or table")
    if source.is_dir():
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
        scenes = _from_table(source, need_depth, need_mask)
    else:
        raise fail(path, f"is neither a folder nor a table ({', '.join(TABLE_SUFFIXES)})")
    if scenes.unmatched and strict:
        cure = "add or remove them, or leave out what does not match"
        raise fail(path, f"{describe(scenes.unmatched)}; {cure}")
    if not len(scenes):
        why = f" ({describe(scenes.unmatched)})" if scenes.unmatched else ""
        raise fail(path, f"holds no complete scene{why}")
    return scenes if groups is None else replace(scenes, groups=_groups(groups, scenes))


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
        below = [name for name, role in _roles_in(folder).items() if role == IMAGE]
        if len(below) != 1:
            cure = "with --depth or --masks give the folder of the pictures itself"
            raise fail(folder, f"holds no pictures; {cure}")
        image = folder / below[0]
    partners = {role: image.parent / name for name, role in _roles_in(image.parent).items()}
    depths = Path(depth) if depth is not None else partners.get(DEPTH)
    masks = Path(mask) if mask is not None else partners.get(MASK)
    return [Home(image, depths, masks, set_of([folder.name], folder.name), "")]


def _roles_in(folder: Path) -> dict[str, str]:
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


def _rgbd_set(
    where: Path, layout: str, scenes: list[_Scene], unmatched: dict[str, list[str]]
) -> RgbdSet:
    return RgbdSet(
        str(where),
        layout,
        [scene.name for scene in scenes],
        [scene.image for scene in scenes],
        [scene.depth for scene in scenes],
        [scene.mask for scene in scenes],
        [scene.home for scene in scenes],
        [scene.part for scene in scenes],
        [scene.group for scene in scenes],
        unmatched,
    )


def _from_homes(folder: Path, homes: list[Home], need_depth: bool, need_mask: bool) -> RgbdSet:
    scenes: list[_Scene] = []
    unmatched: dict[str, list[str]] = {}
    for home in homes:
        images = by_stem(home.image)
        depths = by_stem(home.depth) if home.depth is not None else {}
        masks = by_stem(home.mask) if home.mask is not None else {}
        partners = (("depth", depths, need_depth), ("mask", masks, need_mask))
        for stem, image in sorted(images.items()):
            name = os.path.relpath(image, folder).replace(os.sep, "/")
            if lacks := [w for w, files, needed in partners if needed and stem not in files]:
                unmatched.setdefault(f"without {' and '.join(lacks)}", []).append(name)
                continue
            depth, mask = depths.get(stem), masks.get(stem)
            scenes.append(_Scene(name, image, depth, mask, home.name, home.part, name))
        for role, files, _ in partners:
            if alone := sorted(set(files) - set(images)):
                unmatched.setdefault(f"{role} without picture", []).extend(alone)
    public = sorted({scene.home for scene in scenes})
    layout = "several sets" if len(public) > 1 else public[0] if public else "folders"
    return _rgbd_set(folder, layout, scenes, unmatched)


def _from_table(path: Path, need_depth: bool, need_mask: bool) -> RgbdSet:
    """One row per scene. Paths are relative to the folder of the table; nothing outside of it is
    read.
    """
    frame, names = scan_table(path)
    needed = ["image", *(["depth"] if need_depth else []), *(["mask"] if need_mask else [])]
    require_columns(path, needed, names)
    columns = [n for n in ("image", "depth", "mask", "set", "part", "group") if n in names]
    table = collect(
        path, frame.select(pl.col(name).cast(pl.String).str.strip_chars() for name in columns)
    )
    if not table.height:
        raise fail(path, "has column names but no rows")
    home, set_name = PictureFolder(path.parent), path.parent.resolve().name
    scenes: list[_Scene] = []
    for row, cells in enumerate(table.iter_rows(named=True), 1):
        files: dict[str, tuple[str, str]] = {}
        for column in ("image", "depth", "mask"):
            where = f"{path}: column {column!r}, row {row}"
            if cells.get(column):
                files[column] = home.find(where, cells[column])
            elif column in needed:
                raise fail(where, "is empty; fill it")
        image, name = files["image"]
        depth, mask = (files[role][0] if role in files else None for role in ("depth", "mask"))
        group = cells.get("group") or name
        scenes.append(_Scene(name, image, depth, mask, cells.get("set") or set_name, "", group))
    parts = [
        (part_of([cell]) or read_part(f"{path}: column 'part', row {row}", cell)) if cell else ""
        for row, cell in enumerate(table["part"] if "part" in columns else [""] * table.height, 1)
    ]
    return replace(_rgbd_set(path, "table", scenes, {}), parts=parts)


def _groups(path: str | os.PathLike[str], scenes: RgbdSet) -> list[str]:
    """The group of each scene; a scene that the table does not name is its own group."""
    frame, columns = scan_table(Path(path))
    require_columns(path, ("image", "group"), columns)
    table = collect(path, frame.select(pl.col("image", "group").cast(pl.String).str.strip_chars()))
    row_of_name = {name: row for row, name in enumerate(scenes.names)}
    row_of_stem = {Path(name).stem: row for name, row in row_of_name.items()}
    groups = list(scenes.names)
    for line, (image, group) in enumerate(table.iter_rows(), 1):
        row = row_of_name.get(image or "", row_of_stem.get(Path(image or "").stem))
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
) -> SceneArrays:
    """Read a picture and its depth map, resized to `size` (height, width) in pixels.

    Raises `InputError` for a file that cannot be read.
    """
    picture = decode_picture(image, lambda opened: upright(to_rgb(image, opened), opened))
    return {
        "image": as_array(picture, size),
        "depth": None if depth is None else read_depth(depth, near, size),
        "shape": (picture.height, picture.width),
    }


def read_sample(scenes: RgbdSet, row: int, size: tuple[int, int], near: Near = "bright") -> Sample:
    """`read_scene` of a row, with its mask."""
    mask = scenes.masks[row]
    return {
        **read_scene(scenes.images[row], scenes.depths[row], size, near),
        "mask": None if mask is None else read_mask(mask, size),
    }


def depth_polarity(depths: Iterable[np.ndarray], masks: Iterable[np.ndarray]) -> float:
    """Share of scenes whose depth is farther in the mask than outside; NaN where no scene has both.

    Salient things are mostly near: a share above `INVERTED` means that `near` is the wrong way
    round.
    """
    wrong = []
    for depth, mask in zip(depths, masks):
        if mask.any() and not mask.all():
            wrong.append(float(depth[0][mask].mean() < depth[0][~mask].mean()))
    return float(np.mean(wrong)) if wrong else float("nan")


def list_scenes(
    path: str | os.PathLike[str], depth: str | os.PathLike[str] | None = None
) -> list[tuple[str, str, str | None]]:
    """Pictures to predict for, as (file, item id, depth map or None), sorted by id; none is opened.

    path: a picture, a quoted pattern, a table with the columns image and optionally depth, or a
    folder at any depth, in which folders of depth maps and masks are left out. depth: the depth map
    of a picture, or the folder in which depth maps have the names of the pictures; by default the
    one next to the folder of pictures.

    Raises `InputError` where there is nothing, or a depth that was named does not exist.
    """
    source = Path(path)
    if depth is not None and not Path(depth).exists():
        raise fail(depth, "there is no such depth map or folder")
    if source.is_file() and suffix_of(source) in TABLE_SUFFIXES:
        scenes = _from_table(source, False, False)
        return sorted(zip(scenes.images, scenes.names, scenes.depths), key=lambda scene: scene[1])
    pictures = [
        (file, name)
        for file, name in list_pictures(path)
        if "/" not in name or role_of(name.split("/")[-2]) not in (DEPTH, MASK)
    ]
    if not pictures:
        raise fail(path, "holds depth maps or masks only; give the folder of the pictures")
    if depth is not None and Path(depth).is_file():
        if len(pictures) > 1:
            raise fail(depth, f"is one depth map for {len(pictures)} pictures; give their folder")
        return [(file, name, str(depth)) for file, name in pictures]
    known: dict[str, dict[str, str]] = {}  # depth maps by picture, of each folder
    inputs: list[tuple[str, str, str | None]] = []
    for file, name in pictures:
        home = os.path.dirname(file)
        if home not in known:
            known[home] = _depth_maps(home, _depth_folders(home, name, depth))
        inputs.append((file, name, known[home].get(os.path.join(home, os.path.basename(file)))))
    return inputs


def _depth_folders(home: str, name: str, depth: str | os.PathLike[str] | None) -> list[Path]:
    """Where the depth maps of a folder of pictures may lie: in the same place below the named
    folder, else in the folder of depth next to it.
    """
    if depth is not None:
        return [Path(depth, *name.split("/")[:-1]), Path(depth)]
    image = Path(os.path.abspath(home))
    if role_of(image.name) != IMAGE:
        return []
    part = part_of([image.name])
    roles = _roles_in(image.parent)
    return [
        image.parent / folder
        for folder, role in roles.items()
        if role == DEPTH and part_of([folder]) == part
    ]


def _depth_maps(home: str, folders: list[Path]) -> dict[str, str]:
    """The depth map of each picture in a folder, from the first folder that holds any."""
    folder = next((place for place in folders if place.is_dir() and list_folder(place)), None)
    if folder is None:
        return {}
    depths = by_stem(folder)
    images = by_stem(Path(home))
    return {image: depths[stem] for stem, image in images.items() if stem in depths}
