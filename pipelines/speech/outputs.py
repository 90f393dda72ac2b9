"""Predictions as the files of other programs, chosen by the ending of --output, and as lines for
the terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath

import polars as pl

from ...base.files import write_text
from ...data.speech.transcripts import Segment, Word, format_transcript
from .items import refuse_several


def segment_of(row: Mapping[str, object]) -> Segment:
    """The text and words of a row of a prediction as one segment."""
    cells = row["words"] if isinstance(row["words"], list) else []
    words = tuple(Word(c["word"], c["start"], c["end"], c["confidence"]) for c in cells)
    return Segment(0.0, seconds_of_row(row), str(row["text"] or ""), words)


def seconds_of_row(row: Mapping[str, object]) -> float:
    """Length of the recording; 0 for one that could not be read."""
    seconds = row["seconds"]
    return float(seconds) if isinstance(seconds, int | float) else 0.0


def write_one(kind: str, rows: pl.LazyFrame, path: Path) -> None:
    """Write the words of the only recording of a prediction as subtitles or a TextGrid.

    Raises `InputError` for more than one.
    """
    table = rows.collect()
    refuse_several(str(path), len(table))
    for row in table.iter_rows(named=True):
        text = format_transcript(kind, _name(row), seconds_of_row(row), [segment_of(row)])
        write_text(path, text)


def write_ctm(rows: pl.LazyFrame, path: Path) -> None:
    """Write a line for each word of all recordings: recording, channel, start, length, word,
    confidence.
    """
    write_text(path, "".join(_ctm_lines(rows.collect())))


def _ctm_lines(table: pl.DataFrame) -> Iterator[str]:
    for row in table.filter(pl.col("status") == "ok").iter_rows(named=True):
        text = format_transcript("ctm", _name(row), seconds_of_row(row), [segment_of(row)])
        channel = row.get("channel")
        for line in text.splitlines():
            name, _, rest = line.split(" ", 2)
            yield f"{name} {channel or 1} {rest}\n"


def write_txt(rows: pl.LazyFrame, path: Path) -> None:
    """Write the transcript of the only recording, or a line for each of several: its name, a tab
    and its transcript.
    """
    table = rows.filter(pl.col("status") == "ok").collect()
    texts = [" ".join(str(text).split()) for text in table["text"]]
    if len(table) > 1:
        texts = [f"{name}\t{text}" for name, text in zip(table["item"], texts, strict=True)]
    write_text(path, "".join(f"{text}\n" for text in texts))


def _name(row: Mapping[str, object]) -> str:
    """The name of a recording, without its channel."""
    name = PurePosixPath(str(row["item"])).name
    return name.removesuffix(f" channel {row.get('channel')}")


WRITERS: Mapping[str, Callable[[pl.LazyFrame, Path], None]] = {
    ".srt": partial(write_one, "srt"),
    ".vtt": partial(write_one, "vtt"),
    ".TextGrid": partial(write_one, "TextGrid"),
    ".textgrid": partial(write_one, "TextGrid"),
    ".ctm": write_ctm,
    ".txt": write_txt,
}
"""How the joined rows are written, by the ending of --output."""


def transcript_lines(rows: pl.DataFrame) -> list[str]:
    """The transcripts of a prediction, each with its channel and its remarks."""
    lines: list[str] = []
    for row in rows.iter_rows(named=True):
        head = f"channel {row['channel']}: " if row.get("channel") else ""
        lines.append(f"{head}{row['text'] or '(no words)'}")
        if row.get("remarks"):
            lines.append(f"{head}note: {row['remarks']}")
    return lines
