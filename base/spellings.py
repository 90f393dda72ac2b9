"""Names in lists that are spelt otherwise than the files on the disk.

Lists come from other systems: Windows writes backslashes and does not tell A.JPG from a.jpg, macOS
stores letters with accents in two parts, and many tables leave the ending out.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from pathlib import PurePosixPath

SPELT_OTHERWISE = "names of a list that are spelt otherwise than their files"
"""What the account calls them."""


class Spellings:
    """Finds what names of a list mean in a folder; each folder is listed once.

    home: the folder. suffixes: endings that a name may leave out, in lower case.
    """

    def __init__(self, home: str | os.PathLike[str], suffixes: Sequence[str]) -> None:
        self.home, self.suffixes = str(home), tuple(suffixes)
        self._entries: dict[str, dict[str, list[str]]] = {}

    def find(self, name: str) -> str | None:
        """The only file that a name may mean, relative to the folder and with "/"; None where there
        is none or several are alike.
        """
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if not parts or ".." in parts or parts[0] == "/":
            return None
        place: list[str] = []
        for part in parts:
            folder = os.path.join(self.home, *place)
            if os.path.lexists(os.path.join(folder, part)):
                place.append(part)
                continue
            fitting = self._in(folder).get(_plain(part), [])
            if len(fitting) != 1:
                return None
            place.append(fitting[0])
        return "/".join(place)

    def _in(self, folder: str) -> dict[str, list[str]]:
        """Names in a folder by what they may be called."""
        if folder not in self._entries:
            entries: dict[str, list[str]] = {}
            try:
                names = sorted(os.listdir(folder))
            except OSError:
                names = []
            for name in names:
                plain = _plain(name)
                stem, ending = os.path.splitext(plain)
                for key in {plain, stem if ending in self.suffixes else plain}:
                    entries.setdefault(key, []).append(name)
            self._entries[folder] = entries
        return self._entries[folder]


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
