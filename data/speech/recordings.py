"""Utterances: recordings, or stretches of them, with what is said where that is known.

Sources: a recording; a folder of recordings, where text stands beside them (.txt, .lab, or a
.TextGrid, of the same name); a manifest, JSON lines or a table, with `audio` (or audio_filepath,
path, file, wav) and perhaps `text`, `start`, `end` or `duration` (seconds), `speaker`, `part`,
`id`, `words` (JSON lines: [word, start, end] each)."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...base.errors import InputError, fail, shown
from ..formats.audio import AUDIO_SUFFIXES, read_audio
from ..formats.tables import collect, scan_table, suffix_of
from .transcripts import Word, read_textgrid

AUDIO_NAMES = ("audio", "audio_filepath", "audio_path", "path", "file", "wav")
TEXT_NAMES = ("text", "transcript", "transcription", "sentence")
PARTS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "dev": "validation",
    "val": "validation",
    "test": "test",
    "": "",
}
LINE_SUFFIXES, MANIFEST_SUFFIXES = (".jsonl", ".ndjson"), (".csv", ".tsv", ".parquet")
FILE_CAP = 512 << 20
MOST_FILES = 1_000_000


@dataclass(frozen=True)
class Utterance:
    """name: as predictions call it; file: the recording; start, end: seconds in it, None: its end;
    text: what is said, None where nobody knows; words: with their times, seconds from `start`."""

    name: str
    file: str
    start: float = 0.0
    end: float | None = None
    text: str | None = None
    speaker: str = ""
    part: str = ""
    words: tuple[Word, ...] | None = None

    def samples(self) -> Any:
        """float32 (S,) at 16,000 a second. Raises InputError as `read_audio`."""
        return read_audio(self.file, self.start, self.end)


def list_speech(path: str | os.PathLike[str]) -> list[Utterance]:
    """The utterances of a recording, a folder (at any depth) or a manifest, in a fixed order, none
    of them read.

    Raises InputError for what is missing, empty, or no manifest.
    """
    given = Path(path)
    if given.is_dir():
        return _folder(given)
    if not given.is_file():
        raise fail(path, "there is no such file or folder")
    if given.suffix.lower() in AUDIO_SUFFIXES:
        return [_beside(given, given.name)]
    if given.suffix.lower() in LINE_SUFFIXES:
        return _json_lines(given)
    if suffix_of(given) in MANIFEST_SUFFIXES:
        frame, _ = scan_table(given)
        return [
            _row(given, number, row)
            for number, row in enumerate(collect(given, frame).iter_rows(named=True), 2)
        ]
    raise fail(
        path,
        f"is no recording ({', '.join(AUDIO_SUFFIXES[:4])}, ...) and no manifest (.jsonl, .csv, .parquet)",
    )


def _folder(home: Path) -> list[Utterance]:
    for name in ("manifest.jsonl", "manifest.csv"):
        if (home / name).is_file():
            return list_speech(home / name)
    found: list[Path] = []
    inside = home.resolve()
    for folder, names, files in os.walk(home):
        names[:] = sorted(name for name in names if not name.startswith("."))
        for name in sorted(files):
            file = Path(folder) / name
            if name.startswith(".") or file.suffix.lower() not in AUDIO_SUFFIXES:
                continue
            if file.is_symlink() and not file.resolve().is_relative_to(inside):
                raise fail(
                    file, "is a link that leads out of its folder; give the file that it leads to"
                )
            found.append(file)
            if len(found) > MOST_FILES:
                raise fail(home, f"holds more than {MOST_FILES:,} recordings; give parts of it")
    if not found:
        raise fail(home, f"holds no recording ({', '.join(AUDIO_SUFFIXES[:4])}, ...)")
    return [_beside(file, file.relative_to(home).as_posix()) for file in sorted(found)]


def _beside(file: Path, name: str) -> Utterance:
    """A recording with the text that lies beside it."""
    for suffix in (".TextGrid", ".textgrid"):
        if (grid := file.with_suffix(suffix)).is_file():
            words = tuple(read_textgrid(grid))
            return Utterance(
                name, str(file), text=" ".join(word.text for word in words), words=words
            )
    for suffix in (".txt", ".lab"):
        if (text := file.with_suffix(suffix)).is_file():
            return Utterance(name, str(file), text=_read_text(text))
    return Utterance(name, str(file))


def _read_text(file: Path) -> str:
    if file.stat().st_size > 1 << 20:
        raise fail(file, "is larger than 1 MiB, no transcript of a recording")
    try:
        return " ".join(file.read_text(encoding="utf-8-sig").split())
    except UnicodeDecodeError:
        raise fail(file, "is not UTF-8 text") from None


def _json_lines(path: Path) -> list[Utterance]:
    if path.stat().st_size > FILE_CAP:
        raise fail(path, f"is larger than {FILE_CAP >> 20} MiB")
    found = []
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (json.JSONDecodeError, RecursionError):
                    raise fail(
                        path, f"line {number} is no JSON; a manifest has one object a line"
                    ) from None
                if not isinstance(row, dict):
                    raise fail(path, f"line {number} is no object")
                found.append(_row(path, number, row))
    except UnicodeDecodeError:
        raise fail(path, "is not UTF-8 text") from None
    if not found:
        raise fail(path, "has no lines")
    return found


def _row(path: Path, number: int, row: Mapping[str, Any]) -> Utterance:
    where = f"line {number}"

    def first(names: Sequence[str]) -> Any:
        return next((row[name] for name in names if row.get(name) not in (None, "")), None)

    audio = first(AUDIO_NAMES)
    if not isinstance(audio, str):
        raise fail(path, f"{where} names no recording; columns like audio, text, start, end")
    file = Path(audio)
    file = file if file.is_absolute() else path.parent / file
    start = _seconds(path, where, first(("start", "offset")), 0.0)
    end = _seconds(path, where, row.get("end"), None)
    if (
        end is None
        and (duration := _seconds(path, where, row.get("duration"), None)) is not None
        and (first(("start", "offset")) is not None)
    ):
        end = start + duration
    if end is not None and end <= start:
        raise fail(path, f"{where} ends at {end:g} s, before it starts at {start:g} s")
    text = first(TEXT_NAMES)
    part = str(row.get("part") or row.get("split") or "").strip().lower()
    if part not in PARTS:
        raise fail(path, f"{where}: part {shown(part)} is none of train, validation, test")
    name = first(("id", "name", "utt_id"))
    stretch = "" if end is None and not start else f"@{start:.2f}"
    return Utterance(
        str(name) if name is not None else f"{audio}{stretch}",
        str(file),
        start,
        end,
        None if text is None else " ".join(str(text).split()),
        str(first(("speaker", "spk_id")) or ""),
        PARTS[part],
        _words(path, where, row.get("words")),
    )


def _seconds(path: Path, where: str, value: Any, default: Any) -> Any:
    if value is None or value == "":
        return default
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not (math.isfinite(found) and found >= 0):
        raise fail(path, f"{where}: {shown(value)} is no time in seconds")
    return found


def _words(path: Path, where: str, given: Any) -> tuple[Word, ...] | None:
    if not isinstance(given, list):
        return None
    found = []
    for one in given:
        try:
            text, start, end = (
                (one["word"], one["start"], one["end"]) if isinstance(one, dict) else one
            )
            found.append(Word(str(text), float(start), float(end)))
        except (TypeError, ValueError, KeyError):
            raise fail(
                path, f"{where}: words must be [word, start, end] each, got {shown(one)}"
            ) from None
    return tuple(found)


def write_manifest(path: Path, utterances: Sequence[Utterance]) -> None:
    """JSON lines that `list_speech` reads, recordings named as they are. Raises InputError where it
    cannot be.
    """
    lines = []
    for one in utterances:
        row: dict[str, Any] = {"id": one.name, "audio": one.file}
        row |= {} if one.end is None and not one.start else {"start": one.start}
        row |= {} if one.end is None else {"end": one.end}
        known = (("text", one.text), ("speaker", one.speaker), ("part", one.part))
        row |= {name: value for name, value in known if value}
        if one.words is not None:
            row["words"] = [
                [word.text, round(word.start, 4), round(word.end, 4)] for word in one.words
            ]
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    try:
        path.write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None
