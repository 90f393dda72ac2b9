"""Files of slides and of their features: which belongs to which name, and what tells them apart."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from ...base.account import note
from ...base.errors import fail, shown
from .slides import SLIDE_SUFFIXES

FEATURE_SUFFIXES = (".h5", ".hdf5", ".pt")
_ENDINGS = (*SLIDE_SUFFIXES, *FEATURE_SUFFIXES)
_READ_AT_ONCE = 64 << 20  # bytes of a file that is digested without leaving anything out
_SAMPLES, _SAMPLE_BYTES = 64, 16 << 10


def slide_digest(path: str | os.PathLike[str]) -> str:
    """What tells the contents of a slide from those of others, wherever its file lies: from the
    size and, for more than 64 MiB, from 64 places of the file. Of a slide of several files (.mrxs)
    the sizes of the others count, too.
    """
    file = Path(path)
    size = file.stat().st_size
    state = hashlib.blake2b(str(size).encode(), digest_size=16)
    with file.open("rb") as opened:
        if size <= _READ_AT_ONCE:
            state.update(opened.read())
        else:
            for k in range(_SAMPLES):
                opened.seek(k * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
                state.update(opened.read(_SAMPLE_BYTES))
    beside = file.with_suffix("")
    if file.suffix.lower() == ".mrxs" and beside.is_dir():
        for part in sorted(beside.iterdir()):
            state.update(f"{part.name} {part.stat().st_size}".encode())
    return state.hexdigest()


def feature_names(slides: Sequence[str], home: str | os.PathLike[str]) -> list[str]:
    """The name of each slide's feature file, without its ending.

    Slides with the same name, in two folders or two formats, keep their folder and ending. home:
    the folder that all slides are below.
    """
    count = Counter(Path(slide).stem.lower() for slide in slides)
    return [
        path.stem if count[path.stem.lower()] == 1 else "__".join(path.relative_to(home).parts)
        for path in map(Path, slides)
    ]


def match_files(names: Sequence[str], files: Sequence[str], where: object) -> dict[str, str]:
    """The file of each name, of a slide or of its features; names without a file are left out.

    A name may have the ending of a slide or none, and a folder. A name and a file that agree up to
    the first dot only (TCGA barcodes without the UUID) belong together where that is true of no
    other name and no other file; that is noted in the account.

    where: what lists the names, for messages. Raises `InputError` where two files match a name.
    """
    by_key: dict[str, list[str]] = {}
    by_beginning: dict[str, list[str]] = {}
    for file in files:
        for key in _keys(file):
            by_key.setdefault(key, []).append(file)
        by_beginning.setdefault(_beginning(file), []).append(file)
    file_of: dict[str, str] = {}
    for name in names:
        matches = next((by_key[key] for key in _keys(name) if key in by_key), [])
        if matches:
            file_of[name] = _only_match(name, matches, where)
    used, short = set(file_of.values()), Counter(map(_beginning, names))
    by_first_dot: list[str] = []
    for name in names:
        matches = by_beginning.get(_beginning(name), [])
        single = len(matches) == 1 and short[_beginning(name)] == 1
        if name not in file_of and single and matches[0] not in used:
            file_of[name] = matches[0]
            by_first_dot.append(f"{name}: {Path(matches[0]).name}")
    if by_first_dot:
        note("assumed", "slides are matched with files by their names up to a dot", by_first_dot)
    return file_of


def _keys(name: str) -> list[str]:
    """What a name or file may be called, the nearest to it first."""
    name = unicodedata.normalize("NFC", name)  # a disk of macOS has letters with accents in parts
    path = PurePosixPath(name.replace("\\", "/"))
    keys = [path.name]
    while (suffix := PurePosixPath(keys[-1]).suffix).lower() in _ENDINGS and len(keys) < 3:
        keys.append(keys[-1][: -len(suffix)])
    joined = "__".join(part for part in path.parts if part not in ("/", "..", "."))
    return [*([name, joined] if len(path.parts) > 1 else []), *keys]


def _beginning(name: str) -> str:
    return Path(name).name.split(".", 1)[0]


def _only_match(name: str, matches: Sequence[str], where: object) -> str:
    """The file of a name that has several candidates, if one of them is meant."""
    folders = PurePosixPath(name).parts[:-1]
    exact = [f for f in matches if folders and Path(f).parts[-1 - len(folders) : -1] == folders]
    # CLAM writes features twice, with places (.h5) and without (.pt).
    better = [file for file in matches if not file.lower().endswith(".pt")]
    for chosen in (matches, exact, better):
        if len(chosen) == 1:
            return chosen[0]
    raise fail(where, f"slide {shown(name)} could be {matches[0]} or {matches[1]}; move one")


def not_matched(names: Iterable[str], files: Sequence[str]) -> str:
    """Two examples for a message: a name that was looked for, and a file that is there."""
    wished = next(iter(names), None)
    present = f"there is {shown(Path(files[0]).name)}" if files else "there is no file"
    return f"looked for {shown(wished)}, {present}"
