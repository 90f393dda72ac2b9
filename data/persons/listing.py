"""The list of pictures that every reader of a data set returns, and what the readers share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ...base.account import note
from ...base.errors import fail, reason, shown
from ..items import check_items

Cell = TypeVar("Cell")

JUNK = "-1"  # identity of a picture that counts neither for nor against a search
LIST_BYTES = 256 << 20  # largest list of pictures


@dataclass
class Listing:
    """Pictures of a data set: row r of each list is picture r."""

    paths: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    identities: list[str] = field(default_factory=list)
    cameras: list[str] | None = None
    parts: list[str] = field(default_factory=list)
    distractor: list[bool] = field(default_factory=list)
    attributes: dict[str, list[str | None]] = field(default_factory=dict)

    def add(
        self,
        path: str,
        name: str,
        identity: str,
        part: str,
        *,
        camera: str | None = None,
        distractor: bool = False,
    ) -> None:
        """Append a picture."""
        self.paths.append(path)
        self.names.append(name)
        self.identities.append(identity)
        self.parts.append(part)
        self.distractor.append(distractor)
        if camera is not None:
            self.cameras = self.cameras if self.cameras is not None else []
            self.cameras.append(camera)

    def checked(self, where: object) -> Listing:
        """The list without what is listed twice.

        Raises `InputError` for a picture that is listed more than once or in two parts (the doubt
        "copies"), for one with two identities (the doubt "two-labels"), and where only some
        pictures have a camera. A picture may be both query and gallery.
        """
        if self.cameras is not None and len(self.cameras) != len(self.names):
            raise fail(where, "some pictures have a camera and some have none")
        queries = {name for name, part in zip(self.names, self.parts) if part == "query"}
        both = [n for n, part in zip(self.names, self.parts) if part == "gallery" and n in queries]
        if both:
            note("items", "pictures that are both query and gallery", both)
        asked = set(both)
        keys = [
            f"{name} (gallery)" if part == "gallery" and name in asked else name
            for name, part in zip(self.names, self.parts, strict=True)
        ]
        rows = check_items(where, "picture", keys, self.identities, self.parts)
        return self if len(rows) == len(self.names) else self._of(rows)

    def _of(self, rows: list[int]) -> Listing:
        def chosen(values: list[Cell]) -> list[Cell]:
            return [values[row] for row in rows]

        return Listing(
            chosen(self.paths),
            chosen(self.names),
            chosen(self.identities),
            None if self.cameras is None else chosen(self.cameras),
            chosen(self.parts),
            chosen(self.distractor),
            {name: chosen(values) for name, values in self.attributes.items()},
        )


def needed_folder(root: Path, name: str, layout: str) -> Path:
    """A folder that a layout must have. Raises `InputError` where it is missing."""
    if not (root / name).is_dir():
        raise fail(root, f"has no folder {name}/, {_cure(layout)}")
    return root / name


def needed_file(root: Path, name: str, layout: str) -> Path:
    """A file that a layout must have. Raises `InputError` where it is missing."""
    if not (root / name).is_file():
        raise fail(root, f"has no file {name}, {_cure(layout)}")
    return root / name


def _cure(layout: str) -> str:
    return f"which layout {layout} has; unpack all of the data set"


def list_lines(path: Path) -> Iterator[tuple[str, str]]:
    """("file, line n", text) for each line of a list that is not blank.

    Raises `InputError` where there is none, and for a file that is not UTF-8 or too large.
    """
    try:
        if path.stat().st_size > LIST_BYTES:
            raise fail(path, f"is larger than {LIST_BYTES >> 20} MiB; is it a list of pictures?")
        lines = path.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise fail(path, f"cannot be read as UTF-8 text ({reason(error, 120)})") from error
    if not any(line.strip() for line in lines):
        raise fail(path, "lists nothing")
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield f"{path}, line {number}", line.strip()


def list_pairs(path: Path) -> Iterator[tuple[str, str, str]]:
    """("file, line n", first word, the rest) of each line."""
    for where, line in list_lines(path):
        words = line.split(None, 1)
        if len(words) != 2:
            raise fail(where, f"{shown(line)} are not two words")
        yield where, words[0], words[1]
