"""Packed tables (gzip, Zstandard, zip, a bare deflate stream): recognised by their first bytes and
unpacked within a cap.
"""

import gzip
import struct
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal, TypeAlias

from ...base.errors import fail, reason, shown

UNPACKED_CAP = 4 << 30  # bytes
PACKED_SUFFIXES = (".gz", ".zst", ".zip")
Packing: TypeAlias = Literal["plain", "gzip", "zstd", "zip", "deflate"]

_ZSTD = 0xFD2FB528
_ZSTD_BLOCK = 128 << 10  # bytes that a block unpacks to at most
_CHUNK = 1 << 20


def packing_of(head: bytes) -> Packing:
    """How a file is packed, by its first bytes (64 kB, or all of them)."""
    if head[:2] == b"\x1f\x8b":
        return "gzip"
    if head[:4] == _ZSTD.to_bytes(4, "little"):
        return "zstd"
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    if head[:1] == b"x" and len(head) > 2 and int.from_bytes(head[:2], "big") % 31 == 0:
        try:  # a text may begin like that, too ("x^2,y")
            zlib.decompressobj().decompress(head)
        except zlib.error:
            return "plain"
        return "deflate"
    return "plain"


def packing_problem(file: Path, packing: Packing) -> str | None:
    """What is wrong with a packed file, before a reader unpacks it into memory: damaged, empty or
    larger than UNPACKED_CAP. None where it is sound.
    """
    stat = file.stat()
    if packing == "gzip":
        return _gzip_problem(str(file), stat.st_mtime_ns, stat.st_size)
    if packing == "zstd":
        return _zstd_problem(str(file), stat.st_mtime_ns, stat.st_size)
    return None


def too_large(unpacked: str = "unpacks") -> str:
    """The words for what is larger than UNPACKED_CAP."""
    return f"{unpacked} to more than {UNPACKED_CAP / 2**30:g} GiB; unpack or split it yourself"


@lru_cache(maxsize=4096)
def _gzip_problem(file: str, _changed: int, _size: int) -> str | None:
    """Unpack once without storing anything."""
    total = 0
    try:
        with gzip.open(file, "rb") as opened:
            while chunk := opened.read(_CHUNK):
                total += len(chunk)
                if total > UNPACKED_CAP:
                    return too_large()
    except (OSError, EOFError, zlib.error) as error:
        return f"is damaged gzip ({reason(error)}); fetch or pack it again"
    return None if total else "is empty (0 bytes unpacked)"


@lru_cache(maxsize=4096)
def _zstd_problem(file: str, _changed: int, _size: int) -> str | None:
    """Walk over the frames and blocks of a Zstandard file, whose headers bound what they unpack to
    (RFC 8878); nothing is unpacked.
    """
    total = 0
    try:
        with open(file, "rb") as opened:
            while magic := opened.read(4):
                number = int.from_bytes(magic, "little")
                if number & 0xFFFFFFF0 == 0x184D2A50:  # a frame to be skipped
                    opened.seek(int.from_bytes(_exactly(opened, 4), "little"), 1)
                elif number == _ZSTD:
                    total += _zstd_frame(opened, UNPACKED_CAP - total)
                    if total > UNPACKED_CAP:
                        return too_large()
                else:
                    raise EOFError("it ends in something else")
            if opened.tell() > Path(file).stat().st_size:
                raise EOFError("it is cut off")
    except (OSError, EOFError) as error:
        return f"is damaged zst ({reason(error)}); fetch or pack it again"
    return None if total else "is empty (0 bytes unpacked)"


def _zstd_frame(file: BinaryIO, allowed: int) -> int:
    """How many bytes a frame unpacks to at most; reading stops where that is more than allowed."""
    (descriptor,) = _exactly(file, 1)
    single, sizes = descriptor >> 5 & 1, (0, 2, 4, 8)
    content = sizes[descriptor >> 6] or single
    _exactly(file, (0 if single else 1) + (0, 1, 2, 4)[descriptor & 3] + content)
    total, last = 0, False
    while not last and total <= allowed:
        (header,) = struct.unpack("<I", _exactly(file, 3) + b"\0")
        last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
        if kind == 3 or size > _ZSTD_BLOCK:
            raise EOFError("a block is of no known kind")
        total += _ZSTD_BLOCK if kind == 2 else size
        file.seek(1 if kind == 1 else size, 1)
    if last and descriptor >> 2 & 1:
        _exactly(file, 4)  # the checksum
    return total


def _exactly(file: BinaryIO, count: int) -> bytes:
    content = file.read(count)
    if len(content) < count:
        raise EOFError("it is cut off")
    return content


def zip_member(path: object, file: Path) -> str:
    """The name of the one table in a zip archive. Raises InputError for none, several, an archive
    with a password, one that is too large, or a damaged one.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = [info for info in archive.infolist() if not _no_table(info)]
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        cure = "fetch or pack it again"
        raise fail(path, f"is a damaged zip archive ({reason(error)}); {cure}") from error
    if len(members) != 1:
        names = ", ".join(shown(info.filename) for info in members[:40]) or "none"
        problem = f"holds {len(members)} files ({names}), where one table is read"
        raise fail(path, f"{problem}; unpack it and name the file")
    if members[0].flag_bits & 1:
        raise fail(path, "is a zip archive with a password; unpack it yourself")
    if members[0].file_size > UNPACKED_CAP:
        raise fail(path, too_large())
    return members[0].filename


def _no_table(info: zipfile.ZipInfo) -> bool:
    parts = PurePosixPath(info.filename).parts
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return info.is_dir() or hidden


def unpacked_zip(path: object, file: Path) -> bytes:
    """The bytes of the one table in a zip archive. Raises InputError as `zip_member`."""
    name = zip_member(path, file)
    try:
        with zipfile.ZipFile(file) as archive, archive.open(name) as opened:
            content = opened.read(UNPACKED_CAP + 1)
    except (OSError, EOFError, ValueError, zlib.error, RuntimeError, zipfile.BadZipFile) as error:
        cure = "fetch or pack it again"
        raise fail(path, f"is a damaged zip archive ({reason(error)}); {cure}") from error
    if len(content) > UNPACKED_CAP:
        raise fail(path, too_large())
    return content


def unpacked_deflate(path: object, file: Path) -> bytes:
    """The bytes of a bare deflate stream. Raises InputError where it is damaged or too large."""
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(file.read_bytes(), UNPACKED_CAP + 1)
    except (OSError, zlib.error) as error:
        raise fail(
            path, f"is a damaged deflate stream ({reason(error)}); write it again"
        ) from error
    if len(content) > UNPACKED_CAP:
        raise fail(path, too_large())
    if not stream.eof:
        raise fail(path, "is a deflate stream that is cut off; write it again")
    return content
