"""Utterances: recordings, or stretches of them, with their text where that is known.

Sources: a recording; a folder of recordings, whose text lies in files of the same name (.txt, .lab
or .TextGrid); a manifest, JSON lines or a table, with `audio` (or audio_filepath, path, file, wav)
and optionally `text`, `start`, `end` or `duration` (seconds), `speaker`, `part`, `id`, and `words`
(in JSON lines: [word, start, end] each).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...base.errors import fail, reason, shown
from ...base.files import walk_folder
from ..formats.audio import AUDIO_SUFFIXES, read_audio
from ..formats.tables import TABLE_SUFFIXES, collect, scan_table, suffix_of
from ..parts import read_part
from .transcripts import Word, read_textgrid

AUDIO_NAMES = ("audio", "audio_filepath", "audio_path", "path", "file", "wav")
TEXT_NAMES = ("text", "transcript", "transcription", "sentence")
LINE_SUFFIXES = (".jsonl", ".ndjson")
FILE_CAP = 512 << 20  # most bytes of a manifest
MOST_FILES = 1_000_000
SOME_SUFFIXES = f"{', '.join(AUDIO_SUFFIXES[:4])}, ..."


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

    def samples(self) -> np.ndarray:
        """float32 (S,) at 16,000 per second. Raises `InputError` as `read_audio`."""
        return read_audio(self.file, self.start, self.end)


def list_speech(path: str | os.PathLike[str]) -> list[Utterance]:
    """The utterances of a recording, a folder (at any depth) or a manifest, in a fixed order,
    without reading the recordings.

    Raises `InputError` for what is missing, empty, or no manifest.
    """
    source = Path(path)
    if source.is_dir():
        return _folder(source)
    if not source.is_file():
        raise fail(path, "there is no such file or folder")
    if source.suffix.lower() in AUDIO_SUFFIXES:
        return [_with_text(source, source.name)]
    if source.suffix.lower() in LINE_SUFFIXES:
        return _json_lines(source)
    if suffix_of(source) in TABLE_SUFFIXES:
        frame, _ = scan_table(source)
        rows = collect(source, frame).iter_rows(named=True)
        return [_utterance(source, number, row) for number, row in enumerate(rows, 2)]
    kinds = f"no recording ({SOME_SUFFIXES}) and no manifest (.jsonl, .csv, .xlsx, .parquet)"
    raise fail(path, f"is {kinds}")


def _folder(home: Path) -> list[Utterance]:
    for name in ("manifest.jsonl", "manifest.csv"):
        if (home / name).is_file():
            return list_speech(home / name)
    names = walk_folder(home, AUDIO_SUFFIXES)
    if len(names) > MOST_FILES:
        raise fail(home, f"holds more than {MOST_FILES:,} recordings; give parts of it")
    if not names:
        raise fail(home, f"holds no recording ({SOME_SUFFIXES})")
    return [_with_text(home / name, name) for name in names]


def _with_text(file: Path, name: str) -> Utterance:
    """A recording with the text in a file of the same name."""
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
    utterances: list[Utterance] = []
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (json.JSONDecodeError, RecursionError):
                    cure = "a manifest has one object per line"
                    raise fail(path, f"line {number} is no JSON; {cure}") from None
                if not isinstance(row, dict):
                    raise fail(path, f"line {number} is no object")
                utterances.append(_utterance(path, number, row))
    except UnicodeDecodeError:
        raise fail(path, "is not UTF-8 text") from None
    if not utterances:
        raise fail(path, "has no lines")
    return utterances


def _utterance(path: Path, number: int, row: Mapping[str, object]) -> Utterance:
    """The utterance in a row of a manifest."""
    where = f"line {number}"

    def first(names: Sequence[str]) -> object:
        return next((row[name] for name in names if row.get(name) not in (None, "")), None)

    audio = first(AUDIO_NAMES)
    if not isinstance(audio, str):
        raise fail(path, f"{where} names no recording; columns like audio, text, start, end")
    file = Path(audio)
    file = file if file.is_absolute() else path.parent / file
    offset = _seconds(path, where, first(("start", "offset")))
    start, end = offset or 0.0, _seconds(path, where, row.get("end"))
    if end is None:
        duration = _seconds(path, where, row.get("duration"))
        end = start + duration if duration is not None and offset is not None else None
    if end is not None and end <= start:
        raise fail(path, f"{where} ends at {end:g} s, before it starts at {start:g} s")
    text = first(TEXT_NAMES)
    part = str(row.get("part") or row.get("split") or "").strip()
    name = first(("id", "name", "utt_id"))
    stretch = "" if end is None and not start else f"@{start:.2f}"
    return Utterance(
        str(name) if name is not None else f"{audio}{stretch}",
        str(file),
        start,
        end,
        None if text is None else " ".join(str(text).split()),
        str(first(("speaker", "spk_id")) or ""),
        read_part(f"{path}: {where}: part", part) if part else "",
        _words(path, where, row.get("words")),
    )


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
