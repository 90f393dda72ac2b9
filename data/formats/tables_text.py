"""How a table of text is written: its encoding, what stands between cells, where it begins.

All of it is recognised from the first lines (quotes are respected), the encoding from all bytes.
"""

import codecs
import gzip
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import polars as pl

from ...base.errors import fail, reason
from .encodings import END_BYTES, HEAD_BYTES, survey, text_encoding
from .tables_numbers import MISSING_WORDS, is_spelt_number
from .tables_packed import UNPACKED_CAP, packing_of, too_large, unpacked_deflate, unpacked_zip

SEPARATORS = (",", ";", "\t", "|", "::")
COLUMN_CAP = 100_000
_SNIFFED = 200  # lines
_QUOTED = re.compile(r'(?:(?<=[,;\t|:\r\n])|\A)"(?:[^"]|"")*"(?=[,;\t|:\r\n]|\Z)')


@dataclass(frozen=True)
class TextForm:
    """How a text is written.

    separator  between cells
    skipped    lines before the header (blank ones, `sep=;`, comments)
    comments   how many of them are comments
    line_end   "\\n" or "\\r"
    names      of the columns: cells of the first line, "" where one is empty; "0", "1", ... where
               there is no header
    header     whether the first line holds names
    body_at    lines before the first row where the header has fewer cells than the rows, else None
    """

    separator: str
    skipped: int
    comments: int
    line_end: str
    names: tuple[str, ...]
    header: bool
    body_at: int | None = None


def ends_blank(end: bytes, separator: str) -> bool:
    """Whether the last line of a text is blank, or holds nothing but separators."""
    lines = end.removesuffix(b"\n").removesuffix(b"\r").replace(b"\r", b"\n").split(b"\n")
    return not lines[-1].strip(separator.encode() + b" \t")


@dataclass(frozen=True)
class TextSource:
    """Where polars finds the text of a table.

    source    the file, or bytes that had to be unpacked or decoded
    head      the first bytes of the text (HEAD_BYTES at most), UTF-8
    encoding  of the file
    end       the last bytes of the text; None where only polars can tell
    marked    whether the file begins with the byte order mark of UTF-8
    """

    source: Path | bytes
    head: bytes
    encoding: str
    end: bytes | None
    marked: bool = False


def open_text(path: object, file: Path) -> TextSource:
    """The text of a file that is plain or packed, as UTF-8. Raises InputError where it is damaged,
    too large or in an unknown encoding.
    """
    with file.open("rb") as opened:
        head = opened.read(HEAD_BYTES)
    packing = packing_of(head[: 64 << 10])
    if packing == "zstd":
        return TextSource(file, _zstd_head(path, file), "utf-8", None)
    if packing in ("zip", "deflate"):
        unpack = unpacked_zip if packing == "zip" else unpacked_deflate
        return _decoded(path, unpack(path, file))
    if packing == "gzip":
        with gzip.open(file, "rb") as opened:
            head = opened.read(HEAD_BYTES)
    surveyed = survey(file, packing)
    if b"\0" in head or head[:2] in (b"\xff\xfe", b"\xfe\xff") or not surveyed.utf8:
        with gzip.open(file, "rb") if packing == "gzip" else file.open("rb") as opened:
            content = opened.read(UNPACKED_CAP + 1)
        if len(content) > UNPACKED_CAP:
            raise fail(path, f"is not UTF-8 text and {too_large('unpacks')}; save it as UTF-8")
        return _decoded(path, content)
    if head[:1] == b"x" and packing == "plain" and int.from_bytes(head[:2], "big") % 31 == 0:
        # Text that polars would take for a deflate stream: a byte order mark says what it is.
        return TextSource(codecs.BOM_UTF8 + file.read_bytes(), head, "utf-8", surveyed.end)
    marked = head.startswith(codecs.BOM_UTF8)
    return TextSource(file, head.removeprefix(codecs.BOM_UTF8), "utf-8", surveyed.end, marked)


def all_bytes(path: object, file: Path) -> bytes:
    """The text of a plain or gzip file, for a reader that needs it changed. Raises InputError for
    one that is too large, or packed in another way.
    """
    with file.open("rb") as opened:
        packing = packing_of(opened.read(4))
    if packing == "zstd":
        raise fail(path, "has to be changed to be read, and is packed as .zst; unpack it")
    with gzip.open(file, "rb") if packing == "gzip" else file.open("rb") as opened:
        content = opened.read(UNPACKED_CAP + 1)
    if len(content) > UNPACKED_CAP:
        raise fail(path, f"has to be changed to be read, and {too_large('unpacks')}")
    return content


