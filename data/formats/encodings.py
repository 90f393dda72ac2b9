"""The encoding of text files, by all of their bytes."""

import codecs
import gzip
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ...base.account import note
from ...base.errors import fail
from .tables_packed import Packing

HEAD_BYTES = 4 << 20  # enough for a header of a hundred thousand names of forty letters
SURVEY_CAP = 1 << 30  # bytes of a plain file whose encoding is checked beforehand
END_BYTES = 4096  # bytes
_WESTERN = re.compile("[\x80-\xff\u0152\u0153\u0160\u0161\u0178\u017d\u017e]{3,}")
_MULTIBYTE = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
)


def text_encoding(path: object, content: bytes) -> str:
    """The encoding of a text that is not UTF-8. Raises InputError where it is not clear."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff") and content[:4] != b"\xff\xfe\0\0":
        return "utf-16"
    if guess := _utf16_without_mark(content[:4096]):
        return guess
    cure = "save it as UTF-8"
    if b"\0" in content[:HEAD_BYTES]:
        raise fail(path, f"is binary, not text; {cure} csv, or as parquet")
    multibyte = len(_MULTIBYTE.findall(content))
    others = sum(map(len, re.findall(rb"[\x80-\xff]+", _MULTIBYTE.sub(b"", content))))
    if multibyte >= others:
        raise fail(path, f"is neither UTF-8 nor cp1252 text (bytes of both); {cure}")
    try:
        text = content.decode("cp1252")
    except UnicodeDecodeError as error:
        raise fail(path, f"is neither UTF-8 nor cp1252 text; {cure}") from error
    # In western words letters with marks stand alone; in another alphabet they fill the words.
    high = len(re.findall("[\x80-\xff\u0152-\u017e]+", text))
    if 5 * len(_WESTERN.findall(text)) > high:
        raise fail(path, f"is text in an unknown encoding, neither UTF-8 nor cp1252; {cure}")
    return "cp1252"


def _utf16_without_mark(head: bytes) -> str | None:
    """UTF-16 by the zeros in every other byte of its first letters."""
    pairs = len(head) // 2
    if pairs < 4:
        return None
    low, high = head[0 : 2 * pairs : 2].count(0), head[1 : 2 * pairs : 2].count(0)
    if high > 0.6 * pairs and low == 0:
        return "utf-16-le"
    return "utf-16-be" if low > 0.6 * pairs and high == 0 else None


@dataclass(frozen=True)
class Survey:
    """What all bytes of a text say: whether they are UTF-8 (as far as SURVEY_CAP), and the last of
    them (None where they were not reached).
    """

    utf8: bool
    end: bytes | None


def survey(file: Path, packing: Packing) -> Survey:
    """Survey a plain or gzip file."""
    stat = file.stat()
    return _survey(str(file), packing, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=1024)
def _survey(file: str, packing: Packing, _changed: int, _size: int) -> Survey:
    decoder, total, end, utf8 = codecs.getincrementaldecoder("utf-8")(), 0, b"", True
    with gzip.open(file, "rb") if packing == "gzip" else open(file, "rb") as opened:
        while chunk := opened.read(1 << 20):
            total += len(chunk)
            if total > SURVEY_CAP and packing == "plain":
                opened.seek(-END_BYTES, 2)
                end = opened.read()
                break
            end = (end + chunk)[-END_BYTES:]
            if utf8 and total <= SURVEY_CAP:
                utf8 = _decodes(decoder, chunk)
        else:
            utf8 = utf8 and (total > SURVEY_CAP or _decodes(decoder, b"", final=True))
    return Survey(utf8, end)


def _decodes(decoder: codecs.IncrementalDecoder, chunk: bytes, final: bool = False) -> bool:
    try:
        decoder.decode(chunk, final)
    except UnicodeDecodeError:
        return False
    return True


def note_encoding(path: object, encoding: str) -> None:
    """Note an encoding that is not UTF-8 in the account."""
    if encoding != "utf-8":
        kind = "cp1252 (Windows)" if encoding == "cp1252" else "UTF-16"
        note("assumed", f"files in {kind}, not UTF-8", [path])
