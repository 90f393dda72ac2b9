"""Transcripts with word times, and the file formats of other programs for them.

Times are seconds from the start of the recording.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

from ...base.errors import InputError, fail, one_line, reason
from ...base.extras import install_line
from .writing import joined

FORMATS = ("json", "srt", "vtt", "tsv", "ctm", "TextGrid", "txt")
FILE_CAP = 64 << 20  # most bytes of a TextGrid
LINE, LINES, PAUSE = 42, 2, 1.0  # of a subtitle: most characters, lines, and seconds of a pause


@dataclass(frozen=True)
class Word:
    """A spoken word from start to end, seconds; confidence: in [0, 1], None where it is unknown."""

    text: str
    start: float
    end: float
    confidence: float | None = None


@dataclass(frozen=True)
class Segment:
    """The text of a stretch of a recording.

    log_probability: mean over the tokens; no_speech: probability that nobody speaks.
    """

    start: float
    end: float
    text: str
    words: tuple[Word, ...] = ()
    log_probability: float | None = None
    no_speech: float | None = None


def format_transcript(kind: str, name: str, seconds: float, segments: Sequence[Segment]) -> str:
    """The transcript of a recording as the text of a file in one of FORMATS.

    name: of the recording, without its folder; seconds: its length. Subtitles (srt, vtt) break at
    pauses and after at most two lines of 42 characters.

    Raises `ValueError` for another kind.
    """
    words = [word for segment in segments for word in segment.words]
    if kind == "json":
        return _json(name, seconds, segments)
    if kind == "txt":
        return "".join(segment.text + "\n" for segment in segments)
    if kind == "tsv":
        times = ((round(w.start * 1000), round(w.end * 1000), one_line(w.text)) for w in words)
        lines = [f"{start}\t{end}\t{text}" for start, end, text in times]
        return "\n".join(["start\tend\ttext", *lines]) + "\n"
    if kind == "ctm":
        stem = "_".join(Path(name).stem.split()) or "recording"
        return "".join(
            f"{stem} 1 {w.start:.3f} {w.end - w.start:.3f} {'_'.join(w.text.split())}"
            f"{'' if w.confidence is None else f' {w.confidence:.3f}'}\n"
            for w in words
        )
    if kind == "TextGrid":
        return _textgrid(seconds, words)
    if kind in ("srt", "vtt"):
        return _subtitles(kind, segments)
    raise ValueError(f"transcripts are written as {', '.join(FORMATS)}, not as {kind!r}")


def _json(name: str, seconds: float, segments: Sequence[Segment]) -> str:
    """Numbers have four decimals; those that are not finite become null."""
    rows = [asdict(segment) for segment in segments]
    text = " ".join(segment.text for segment in segments if segment.text)
    table = {"file": name, "seconds": round(seconds, 3), "text": text, "segments": rows}
    return json.dumps(_rounded(table), ensure_ascii=False, indent=1) + "\n"


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value


def cues(segments: Sequence[Segment]) -> list[tuple[float, float, str]]:
    """(start, end, text) of each subtitle, start and end in seconds."""
    subtitles: list[tuple[float, float, str]] = []
    for segment in segments:
        if not segment.words and segment.text:
            subtitles.append((segment.start, segment.end, segment.text))
        words: list[Word] = []
        for word in segment.words:
            if words and (word.start - words[-1].end > PAUSE or not _fits([*words, word])):
                subtitles.append((words[0].start, words[-1].end, _wrapped(words)))
                words = []
            words.append(word)
        if words:
            subtitles.append((words[0].start, words[-1].end, _wrapped(words)))
    return subtitles


def _fits(words: Sequence[Word]) -> bool:
    return _wrapped(words).count("\n") < LINES


def _wrapped(words: Sequence[Word]) -> str:
    lines = [""]
    for word in words:
        longer = joined(lines[-1], word.text)
        if lines[-1] and len(longer) > LINE:
            lines.append(word.text)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def _subtitles(kind: str, segments: Sequence[Segment]) -> str:
    mark = "," if kind == "srt" else "."
    lines = [] if kind == "srt" else ["WEBVTT", ""]
    for number, (start, end, text) in enumerate(cues(segments), 1):
        lines += [str(number)] if kind == "srt" else []
        # An arrow would end the cue, and an angle bracket begin a tag.
        if kind == "vtt":
            text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        times = f"{_clock(start, mark)} --> {_clock(max(end, start + 0.001), mark)}"
        lines += [times, text.replace("-->", "->"), ""]
    return "\n".join(lines) + ("" if lines and lines[-1] == "" else "\n")


def _clock(seconds: float, mark: str) -> str:
    total = round(max(0.0, seconds) * 1000)
    hours, minutes, rest = total // 3_600_000, total // 60_000 % 60, total // 1000 % 60
    return f"{hours:02}:{minutes:02}:{rest:02}{mark}{total % 1000:03}"


def _praatio() -> ModuleType:
    try:
        from praatio import textgrid
    except ImportError as error:
        raise InputError(f"TextGrids need praatio; {install_line('speech')}") from error
    return textgrid


def _textgrid(seconds: float, words: Sequence[Word]) -> str:
    import tempfile

    praat = _praatio()
    entries, last = [], 0.0
    for word in words:
        # Praat needs intervals that neither overlap nor are empty.
        start = max(last, round(word.start, 4))
        end = max(start + 0.001, round(word.end, 4))
        entries.append((start, end, one_line(word.text)))
        last = end
    seconds = max(seconds, last, 0.001)
    grid = praat.Textgrid(0, seconds)
    grid.addTier(praat.IntervalTier("words", entries or [(0, seconds, "")], 0, seconds))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.TextGrid"
        grid.save(str(file), format="long_textgrid", includeBlankSpaces=True)
        return file.read_text(encoding="utf-8")


def read_textgrid(path: str | os.PathLike[str], tier: str | None = None) -> list[Word]:
    """The words of a TextGrid of Praat, in the long or short form.

    tier: the name of the interval tier; None: the first whose name contains "word", else the only
    one. Empty intervals are pauses.

    Raises `InputError`, one line, for a file that is missing or damaged, or has no such tier.
    """
    file = Path(path)
    if not file.is_file():
        raise fail(path, "there is no such file")
    if file.stat().st_size > FILE_CAP:
        raise fail(path, f"is larger than {FILE_CAP >> 20} MiB")
    praat = _praatio()
    try:
        grid = praat.openTextgrid(
            str(file),
            includeEmptyIntervals=False,
            reportingMode="silence",
            duplicateNamesMode="rename",
        )
    except Exception as error:  # damaged text raises errors of many kinds
        raise fail(path, f"cannot be read as a TextGrid ({reason(error, 120)})") from None
    names = [name for name in grid.tierNames if isinstance(grid.getTier(name), praat.IntervalTier)]
    if tier is not None and tier not in names:
        raise fail(path, f"has no interval tier {tier!r}; there are {', '.join(names) or 'none'}")
    wordy = [name for name in names if "word" in name.lower()]
    if tier is None and not wordy and len(names) != 1:
        raise fail(path, f"has no tier of words (its interval tiers: {', '.join(names) or 'none'})")
    chosen = tier or (wordy[0] if wordy else names[0])
    return [
        Word(one_line(entry.label), float(entry.start), float(entry.end))
        for entry in grid.getTier(chosen).entries
        if entry.label.strip()
    ]
