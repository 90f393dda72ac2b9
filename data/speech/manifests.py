"""Manifests: lists of recordings, or of stretches of them, with what is known about them.

JSON lines or a table with `audio` and optionally `text`, `start`, `end` or `duration` (seconds),
`speaker`, `part`, `id`, and `words` (in JSON lines: [word, start, end] each). Columns with other
usual names are taken and noted.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...base.account import doubt, note
from ...base.errors import fail, reason, shown
from ...base.files import lies_in
from ...base.spellings import SPELT_OTHERWISE, Spellings
from ..columns import find_columns, parse_columns
from ..formats.audio import AUDIO_SUFFIXES, read_audio
from ..formats.tables import TABLE_SUFFIXES, collect, scan_table, suffix_of
from ..groups import read_groups, without_flag_columns
from ..items import is_missing
from ..parts import read_part, without_other_parts
from .transcripts import Word

FIELDS = ("audio", "text", "start", "end", "duration", "speaker", "part", "id", "words")
LABELLED_FIELDS = (
    "audio", "label", "start", "end", "duration", "speaker", "group", "part", "id",
)  # fmt: skip
# Where a manifest has several of these, the first is taken.
PREFERRED: Mapping[str, tuple[str, ...]] = {
    "audio": ("audio", "audio_filepath", "audio_path", "path", "file", "wav"),
    "text": ("text", "transcript", "transcription", "sentence"),
    "start": ("start", "offset"),
    "speaker": ("speaker", "spk_id"),
    "part": ("part", "split"),
    "id": ("id", "name", "utt_id"),
}
LINE_SUFFIXES = (".jsonl", ".ndjson")
FILE_CAP = 512 << 20  # most bytes of a manifest
# "none", "null" and "na" in lower case may have been said.
NO_TEXT = ("nan", "NaN", "None", "NA", "N/A", "n/a", "<NA>", "NULL", "#N/A")

Row = Mapping[str, object]


@dataclass(frozen=True)
class Utterance:
    """A recording, or a stretch of it, with what is known about it."""

    name: str  # its id in predictions
    file: str
    start: float = 0.0  # seconds
    end: float | None = None  # seconds; None: the end of the recording
    text: str | None = None  # None where it is unknown
    speaker: str = ""
    part: str = ""  # train, validation, test or ""
    words: tuple[Word, ...] | None = None  # their times are seconds from `start`
    problem: str = ""  # why its text cannot be read
    label: str = ""  # its class; "" where it is unknown
    group: str = ""  # what stays together in one part, where that is not the speaker

    @property
    def stretch(self) -> str:
        """As `stretch_name`."""
        return stretch_name(self.start, self.end)

    def samples(self) -> np.ndarray:
        """float32 (S,) at 16,000 per second. Raises `InputError` as `read_audio`."""
        return read_audio(self.file, self.start, self.end)


def with_groups(utterances: Sequence[Utterance], *, divided: bool) -> list[Utterance]:
    """With one spelling of each speaker and group. divided: see `read_groups`."""
    speakers = read_groups("speaker", [u.speaker for u in utterances], divided=divided)
    groups = read_groups("group", [u.group for u in utterances], divided=divided)
    return [
        u if (u.speaker, u.group) == (speaker, group) else replace(u, speaker=speaker, group=group)
        for u, speaker, group in zip(utterances, speakers, groups, strict=True)
    ]


def stretch_name(start: float, end: float | None) -> str:
    """A name for a stretch of a recording in seconds, "" for all of it."""
    last = "" if end is None else f"{end:.4f}"
    return f"{start:.4f}-{last}" if start or last else ""


def is_manifest(path: Path) -> bool:
    """Whether a file is a manifest, by its name."""
    return path.suffix.lower() in LINE_SUFFIXES or suffix_of(path) in TABLE_SUFFIXES


def read_manifest(
    path: Path,
    columns: Sequence[str] = (),
    *,
    home: Path | None = None,
    fields: Sequence[str] = FIELDS,
) -> list[Utterance]:
    """The utterances of a manifest, in its order, without reading the recordings.

    columns: as of the option --columns. fields: what is read, `FIELDS` or `LABELLED_FIELDS`. home:
    the folder that the recordings must lie in, unless the doubt "links" is accepted; None:
    anywhere.

    Raises `InputError` for what is missing, empty, or no manifest.
    """
    numbered = _rows(path)
    rows = [row for _, row in numbered]
    names = list(dict.fromkeys(name for row in rows for name in row))
    chosen = {field: next((n for n in row if n in names), "") for field, row in PREFERRED.items()}
    chosen = {field: name for field, name in chosen.items() if name}
    chosen = {field: name for field, name in chosen.items() if field in fields}
    chosen |= parse_columns(columns, fields)
    columns_left = without_other_parts(
        names,
        lambda name: (str(row.get(name) or "") for row in rows),
        fields=fields,
        chosen=chosen.values(),
    )
    columns_left = without_flag_columns(
        columns_left,
        lambda name: {str(row.get(name) or "") for row in rows},
        "speaker",
        chosen.values(),
    )
    named = find_columns(path, columns_left, fields, chosen=chosen, unused_noted=False)
    if "audio" not in named:
        raise fail(
            path,
            f"line {numbered[0][0] if numbered else 1} names no recording; columns like audio, "
            "text, start, end, or --columns audio=COLUMN",
        )
    # Each line may have keys of its own.
    has_keys = path.suffix.lower() in LINE_SUFFIXES
    taken = set(named.values())
    names_of = {
        field: (name, *(n for n in PREFERRED.get(field, ()) if has_keys and n not in taken))
        for field, name in named.items()
    }
    used = {name for row in names_of.values() for name in row}
    if unused := [name for name in columns_left if name not in used]:
        note("columns", "not used", unused)
    real_home = None if home is None else os.path.realpath(home)
    spellings = Spellings(path.parent, AUDIO_SUFFIXES)
    return [
        _utterance(path, number, row, names_of, real_home, spellings) for number, row in numbered
    ]


def _rows(path: Path) -> list[tuple[int, Row]]:
    """The rows of a manifest, each with the number of its line."""
    if path.suffix.lower() in LINE_SUFFIXES:
        return _json_rows(path)
    frame, _ = scan_table(path)
    return list(enumerate(collect(path, frame).to_dicts(), 2))


def _json_rows(path: Path) -> list[tuple[int, Row]]:
    if path.stat().st_size > FILE_CAP:
        raise fail(path, f"is larger than {FILE_CAP >> 20} MiB")
    rows: list[tuple[int, Row]] = []
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    cure = "a manifest has one object per line"
                    raise fail(path, f"line {number} is no JSON; {cure}") from None
                if not isinstance(row, dict):
                    raise fail(path, f"line {number} is no object")
                rows.append((number, row))
    except UnicodeDecodeError:
        raise fail(path, "is not UTF-8 text") from None
    if not rows:
        raise fail(path, "has no lines")
    return rows


def _utterance(
    path: Path,
    number: int,
    row: Row,
    fields: Mapping[str, Sequence[str]],
    home: str | None,
    spellings: Spellings,
) -> Utterance:
    """The utterance in a row of a manifest. fields: the columns that hold each field, of which the
    first that is filled counts.
    """
    where = f"line {number}"

    def cell(field: str) -> object:
        values = (row.get(name) for name in fields.get(field, ()))
        return next((value for value in values if value not in (None, "")), None)

    audio = cell("audio")
    if not isinstance(audio, str):
        raise fail(path, f"{where} names no recording; columns like audio, text, start, end")
    audio = audio.strip()
    file = path.parent / audio
    if not os.path.lexists(file) and (spelled := spellings.find(audio)) is not None:
        note("assumed", SPELT_OTHERWISE, [f"{audio}: {spelled}"])
        file = path.parent / spelled
    if home is not None and not lies_in(os.path.realpath(file), home):
        cure = "put the recording there, or name the manifest itself"
        doubt("links", f"{path}: {where}", f"{shown(audio)} leads out of the folder; {cure}")
    offset = _seconds(path, where, cell("start"))
    start, end = offset or 0.0, _seconds(path, where, cell("end"))
    if end is None:
        duration = _seconds(path, where, cell("duration"))
        end = start + duration if duration is not None and offset is not None else None
    if end is not None and end <= start:
        raise fail(path, f"{where} ends at {end:g} s, before it starts at {start:g} s")
    part, name = str(cell("part") or "").strip(), cell("id")
    stretch = "" if end is None and not start else f"@{start:.2f}"
    return Utterance(
        str(name) if name is not None else f"{audio}{stretch}",
        str(file),
        start,
        end,
        _text(where, cell("text")),
        _speaker(cell("speaker")),
        read_part(f"{path}: {where}: part", part) if part else "",
        _words(path, where, cell("words")),
        label="" if (label := cell("label")) is None else str(label),
        group=_speaker(cell("group")),
    )


def _text(where: str, cell: object) -> str | None:
    """A transcript, None where the cell is empty or says so."""
    if cell is None:
        return None
    if str(cell).strip() in NO_TEXT:
        note("values", "texts such as NA or nan, taken as missing", [where])
        return None
    return " ".join(str(cell).split())


def _speaker(cell: object) -> str:
    return "" if cell is None or is_missing(str(cell)) else str(cell).strip()


def _seconds(path: Path, where: str, value: object) -> float | None:
    """A time in seconds; None for an empty cell."""
    if value is None or value == "":
        return None
    try:
        seconds = float(value)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise fail(path, f"{where}: {shown(value)} is no time in seconds")
    return seconds


def _words(path: Path, where: str, cells: object) -> tuple[Word, ...] | None:
    if not isinstance(cells, list):
        return None
    words: list[Word] = []
    for cell in cells:
        try:
            fields = ("word", "start", "end")
            text, start, end = (cell[f] for f in fields) if isinstance(cell, dict) else cell
            words.append(Word(str(text), float(start), float(end)))
        except (TypeError, ValueError, KeyError):
            form = "words must be [word, start, end] each"
            raise fail(path, f"{where}: {form}, got {shown(cell)}") from None
    return tuple(words)


def groups_with_files(
    utterances: Sequence[Utterance], named: Sequence[str], mark: str
) -> list[str]:
    """The group of each recording: the one that is named, else its file, by the mark and the number
    of its first recording, since its stretches share their sound. A stretch without a name belongs
    to the only one that its file has.

    named: a speaker or group for each recording, "" where none is known. A name counts before the
    file: a dialogue has stretches of two speakers, who may be in different parts.
    """
    files, names_of = _names_of_files(utterances, named)
    group_of = {file: next(iter(names)) for file, names in names_of.items() if len(names) == 1}
    for row, file in enumerate(files):
        group_of.setdefault(file, f"{mark}{row}")
    return [name or group_of[file] for file, name in zip(files, named, strict=True)]


def note_stretches(utterances: Sequence[Utterance], named: Sequence[str]) -> None:
    """Note how many recordings are stretches of one file and stay together for it, and which files
    may be in several parts; see `groups_with_files`.
    """
    files, names_of = _names_of_files(utterances, named)
    unnamed = [file for file in files if not names_of[file]]
    if len(set(unnamed)) < len(unnamed):
        what = f"{len(unnamed):,} recordings are stretches of {len(set(unnamed)):,} files"
        note("groups", f"{what}; those of a file stay together")
    if shared := [os.path.basename(file) for file, names in names_of.items() if len(names) > 1]:
        what = "files with stretches of several speakers or groups, which may be in different parts"
        note("groups", what, shared)


def _names_of_files(
    utterances: Sequence[Utterance], named: Sequence[str]
) -> tuple[list[str], dict[str, set[str]]]:
    """The real file of each recording, and the names that the recordings of a file have."""
    real: dict[str, str] = {}
    files, names_of = [], dict[str, set[str]]()
    for utterance, name in zip(utterances, named, strict=True):
        if utterance.file not in real:
            real[utterance.file] = os.path.realpath(utterance.file)
        files.append(real[utterance.file])
        names_of.setdefault(files[-1], set()).update({name} - {""})
    return files, names_of


def write_manifest(path: Path, utterances: Sequence[Utterance]) -> None:
    """Write JSON lines that `list_speech` reads; files of recordings are written as they are.

    Raises `InputError` where the file cannot be written.
    """
    lines = []
    for utterance in utterances:
        row: dict[str, object] = {"id": utterance.name, "audio": utterance.file}
        if utterance.end is not None or utterance.start:
            row["start"] = utterance.start
        if utterance.end is not None:
            row["end"] = utterance.end
        optional = {"text": utterance.text, "speaker": utterance.speaker, "part": utterance.part}
        row |= {name: value for name, value in optional.items() if value}
        if utterance.words is not None:
            row["words"] = [[w.text, round(w.start, 4), round(w.end, 4)] for w in utterance.words]
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    try:
        path.write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise fail(path, f"cannot be written ({reason(error)})") from None
