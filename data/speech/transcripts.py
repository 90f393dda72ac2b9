"""Transcripts with word times, and the formats in which others read them.

Times are seconds from the start of the recording.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...base.errors import InputError, fail

FORMATS = ("json", "srt", "vtt", "tsv", "ctm", "TextGrid", "txt")
FILE_CAP = 64 << 20


@dataclass(frozen=True)
class Word:
    """A word as it is said, from start to end, seconds; confidence: 0 to 1, None where nobody
    says.
    """

    text: str
    start: float
    end: float
    confidence: float | None = None


@dataclass(frozen=True)
class Segment:
    """What is said in a stretch of a recording; log_probability: mean of a token; no_speech:
    probability that there is none."""

    start: float
    end: float
    text: str
    words: tuple[Word, ...] = ()
    log_probability: float | None = None
    no_speech: float | None = None


def written(kind: str, name: str, seconds: float, segments: Sequence[Segment]) -> str:
    """The transcript of a recording in one of FORMATS; name: of the recording, without folder;
    seconds: its length.

    Subtitles (srt, vtt) break at pauses and after at most two lines of 42 characters. Raises
    ValueError for another kind."""
    words = [word for segment in segments for word in segment.words]
    if kind == "json":
        rows = [asdict(segment) for segment in segments]
        whole = {
            "file": name,
            "seconds": round(seconds, 3),
            "text": _text(segments),
            "segments": rows,
        }
        return json.dumps(_rounded(whole), ensure_ascii=False, indent=1) + "\n"
    if kind == "txt":
        return "".join(segment.text + "\n" for segment in segments)
    if kind == "tsv":
        lines = [
            f"{round(word.start * 1000)}\t{round(word.end * 1000)}\t{_flat(word.text)}"
            for word in words
        ]
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


def _text(segments: Sequence[Segment]) -> str:
    return " ".join(segment.text for segment in segments if segment.text)


def _flat(text: str) -> str:
    return " ".join(text.split())


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value


LINE, LINES, PAUSE = 42, 2, 1.0  # characters, lines, seconds


def cues(segments: Sequence[Segment]) -> list[tuple[float, float, str]]:
    """(start, end, text) of subtitles."""
    found: list[tuple[float, float, str]] = []
    for segment in segments:
        own: list[Word] = []
        for word in [*segment.words, None]:
            if own and (
                word is None or word.start - own[-1].end > PAUSE or not _fits([*own, word])
            ):
                found.append((own[0].start, own[-1].end, _wrapped(own)))
                own = []
            if word is not None:
                own.append(word)
        if not segment.words and segment.text:
            found.append((segment.start, segment.end, segment.text))
    return found


def _fits(words: Sequence[Word]) -> bool:
    return _wrapped(words).count("\n") < LINES


def _wrapped(words: Sequence[Word]) -> str:
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + 1 + len(word.text) > LINE:
            lines.append(word.text)
        else:
            lines[-1] = f"{lines[-1]} {word.text}".strip()
    return "\n".join(lines)


def _subtitles(kind: str, segments: Sequence[Segment]) -> str:
    mark = "," if kind == "srt" else "."
    lines = [] if kind == "srt" else ["WEBVTT", ""]
    for number, (start, end, text) in enumerate(cues(segments), 1):
        lines += [str(number)] if kind == "srt" else []
        # An arrow would end the cue, an angle bracket begin a tag.
        shown = (
            text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
            if kind == "vtt"
            else text
        )
        lines += [
            f"{_clock(start, mark)} --> {_clock(max(end, start + 0.001), mark)}",
            shown.replace("-->", "->"),
            "",
        ]
    return "\n".join(lines) + ("" if lines and lines[-1] == "" else "\n")


def _clock(seconds: float, mark: str) -> str:
    total = round(max(0.0, seconds) * 1000)
    return f"{total // 3_600_000:02}:{total // 60_000 % 60:02}:{total // 1000 % 60:02}{mark}{total % 1000:03}"


def _praatio() -> Any:
    try:
        from praatio import textgrid
    except ImportError as error:
        raise InputError("TextGrids need praatio; pip install 'headwise[speech]'") from error
    return textgrid


def _textgrid(seconds: float, words: Sequence[Word]) -> str:
    import tempfile

    praat = _praatio()
    entries, last = [], 0.0
    for word in words:
        # Praat wants intervals that neither overlap nor are empty.
        start = max(last, round(word.start, 4))
        end = max(start + 0.001, round(word.end, 4))
        entries.append((start, end, _flat(word.text)))
        last = end
    seconds = max(seconds, last, 0.001)
    grid = praat.Textgrid(0, seconds)
    if entries:
        grid.addTier(praat.IntervalTier("words", entries, 0, seconds))
    else:
        grid.addTier(praat.IntervalTier("words", [(0, seconds, "")], 0, seconds))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.TextGrid"
        grid.save(str(file), format="long_textgrid", includeBlankSpaces=True)
        return file.read_text(encoding="utf-8")


def read_textgrid(path: str | os.PathLike[str], tier: str | None = None) -> list[Word]:
    """The words of a TextGrid of Praat, long or short: of the tier named, else of the first
    interval tier whose name holds "word", else of the only one. Empty intervals are pauses.

    Raises InputError, one line, for a file that is missing or damaged, or has no such tier.
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
    except Exception as error:  # of damaged text, of many kinds
        said = " ".join(str(error).split())[:120] or type(error).__name__
        raise fail(path, f"cannot be read as a TextGrid ({said})") from None
    names = [name for name in grid.tierNames if isinstance(grid.getTier(name), praat.IntervalTier)]
    if tier is not None and tier not in names:
        raise fail(path, f"has no interval tier {tier!r}; there are {', '.join(names) or 'none'}")
    wordy = [name for name in names if "word" in name.lower()]
    if tier is None and not wordy and len(names) != 1:
        raise fail(path, f"has no tier of words (its interval tiers: {', '.join(names) or 'none'})")
    chosen = tier or (wordy[0] if wordy else names[0])
    return [
        Word(_flat(one.label), float(one.start), float(one.end))
        for one in grid.getTier(chosen).entries
        if one.label.strip()
    ]
