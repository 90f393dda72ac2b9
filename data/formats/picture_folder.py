"""The folder in which the pictures of a list lie."""

from __future__ import annotations

import os
import stat
from pathlib import PurePosixPath

from ...base.account import doubt, note
from ...base.errors import fail, shown
from ...base.files import lies_in, refuse_link_out
from ...base.spellings import SPELT_OTHERWISE, Spellings
from .arrays import ARRAY_SUFFIXES
from .pictures import PICTURE_SUFFIXES


class PictureFolder:
    """The folder in which the pictures of a list must lie; the list itself is not trusted.

    A path is relative to the folder, or absolute and in it. Paths with ".." are refused, and so are
    links that lead out of the folder, unless the doubt "links" is accepted.
    """

    def __init__(self, home: str | os.PathLike[str]) -> None:
        self.home = str(home)
        self._real = os.path.realpath(home)
        self._checked: dict[str, bool] = {}  # one look per folder, not one per picture
        self._spellings = Spellings(self.home, (*PICTURE_SUFFIXES, *ARRAY_SUFFIXES))

    def find(self, where: object, path: str, *, needed: bool = True) -> tuple[str, str]:
        """(file, name relative to the folder, with "/") of one listed picture.

        where: the list and line, for the message. needed: whether the picture must be there; else
        one that is missing fails when it is read. Raises InputError where a needed picture is
        missing or its path leads out of the folder.
        """
        if not path or "\0" in path:
            raise fail(where, f"{shown(path)} is no name of a picture")
        name = self._relative(where, path) if os.path.isabs(path) else path
        parts = PurePosixPath(name).parts
        file = os.path.join(self.home, *parts)
        folder = os.path.dirname(file)
        if folder not in self._checked:
            self._checked[folder] = lies_in(os.path.realpath(folder), self._real)
        if ".." in parts:
            cure = "list only pictures that lie in it"
            raise fail(where, f"{shown(name)} leads out of {self.home}; {cure}")
        if not self._checked[folder]:
            place = os.path.realpath(folder)
            linked = f"{shown(name)} lies in a linked folder that leads out of {self.home}"
            doubt("links", where, f"{linked}, to {place}; put the pictures themselves there")
        try:
            mode = os.lstat(file).st_mode
            if stat.S_ISLNK(mode):
                refuse_link_out(file, self._real)
                mode = os.stat(file).st_mode
        except OSError as error:
            if (spelled := self.spelled(name)) is not None:
                return self.find(where, spelled, needed=needed)
            if not needed:
                return file, "/".join(parts)
            hint = "; write / between folders" if "\\" in name else ""
            raise fail(where, f"there is no picture {shown(name)} in {self.home}{hint}") from error
        if not stat.S_ISREG(mode):
            raise fail(where, f"{shown(name)} in {self.home} is not a plain file")
        return file, "/".join(parts)

    def spelled(self, name: str) -> str | None:
        """The picture that a name means which is spelt otherwise (case, accents, backslashes,
        ending), None where there is none or several are alike.
        """
        spelled = self._spellings.find(name)
        if spelled is not None:
            note("assumed", SPELT_OTHERWISE, [f"{name}: {spelled}"])
        return spelled

    def _relative(self, where: object, path: str) -> str:
        real = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        if not lies_in(real, self._real):
            cure = "give the folder of the pictures"
            raise fail(where, f"{shown(path)} does not lie in {self.home}; {cure}")
        return os.path.relpath(real, self._real).replace(os.sep, "/")