def _decoded(path: object, content: bytes) -> TextSource:
    try:
        if b"\0" in content[:HEAD_BYTES]:
            raise UnicodeDecodeError("utf-8", b"\0", 0, 1, "a zero byte")
        content.decode("utf-8")
        encoding = "utf-8"
    except UnicodeDecodeError:
        encoding = text_encoding(path, content)
        try:
            content = content.decode(encoding).encode("utf-8")
        except UnicodeDecodeError as error:
            problem = f"is damaged {encoding.upper()} text ({reason(error)})"
            raise fail(path, f"{problem}; save it as UTF-8") from error
    content = content.removeprefix(codecs.BOM_UTF8)
    return TextSource(content, content[:HEAD_BYTES], encoding, content[-END_BYTES:])


def _zstd_head(path: object, file: Path) -> bytes:
    try:
        lines = pl.scan_lines(file, glob=False).head(_SNIFFED).collect()["line"]
    except (pl.exceptions.PolarsError, OSError) as error:
        problem = f"cannot be unpacked as UTF-8 text ({reason(error)})"
        raise fail(path, f"{problem}; unpack it, or pack it with gzip") from error
    head = "".join(f"{line}\n" for line in lines).encode()
    if b"\0" in head:
        raise fail(path, "is binary or UTF-16, or damaged; unpack it and save it as UTF-8 csv")
    return head


def sniff(path: object, head: bytes, usual: str, header: bool | None = None) -> TextForm:
    """How a text is written, from its first bytes (HEAD_BYTES, or all of it).

    usual: what stands between cells in files of this ending; taken where nothing else fits better.
    header: whether the first line holds names, None to see it.
    Raises InputError for a text without a first line, and for too many columns.
    """
    text = head.decode("utf-8", errors="replace")
    line_end = "\r" if "\r" in text and "\n" not in text else "\n"
    lines = text.split(line_end)
    if len(head) >= HEAD_BYTES and len(lines) > 2:
        lines.pop()  # it is cut off
    lines = [line.rstrip("\r") for line in lines[: _SNIFFED + 1]]
    skipped = _blank_lines(lines, 0)
    stated = re.fullmatch(r'"?sep=(.|::|\\t)"?', lines[skipped], re.I) if lines[skipped:] else None
    if stated:
        usual = "\t" if stated[1] == "\\t" else stated[1]
        skipped = _blank_lines(lines, skipped + 1)
    comments = _comment_lines(lines, skipped)
    skipped = _blank_lines(lines, skipped + comments)
    if skipped >= len(lines):
        raise fail(path, "holds no table; its first line is blank")
    records = _records(lines[skipped:], line_end)
    separator = usual if stated else _separator(records, usual)
    if lines[skipped].count(separator) >= COLUMN_CAP:
        problem = f"has more than {COLUMN_CAP:,} columns in its first line; is it transposed?"
        raise fail(path, problem)
    cells, height = _header_cells(path, lines[skipped:], separator)
    rows = [record.split(separator) for record in records[1:]]
    header = not _headless(cells, rows, separator) if header is None else header
    names = _names(cells) if header else [str(i) for i in range(len(cells))]
    body_at = None
    if side := _extra_cell(len(cells), rows) if header else None:
        names = ["", *names] if side == "first" else [*names, ""]
        body_at = skipped + height
    return TextForm(separator, skipped, comments, line_end, tuple(names), header, body_at)


def _blank_lines(lines: Sequence[str], at: int) -> int:
    """The first line from `at` on that is not blank."""
    while at < len(lines) and not lines[at].strip():
        at += 1
    return at


def _comment_lines(lines: Sequence[str], at: int) -> int:
    """How many lines from `at` on are comments (#). The last one may be the header: then the line
    below it begins with a number and has as many cells.
    """
    count = 0
    while at + count < len(lines) and lines[at + count].startswith("#"):
        count += 1
    if not count or at + count >= len(lines):
        return count
    header, below = lines[at + count - 1], lines[at + count]
    for mark in SEPARATORS:
        numbers = any(map(is_spelt_number, below.split(mark)))
        if mark in header and header.count(mark) == below.count(mark) and numbers:
            return count - 1
    return count


def _records(lines: Sequence[str], line_end: str) -> list[str]:
    """Rows as text, with a letter in place of each quoted cell that holds more than a number."""

    def plain(match: re.Match[str]) -> str:
        cell = match[0][1:-1]
        return cell if cell == "" or (is_spelt_number(cell) and "," not in cell) else "q"

    text = _QUOTED.sub(plain, line_end.join(lines))
    return [line for line in text.split(line_end) if line.strip()][:_SNIFFED]


