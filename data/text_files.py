"""Text files: those that hold a text each, and those that hold a text on each line."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..base.account import note
from ..base.errors import fail, reason
from .formats.encodings import HEAD_BYTES, note_encoding, survey, text_encoding
from .formats.tables import suffix_of

TEXT_CAP = 20 << 20  # characters of a single text; a longer one is a file by mistake
FILE_CAP = 64 << 20  # bytes of a text file


class LinePart(NamedTuple):
    """Lines of a file: the number of the first, from 0, how many there are, and the byte at which
    they begin.
    """

    start: int
    lines: int
    offset: int


def is_text_file(path: str | Path) -> bool:
    """Whether a file holds a text as a whole, not a table."""
    return suffix_of(Path(path)) == ".txt"


def read_text_file(path: str | Path) -> str:
    """A file as one text: UTF-8, or UTF-16 or Windows-1252, which is noted. Raises InputError for a
    file that cannot be read, is binary, in another encoding or too large.
    """
    try:
        if os.path.getsize(path) > FILE_CAP:
            raise fail(path, f"is larger than {FILE_CAP >> 20} MiB; cut it into parts")
        content = Path(path).read_bytes()
    except OSError as error:
        raise fail(path, f"cannot be read ({reason(error)})") from error
    if b"\0" not in content:
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError:
            pass
    encoding = text_encoding(path, content)
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        problem = f"is damaged {encoding.upper()} text ({reason(error)}); save it as UTF-8"
        raise fail(path, problem) from error
    note_encoding(path, encoding)
    return text.removeprefix("\ufeff")


def refuse_long_text(where: object, text: str) -> None:
    """Raise InputError for a text that is too long to be one."""
    if len(text) > TEXT_CAP:
        problem = f"has {len(text):,} characters, more than {TEXT_CAP:,}; cut it into parts"
        raise fail(where, problem)


def line_encoding(path: Path) -> str:
    """The encoding of a file with a text on each line: "utf-8", or "cp1252", which is noted. Raises
    InputError for a file in another one, and for one that cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        if b"\0" not in head and survey(path, "plain").utf8:
            return "utf-8"
        with path.open("rb") as file:
            content = file.read(FILE_CAP)
    except OSError as error:
        raise fail(path, f"cannot be read ({reason(error)})") from error
    encoding = text_encoding(path, content)
    if encoding != "cp1252":
        raise fail(path, "is UTF-16, not UTF-8; save it as UTF-8")
    note_encoding(path, encoding)
    return encoding


def line_parts(path: Path, most: int) -> Iterator[LinePart]:
    """The lines of a file in parts of `most`, the last of which may be smaller. Raises InputError
    for a file whose lines end in another way, which would be a single text.
    """
    part, offset = LinePart(0, 0, 0), 0
    try:
        with path.open("rb") as file:
            for line in file:
                if part.lines == most:
                    yield part
                    part = LinePart(part.start + most, 0, offset)
                if not offset and b"\r" in line.rstrip(b"\r\n"):
                    raise fail(path, "has lines that end with CR alone; save it with LF or CR LF")
                part = part._replace(lines=part.lines + 1)
                offset += len(line)
    except OSError as error:
        raise fail(path, f"cannot be read ({reason(error)})") from error
    if part.lines:
        yield part


def read_lines(path: Path, part: LinePart, encoding: str) -> list[str]:
    """The lines of a part, without their ends; empty ones as well."""
    lines = []
    try:
        with path.open("rb") as file:
            file.seek(part.offset)
            for number in range(part.start, part.start + part.lines):
                line = file.readline()
                if not number:
                    line = line.removeprefix(codecs.BOM_UTF8)
                lines.append(line.rstrip(b"\r\n").decode(encoding, errors="replace"))
                refuse_long_text(f"{path}, line {number + 1}", lines[-1])
        if marked := sum("\r" in line for line in lines):
            note("values", "lines of text with CR within, each read as one text", count=marked)
    except OSError as error:
        raise fail(path, f"cannot be read ({reason(error)})") from error
    return lines
