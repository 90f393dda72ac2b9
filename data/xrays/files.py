"""Finding X-rays: all those of a folder or a CD, and those that a list names.

Pictures are recognised by their endings, DICOM files by their contents: those of a CD or of an
archive are named IM0001 or 1.2.840.113619….
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from ...base.account import note
from ...base.errors import InputError, fail, shown
from ...base.files import walk_folder
from ..formats.dicom import DICOM_SUFFIXES, is_dicom
from ..formats.picture_folder import PictureFolder
from ..formats.pictures import PICTURE_SUFFIXES, list_pictures

SUFFIXES = (*PICTURE_SUFFIXES, *DICOM_SUFFIXES)
MASKS = ("lungs", "masks", "lung_masks", "lung masks", "mask")  # folders that hold no X-rays
_DIRECTORY = "dicomdir"  # the table of contents of a CD, itself a DICOM file


def list_xrays(path: str | os.PathLike[str]) -> list[tuple[str, str]]:
    """Pictures and DICOM files as (file, id), sorted by id; see `list_pictures`.

    DICOM files are recognised by their contents. In the folder of a CD (with a file DICOMDIR) only
    they count, since its pictures belong to the viewer on it; the DICOMDIR itself may be named,
    too. What is left out goes into the account. Raises InputError where there is nothing.
    """
    source = Path(path)
    if source.name.lower() == _DIRECTORY and source.is_file():
        source = source.parent
    if source.is_file():
        by_content = source.suffix.lower() not in PICTURE_SUFFIXES and is_dicom(source)
        suffixes = (source.suffix.lower(),) if by_content else SUFFIXES
        return list_pictures(source, suffixes)
    try:
        listed = list_pictures(source if source.is_dir() else path, ("",))
    except InputError:
        if source.is_dir() and not walk_folder(source, ("",), noted=False):
            raise fail(path, _nothing()) from None
        raise
    directories = [name for _, name in listed if _is_directory(name)]
    xrays, pictures, others = [], [], []
    for file, name in listed:
        if _is_directory(name):
            continue
        if not name.lower().endswith(PICTURE_SUFFIXES):
            (xrays if is_dicom(file) else others).append((file, name))
        else:
            pictures.append((file, name))
    if directories and xrays:
        note("left out", "tables of contents of a CD (DICOMDIR)", directories)
        if pictures:
            what = "pictures that are no DICOM, next to a DICOMDIR"
            note("left out", what, [name for _, name in pictures])
    else:
        xrays += pictures
    if others:
        note("left out", "files of other kinds", [name for _, name in others])
    if not xrays:
        raise fail(path, _nothing())
    return sorted(xrays, key=lambda pair: pair[1])


def _nothing() -> str:
    return f"there is no picture here ({', '.join(PICTURE_SUFFIXES)}) and no DICOM file"


def _is_directory(name: str) -> bool:
    return PurePosixPath(name).name.lower() == _DIRECTORY


def is_mask(name: str) -> bool:
    """Whether a picture lies in a folder of masks, as far as the names of folders tell."""
    return any(part.lower() in MASKS for part in name.split("/")[:-1])


def without_masks(where: object, listed: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those of the listed files, as (file, id), that lie in no folder of masks. The others go into
    the account. Raises InputError where there are only those.
    """
    masks = [name for _, name in listed if is_mask(name)]
    if masks:
        note("left out", "pictures in folders of masks", masks)
    if len(masks) == len(listed):
        raise fail(where, "holds masks only; give the folder of the pictures")
    return [(file, name) for file, name in listed if not is_mask(name)]


class MissingPicture(InputError):
    """A list names a picture that is not there."""