def _separator(records: Sequence[str], usual: str) -> str:
    """What stands between the cells: it divides all rows into as many cells as the first one.

    Where several do, the one whose cells are numbers or free of the others.
    """
    fitting, dividing = [], []
    for mark in dict.fromkeys((usual, *SEPARATORS)):
        counts = [record.count(mark) for record in records]
        if counts[0]:
            dividing.append(mark)
            usable = [n for n in counts if n in (counts[0], counts[0] + 1)]
            if len(usable) == len(counts):
                fitting.append(mark)
    if "::" in fitting:
        return "::"
    if len(fitting) > 1:
        # The usual one is first among equals.
        return max(fitting, key=lambda mark: _clean_share(records, mark, fitting))
    if fitting:
        return fitting[0]
    if usual in dividing or not dividing:
        return usual
    return max(dividing, key=records[0].count)


def _clean_share(records: Sequence[str], mark: str, rivals: Sequence[str]) -> float:
    """The share of cells that are numbers, or hold none of the other marks."""
    cells = [cell.strip() for record in records[:50] for cell in record.split(mark)]
    others = [rival for rival in rivals if rival != mark]
    clean = [is_spelt_number(c) or not any(other in c for other in others) for c in cells]
    return sum(clean) / len(clean)


def _header_cells(path: object, lines: Sequence[str], separator: str) -> tuple[list[str], int]:
    """The cells of the first row, and how many lines it has (quoted cells may hold line breaks)."""
    height = 1
    while height < min(len(lines), 50) and "\n".join(lines[:height]).count('"') % 2:
        height += 1
    if "\n".join(lines[:height]).count('"') % 2:
        height = 1  # a quote that is never closed is a letter
    line = "\n".join(lines[:height])
    if len(separator) > 1:
        return [cell.strip() for cell in line.split(separator)], height
    try:
        cells = pl.read_csv(
            codecs.BOM_UTF8 + line.encode() + b"\n",  # so that it is never taken for packed
            has_header=False,
            separator=separator,
            infer_schema=False,
            truncate_ragged_lines=True,
        ).row(0)
    except pl.exceptions.PolarsError as error:
        raise fail(path, f"its first line cannot be read ({reason(error)})") from error
    return [" ".join((cell or "").split()) for cell in cells], height


def _names(cells: Sequence[str]) -> list[str]:
    """Names of columns; the mark of a comment before the first one is no part of it."""
    first = cells[0].lstrip("#").strip() if cells[0].startswith("#") else cells[0]
    return [first or cells[0], *cells[1:]]


def _headless(cells: Sequence[str], rows: Sequence[Sequence[str]], separator: str) -> bool:
    """Whether the first line holds values, not names: numbers that are no distinct integers, or
    integers that are as long as those below them (and do not just count).
    """
    plain = [c.replace(",", ".") if separator != "," else c for c in cells]
    if separator == "::":  # files of MovieLens, which have no header
        return any(map(_is_number, plain))
    if not all(map(_is_number, plain)):
        return False
    if len(set(cells)) < len(cells) or not all(c.lstrip("-").isdigit() for c in cells):
        return True
    integers = list(map(int, cells))
    if len(cells) < 2 or all(b - a == 1 for a, b in pairwise(integers)):
        return False
    columns = list(zip(*[row for row in rows[:100] if len(row) == len(cells)]))
    if not columns:
        return False
    for cell, column in zip(cells, columns, strict=True):
        below = [c.strip() for c in column if c.strip().lower() not in MISSING_WORDS]
        lengths = [len(c) for c in below if c.lstrip("-").isdigit()]
        if len(lengths) < len(below) or not below:
            return False
        if not min(lengths) - 1 <= len(cell) <= max(lengths) + 1:
            return False
    return True


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _extra_cell(width: int, rows: Sequence[Sequence[str]]) -> str | None:
    """Where the rows have one cell more than the header: "last" if it is always empty (a separator
    at the end of each row), "first" if it counts the rows (as R writes them), else None.
    """
    longer = [row for row in rows if len(row) == width + 1]
    if not longer or any(len(row) not in (width, width + 1) for row in rows):
        return None
    if all(not row[-1].strip() for row in longer):
        return "last"
    counts = [str(i) for i in range(1, len(rows) + 1)]
    return "first" if [row[0].strip() for row in rows] == counts else None
