"""The index files of a Debian archive (Packages, Translation-xx, InRelease): paragraphs of fields,
plain or packed. They may come from anywhere, so sizes are limited.
"""

from __future__ import annotations

import gzip
import lzma
import subprocess
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

from ....base.errors import InputError, fail, reason, shown

TOTAL_CAP = 1 << 29  # unpacked bytes of a file; the largest of Debian have a tenth of that
FIELD_CAP = 1 << 20  # bytes of a paragraph, and of a line
MEMORY_CAP = 1 << 28  # bytes that unpacking xz may take
CHUNK = 1 << 18
APT_HELPER = "/usr/lib/apt/apt-helper"
PACKED = (".gz", ".xz", ".lz4")


def read_fields(path: Path, names: Collection[str]) -> Iterator[dict[str, str]]:
    """The paragraphs of a file, of each the fields in `names`; those that begin with "Description"
    are always taken. Further lines of a field follow its first, each after a line end.

    Raises InputError for a file that is damaged, cut, no text, no index file, or too large.
    """
    wanted = {name.encode() for name in names}
    fields: dict[bytes, list[bytes]] = {}
    lines: list[bytes] | None = None
    size = number = 0
    for line in _lines(path):
        number += 1
        if not line:
            if fields:
                yield _decoded(path, number, fields)
            fields, lines, size = {}, None, 0
            continue
        if (size := size + len(line)) > FIELD_CAP:
            raise fail(f"{path}, line {number}", f"a paragraph of more than {FIELD_CAP:,} bytes")
        if line[:1] in b" \t":
            if lines is not None:
                lines.append(line)
            continue
        name, mark, value = line.partition(b":")
        if not mark:
            problem = f"{shown(line[:40].decode(errors='replace'))} is no field; is it a Packages"
            raise fail(f"{path}, line {number}", f"{problem} or Translation file?")
        lines = None
        if name in wanted or name.startswith(b"Description"):
            lines = fields[name] = [value.strip()]
    if fields:
        yield _decoded(path, number, fields)


def _decoded(path: Path, number: int, fields: dict[bytes, list[bytes]]) -> dict[str, str]:
    try:
        return {name.decode(): b"\n".join(lines).decode() for name, lines in fields.items()}
    except UnicodeDecodeError as error:
        raise fail(f"{path}, before line {number}", "is not UTF-8") from error


def _lines(path: Path) -> Iterator[bytes]:
    """Lines without their ends, in constant memory."""
    rest, total = b"", 0
    try:
        for chunk in _unpacked(path):
            if (total := total + len(chunk)) > TOTAL_CAP:
                raise fail(path, f"unpacks to more than {TOTAL_CAP >> 20} MiB")
            *lines, rest = (rest + chunk).replace(b"\r\n", b"\n").split(b"\n")
            if len(rest) > FIELD_CAP:
                raise fail(path, f"has a line of more than {FIELD_CAP:,} bytes")
            yield from lines
    except InputError:
        raise
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise fail(path, f"is damaged, cut or cannot be read ({reason(error)})") from error
    if rest:
        yield rest


def _unpacked(path: Path) -> Iterator[bytes]:
    """The content of a file, by its ending."""
    if path.suffix == ".lz4":
        yield from _by_apt(path)
    elif path.suffix == ".xz":
        yield from _xz(path)
    else:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk


def _xz(path: Path) -> Iterator[bytes]:
    """As `lzma.open`, which knows no limit of memory."""
    with path.open("rb") as file:
        unpacker, waiting = lzma.LZMADecompressor(lzma.FORMAT_XZ, MEMORY_CAP), b""
        while True:
            if unpacker.eof:
                waiting = unpacker.unused_data or file.read(CHUNK)
                if not waiting:
                    return
                unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, MEMORY_CAP)
            elif unpacker.needs_input:
                waiting = file.read(CHUNK)
                if not waiting:
                    raise EOFError("the end is missing")
            yield unpacker.decompress(waiting, CHUNK)
            waiting = b""


def _by_apt(path: Path) -> Iterator[bytes]:
    """An lz4 file, which Python cannot unpack."""
    if not path.is_file():
        raise FileNotFoundError(2, "No such file")
    if not Path(APT_HELPER).is_file():
        raise fail(path, "lz4 needs apt; unpack it first (lz4 -d), or take the .xz or .gz file")
    command = [APT_HELPER, "cat-file", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        while chunk := process.stdout.read(CHUNK):
            yield chunk
        if process.wait():
            raise EOFError("apt-helper cannot unpack it")
