"""Recordings with a label: from the column of a table, the name of a folder, or the name of a file.

A pattern reads names: "{label}_{speaker}_*" takes "7_jackson_32.wav" as label 7 of speaker jackson.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ...base.account import note, recount
from ...base.errors import InputError, fail, nearest, shown
from ...base.files import pattern_home, similar_file, walk_folder
from ...base.own_files import COMPANIONS, in_companion
from ..columns import is_named
from ..formats.audio import AUDIO_SUFFIXES
from ..formats.tables import scan_table
from ..items import check_items, read_folder_classes, read_labels
from ..listed import labels_table, note_whole_folder
from ..parts import PARTS, read_part
from .manifests import LABELLED_FIELDS, Utterance, is_manifest, read_manifest, with_groups
from .recordings import MANIFESTS, SOME_SUFFIXES, usable_recordings

LabelFrom = Literal["auto", "table", "folder", "name"]
NAMED = ("label", "speaker", "group", "part")
"""What a pattern may name."""
_PIECES = re.compile(r"\{(\w*)(?::(\d+))?\}|(\*)|(\?)|([^{}*?]+)|([{}])")


@dataclass(frozen=True)
class NamePattern:
    """What a name says, such as "{speaker:2}???{label:1}*".

    {label}, {speaker}, {group} and {part} take as few letters as fit, {label:1} exactly one; *
    stands for any letters, ? for one. Where it has "/", as many folders above the file count, too.
    """

    text: str
    expression: re.Pattern[str]
    fields: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> NamePattern:
        """Raises `InputError` for a pattern that says nothing, or something else."""
        where, parts, fields = f"--pattern {text}", [], []
        for name, count, star, mark, plain, bracket in _PIECES.findall(text):
            if bracket:
                raise InputError(f"{where}: has a bracket alone; write {{label}} or {{label:1}}")
            if star or mark:
                parts.append("[^/]*?" if star else "[^/]")
            elif plain:
                parts.append(re.escape(plain))
            else:
                if name not in NAMED:
                    raise InputError(f"{where}: no field {shown(name)}{nearest(name, NAMED)}")
                if name in fields:
                    raise InputError(f"{where}: names {name} twice")
                fields.append(name)
                parts.append(f"(?P<{name}>[^/]{f'{{{count}}}' if count else '+?'})")
        if not fields:
            raise InputError(f"{where}: names none of {{{'}, {'.join(NAMED)}}}")
        return cls(text, re.compile("".join(parts)), tuple(fields))

    def read(self, name: str) -> Mapping[str, str] | None:
        """The fields in the name of a file, which may have folders in front; None if it does not
        fit.

        >>> NamePattern.of("{speaker:2}???{label:1}*").read("wav/03a01Wa.wav")
        {'speaker': '03', 'label': 'W'}
        """
        depth = self.text.count("/") + 1
        stem = os.path.splitext(name)[0]
        match = self.expression.fullmatch("/".join(stem.split("/")[-depth:]))
        return None if match is None else match.groupdict()


def list_labelled(
    path: str | os.PathLike[str],
    columns: Sequence[str] = (),
    *,
    label_from: LabelFrom = "auto",
    pattern: str | None = None,
) -> list[Utterance]:
    """The recordings of a table or folder, each once, with their labels, in a fixed order, without
    reading the sound.

    columns: of the table, as of --columns. label_from: auto is the pattern where it names {label},
    else a table, else the folder. pattern: of names, see `NamePattern`; what it names counts before
    what a table says.

    Raises `InputError` for what is missing, labels that are missing, and recordings that are listed
    twice.
    """
    names = None if pattern is None else NamePattern.of(pattern)
    source = Path(path)
    table = _table_of(source)
    label_from = _label_from(label_from, names, table)
    if label_from == "name" and (names is None or "label" not in names.fields):
        raise InputError("--label-from name: needs --pattern with {label}, such as {label}_*")
    if label_from == "table":
        if table is None:
            raise fail(path, f"--label-from table: there is no table ({_tables()})")
        listed = _of_table(source, table, columns)
    else:
        if columns and table is None:
            raise InputError("--columns: are read with a table of recordings; leave it out")
        listed = _below(source) if source.is_dir() else _of_table(source, source, columns, False)
        if label_from == "folder":
            listed = _by_folder(source, listed)
    if names is not None:
        listed = _by_name(path, listed, names, drop=label_from == "name")
    labelled = with_groups([u for u in listed if u.label], divided=True)
    note("read", "recordings", count=len(labelled))
    rows = check_items(
        path,
        "recording",
        [f"{u.file} {u.stretch}".strip() for u in labelled],
        [u.label for u in labelled],
        [u.part for u in labelled],
    )
    recount("read", "recordings", len(rows))
    return [labelled[row] for row in rows]


def table_of_labels(path: str, label_from: LabelFrom, pattern: str | None) -> Path | None:
    """The table whose rows `list_labelled` lists; None where it lists files."""
    table = _table_of(Path(path))
    names = None if pattern is None else NamePattern.of(pattern)
    return table if _label_from(label_from, names, table) == "table" else None


def names_stretches(table: Path) -> bool:
    """Whether a table has columns for where stretches of recordings begin and end."""
    names = scan_table(table)[1]
    return any(is_named(name, field) for name in names for field in ("start", "end"))


def _label_from(label_from: LabelFrom, names: NamePattern | None, table: Path | None) -> LabelFrom:
    """Where labels come from, which auto leaves open."""
    if label_from != "auto":
        return label_from
    if names is not None and "label" in names.fields:
        return "name"
    return "folder" if table is None else "table"


def list_unlabelled(
    path: str, columns: Sequence[str] = (), *, pattern: str | None = None
) -> list[Utterance]:
    """The recordings of --input: a file, a folder at any depth, a quoted pattern of files, or a
    table; a pattern of names may tell the speaker.

    Raises `InputError` for what is missing.
    """
    source = Path(path)
    if source.is_dir():
        note_whole_folder(path, "recordings")
        listed = _below(source)
    elif glob.has_magic(path) and not source.exists():
        home = pattern_home(path)
        files = sorted(f for f in glob.glob(path, recursive=True) if os.path.isfile(f))
        if copies := [f for f in files if in_companion(f, home)]:
            note("left out", COMPANIONS, copies)
            files = sorted(set(files) - set(copies))
        fitting = [f for f in files if f.lower().endswith(AUDIO_SUFFIXES)]
        if others := sorted(set(files) - set(fitting)):
            note("left out", "files of other kinds", others)
        if not fitting:
            raise fail(path, f"fits no recording ({SOME_SUFFIXES})")
        listed = [Utterance(os.path.relpath(f, home).replace(os.sep, "/"), f) for f in fitting]
    elif source.is_file() and source.suffix.lower() in AUDIO_SUFFIXES:
        listed = [Utterance(source.name, path)]
    else:
        listed = _of_table(source, source, columns, False)
    if columns and not (source.is_file() and is_manifest(source)):
        raise InputError("--columns: are read with a table of recordings; leave it out")
    if pattern is not None:
        names = NamePattern.of(pattern)
        listed = _by_name(path, listed, names, drop=False)
    note("read", "recordings", count=len(listed))
    return with_groups(listed, divided=False)


def _tables() -> str:
    return f"labels.csv, {', '.join(MANIFESTS)} in a folder, or .csv, .jsonl, .parquet, .xlsx"


def _table_of(source: Path) -> Path | None:
    """The table of recordings that a path is, or that a folder has."""
    if not source.is_dir():
        return source if source.is_file() and is_manifest(source) else None
    if (table := labels_table(source)) is not None:
        return table
    return next((source / name for name in MANIFESTS if (source / name).is_file()), None)


def _of_table(
    source: Path, table: Path, columns: Sequence[str], labelled: bool = True
) -> list[Utterance]:
    """The recordings of a table, which may be the one of a folder."""
    if not table.is_file():
        raise fail(table, f"there is no such file or folder{similar_file(table)}")
    if not is_manifest(table):
        raise fail(table, f"is no recording ({SOME_SUFFIXES}) and no table of them ({_tables()})")
    home = source if source.is_dir() else None
    listed = read_manifest(table, columns, home=home, fields=LABELLED_FIELDS)
    if not labelled:
        return [replace(u, label="") for u in listed]
    if not any(u.label for u in listed):
        cure = "name its column with --columns label=COLUMN, or see --label-from"
        raise fail(table, f"no recording has a label; {cure}")
    labels = read_labels(f"{table}: label", [u.label for u in listed])
    if home is not None:
        real = {os.path.realpath(u.file) for u in listed}
        others = [
            name
            for name in walk_folder(home, AUDIO_SUFFIXES, noted=False)
            if os.path.realpath(home / name) not in real
        ]
        if others:
            note("left out", f"recordings that {table.name} does not name", others)
    return [replace(u, label=label) for u, label in zip(listed, labels, strict=True)]


def _below(home: Path) -> list[Utterance]:
    """All recordings in a folder, at any depth; its table, if there is one, is not read."""
    names = usable_recordings(home, walk_folder(home, AUDIO_SUFFIXES))
    return [Utterance(name, str(home / name)) for name in names]


def _by_folder(source: Path, listed: Sequence[Utterance]) -> list[Utterance]:
    """The label is the first folder below the data, or behind train, validation or test, where
    there is such a folder; other folders beside it are then left out.
    """
    labelled, without = [], []
    cure = "put them into a folder for each label, name a table, or give --pattern"
    divided = any(u.name.split("/")[0].lower() in PARTS for u in listed if "/" in u.name)
    others: dict[str, None] = {}
    for utterance in listed:
        folders = utterance.name.split("/")[:-1]
        part = PARTS.get(folders[0].lower(), "") if folders else ""
        if part and not folders[1:]:
            inside = f"{folders[0]}/ is a part of the data and names no label"
            raise fail(source, f"{shown(utterance.name)} has no label: {inside}; {cure}")
        if not folders:
            without.append(utterance.name)
        elif divided and not part:
            others[folders[0]] = None
        else:
            label = folders[1] if part else folders[0]
            labelled.append(replace(utterance, label=label, part=part))
    if not labelled:
        raise fail(source, f"its recordings lie in no folders that name their labels; {cure}")
    if without:
        note("left out", "recordings in no folder that names their label", without)
    if divided:
        note("assumed", "folders called train, validation or test are parts")
    if others:
        note("left out", "folders that are called like no part", others)
    labels = read_folder_classes(source, [u.label for u in labelled])
    return [replace(u, label=label) for u, label in zip(labelled, labels, strict=True)]


def _by_name(
    path: object, listed: Sequence[Utterance], names: NamePattern, *, drop: bool
) -> list[Utterance]:
    """With what the names say. drop: whether recordings whose name does not fit are left out."""
    chosen, unfit = [], []
    for utterance in listed:
        fields = dict(names.read(utterance.name) or {})
        if not fields:
            unfit.append(utterance.name)
            if not drop:
                chosen.append(utterance)
            continue
        if "part" in fields:
            where = f"--pattern {names.text}: {utterance.name}"
            fields["part"] = read_part(where, fields["part"])
        chosen.append(replace(utterance, **fields))
    if len(unfit) == len(listed):
        raise fail(path, f"--pattern {names.text} fits no name, such as {unfit[0]}")
    if unfit:
        topic = "left out" if drop else "items"
        note(topic, f"recordings whose name does not fit --pattern {names.text}", unfit)
    return chosen