class XrayFolder:
    """The folders in which the pictures of a list must lie, searched in their order.

    A picture is where its path says; else it is the only file of its name at any depth, where the
    list names no folder, or one whose ending the list leaves out; else its path begins with folders
    above the searched one. Paths with ".." and links that lead out are refused.
    """

    def __init__(self, homes: Sequence[str | os.PathLike[str]]) -> None:
        self.homes = [str(home) for home in dict.fromkeys(map(str, homes))]
        self._folders = [PictureFolder(home) for home in self.homes]
        self._by_name: list[dict[str, list[str]] | None] = [None] * len(self.homes)

    def find(self, where: object, path: str) -> tuple[str, str]:
        """(file, name relative to its folder, with "/") of one listed picture.

        where: the list and line, for the message. Raises MissingPicture where there is none, and
        InputError where several files could be it and where its path leads out of the folder.
        """
        if not path or "\0" in path:
            raise fail(where, f"{shown(path)} is no name of a picture")
        if os.path.isabs(path):
            return self._find_absolute(where, path)
        for spelling in dict.fromkeys((path, path.replace("\\", "/"))):
            for folder in self._folders:
                exists = os.path.lexists(os.path.join(folder.home, spelling))
                if exists or ".." in PurePosixPath(spelling).parts:
                    return folder.find(where, spelling)
        parts = PurePosixPath(path.replace("\\", "/")).parts
        for place, folder in enumerate(self._folders):
            name = self._search(where, place, parts)
            if name is not None:
                return folder.find(where, name)
        for folder in self._folders:
            if (spelled := folder.spelled(path)) is not None:
                return folder.find(where, spelled)
        homes = " or ".join(self.homes)
        problem = f"there is no picture {shown(path)} in {homes}; --images says where they lie"
        raise MissingPicture(str(fail(where, problem)))

    def _find_absolute(self, where: object, path: str) -> tuple[str, str]:
        """In the first folder that the picture lies in."""
        if not os.path.lexists(path):
            raise MissingPicture(str(fail(where, f"there is no picture {shown(path)}")))
        for folder in self._folders[:-1]:
            with contextlib.suppress(InputError):
                return folder.find(where, path)
        try:
            return self._folders[-1].find(where, path)
        except InputError as error:
            raise InputError(f"{error} with --images") from None

    def _search(self, where: object, place: int, parts: tuple[str, ...]) -> str | None:
        home = self.homes[place]
        # A path that begins above the folder, as in CheXpert's lists. At least one folder of it
        # must be there: a file name alone could be another picture.
        for start in range(1, len(parts) - 1):
            if os.path.lexists(os.path.join(home, *parts[start:])):
                return "/".join(parts[start:])
        by_name = self._by_name[place]
        if by_name is None:
            by_name = self._by_name[place] = _names_below(home)
        fitting = [name for name in by_name.get(parts[-1], []) if _agree(name.split("/"), parts)]
        if len(fitting) > 1:
            both = " or ".join(map(shown, fitting[:2]))
            raise fail(where, f"{shown('/'.join(parts))} could be {both}; write the folder, too")
        return fitting[0] if fitting else None


def _agree(name: Sequence[str], path: Sequence[str]) -> bool:
    """Whether a path ends with the folders that a list names."""
    folders = path[:-1]
    return list(name[len(name) - len(path) : -1]) == list(folders) if folders else True


def _names_below(home: str) -> dict[str, list[str]]:
    """Paths of all pictures below a folder by their names with and without ending; masks and hidden
    files do not count.
    """
    by_name: dict[str, list[str]] = {}
    if not os.path.isdir(home):
        return by_name
    for name in walk_folder(home, ("",), noted=False):
        if is_mask(name):
            continue
        file = PurePosixPath(name)
        for key in {file.name, PurePosixPath(without_ending(name)).name}:
            by_name.setdefault(key, []).append(name)
    return by_name


def without_ending(name: str) -> str:
    """A name up to the ending of a picture or DICOM file; other dots belong to the name."""
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in SUFFIXES else name


def by_place_or_stem(names: Iterable[str]) -> dict[str, str]:
    """Names by their path without ending and, where that is unique, by the last part of it alone.

    For files that belong to each other by their names: masks to pictures, boxes to pictures.
    """
    places: dict[str, str] = {}
    stems: dict[str, list[str]] = {}
    for name in names:
        place = without_ending(name)
        places[place] = name
        stems.setdefault(PurePosixPath(place).name, []).append(name)
    unique = {stem: listed[0] for stem, listed in stems.items() if len(listed) == 1}
    return {**unique, **places}
