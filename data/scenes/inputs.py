"""Pictures to find what is salient in, each with its depth map if there is one; no masks are
needed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ...base.account import note
from ...base.errors import fail
from ..formats.arrays import ARRAY_SUFFIXES
from ..formats.pictures import PICTURE_SUFFIXES, list_pictures
from ..formats.tables import TABLE_SUFFIXES, suffix_of
from ..listed import note_whole_folder
from .depths import DEPTH_SUFFIXES
from .layouts import DEPTH, IMAGE, MASK, by_stem, pair_stems, part_of, role_of
from .scenes import roles_in, scenes_of_table


def list_scenes(
    path: str | os.PathLike[str],
    depth: str | os.PathLike[str] | None = None,
    columns: Sequence[str] = (),
) -> list[tuple[str, str, str | None]]:
    """Pictures to predict for, as (file, item id, depth map or None), sorted by id; none is opened.

    path: a picture, a quoted pattern, a table with the columns image and optionally depth, or a
    folder at any depth, in which folders of depth maps and masks are left out. depth: the depth map
    of a picture, or the folder in which depth maps have the names of the pictures; by default the
    one next to the folder of pictures. columns: of a table, as for `read_rgbd_set`.

    Raises `InputError` where there is nothing, or a depth that was named does not exist.
    """
    scenes = _list(path, depth, columns)
    note("read", "pictures", count=len(scenes))
    if without := [name for _, name, depth_map in scenes if depth_map is None]:
        all_pictures = f"of {len(scenes):,} pictures without a depth map"
        note("items", f"{all_pictures}; they are predicted from colour alone", without)
    return scenes


def _list(
    path: str | os.PathLike[str], depth: str | os.PathLike[str] | None, columns: Sequence[str]
) -> list[tuple[str, str, str | None]]:
    source = Path(path)
    if depth is not None and not Path(depth).exists():
        raise fail(depth, "there is no such depth map or folder")
    table = source.is_file() and suffix_of(source) in TABLE_SUFFIXES
    if columns and not table:
        raise fail(path, "is no table; --columns is read with a table")
    if depth is not None and table:
        raise fail(path, "is a table, which names its own files; leave out --depth")
    if table:
        scenes = scenes_of_table(source, False, False, columns=columns, present=False)
        return sorted(zip(scenes.images, scenes.names, scenes.depths), key=lambda scene: scene[1])
    note_whole_folder(path, "pictures")
    pictures, others, arrays = [], [], []
    for file, name in list_pictures(path, DEPTH_SUFFIXES):
        if "/" in name and role_of(name.split("/")[-2]) in (DEPTH, MASK):
            others.append(name)
        elif name.lower().endswith(ARRAY_SUFFIXES):
            arrays.append(name)
        else:
            pictures.append((file, name))
    if others:
        note("left out", "files in folders of depth maps or masks", count=len(others))
    if arrays:
        note("left out", "arrays, which are no pictures", arrays)
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
    roles = roles_in(image.parent)
    return [
        image.parent / folder
        for folder, role in roles.items()
        if role == DEPTH and part_of([folder]) == part
    ]


def _depth_maps(home: str, folders: list[Path]) -> dict[str, str]:
    """The depth map of each picture in a folder, from the first folder that holds any."""
    for folder in folders:
        if folder.is_dir() and (depths := by_stem(folder, DEPTH_SUFFIXES)):
            # What is no picture here has been noted when the input was listed.
            images = by_stem(Path(home), PICTURE_SUFFIXES, noted=False)
            return {images[stem]: depth for stem, depth in pair_stems(images, depths).items()}
    return {}
