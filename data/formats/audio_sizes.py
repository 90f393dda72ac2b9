"""Whether a recording is as long as its header says: WAV, RF64, W64, AIFF, AU, CAF and Ogg.

libsndfile shortens a recording that was cut off to what is there, without a word. A header that was
written before the length was known (a stream) names no length; all that is there then counts.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

UNKNOWN_32, UNKNOWN_64 = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF
STREAM_SLACK = 0x100  # programs subtract the size of their header from the largest number
SOX_STREAM = 0x7FFFF000  # what SoX and eSpeak write into a pipe
SPARE = 64  # bytes: some recorders count their header as sound
MOST_CHUNKS = 10_000
OGG_TAIL = 1 << 17  # a page has at most 65,307 bytes
_W64_GUID_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")


def missing_sound(path: Path) -> tuple[int, int] | None:
    """The bytes of sound that a header names and those that are there, where some are missing.

    None for a recording that is whole, and for kinds of files whose header names no size.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(16)
        if head[:4] == b"OggS":
            return _ogg(file, size)
        sound = _sound_chunk(file, head, size)
    if sound is None:
        return None
    start, named = sound
    present = size - start
    return (named, max(0, present)) if named - present > SPARE else None


def _sound_chunk(file: BinaryIO, head: bytes, size: int) -> tuple[int, int] | None:
    """Where the sound starts and how many bytes it has by the header; None where it names none."""
    kind, form = head[:4], head[8:12]
    if kind in (b"RIFF", b"RIFX", b"RF64", b"BW64") and form == b"WAVE":
        return _wave(file, "big" if kind == b"RIFX" else "little", size)
    if kind == b"FORM" and form in (b"AIFF", b"AIFC"):
        return _first(_chunks(file, 12, 4, "big", 2, size), b"SSND")
    if kind == b".snd":
        start, named = (int.from_bytes(head[k : k + 4], "big") for k in (4, 8))
        return None if named >= UNKNOWN_32 - STREAM_SLACK else (start, named)
    if kind == b"caff":
        sound = _first(_chunks(file, 8, 8, "big", 1, size), b"data")
        unknown = sound is None or sound[1] >= UNKNOWN_64 - STREAM_SLACK
        return None if unknown else sound
    if kind == b"riff" and len(head) == 16:
        return _w64(file, size)
    return None


def _chunks(
    file: BinaryIO, start: int, width: int, order: str, even: int, size: int
) -> Iterator[tuple[bytes, int, int]]:
    """(name, where the contents start, their bytes) of chunk after chunk.

    width: bytes of a size; even: chunks start at multiples of it.
    """
    for _ in range(MOST_CHUNKS):
        if start + 4 + width > size:
            return
        file.seek(start)
        name = file.read(4)
        length = int.from_bytes(file.read(width), "big" if order == "big" else "little")
        start += 4 + width
        yield name, start, length
        start += -(-length // even) * even


def _first(chunks: Iterator[tuple[bytes, int, int]], name: bytes) -> tuple[int, int] | None:
    return next(((start, length) for chunk, start, length in chunks if chunk == name), None)


def _wave(file: BinaryIO, order: str, size: int) -> tuple[int, int] | None:
    """The chunk `data`; a large file names its size in the chunk ds64 before it."""
    large = None
    for name, start, length in _chunks(file, 12, 4, order, 2, size):
        if name == b"ds64":
            file.seek(start + 8)
            large = int.from_bytes(file.read(8), "little")
        if name == b"data":
            if length >= UNKNOWN_32 - STREAM_SLACK:
                length = large or 0
            streamed = length in (0, SOX_STREAM) or length >= UNKNOWN_64 - STREAM_SLACK
            return None if streamed else (start, length)
    return None


def _w64(file: BinaryIO, size: int) -> tuple[int, int] | None:
    """Sony's Wave64: chunks are named by 16 bytes, their sizes include the header of 24 bytes."""
    start = 40
    for _ in range(MOST_CHUNKS):
        if start + 24 > size:
            return None
        file.seek(start)
        name, length = file.read(16), int.from_bytes(file.read(8), "little")
        if name == b"data" + _W64_GUID_TAIL:
            streamed = length <= 24 or length >= UNKNOWN_64 - STREAM_SLACK
            return None if streamed else (start + 24, length - 24)
        start += max(24, -(-length // 8) * 8)
    return None


def _ogg(file: BinaryIO, size: int) -> tuple[int, int] | None:
    """The last page: it is whole, or the file ends within it."""
    begin = max(0, size - OGG_TAIL)
    file.seek(begin)
    tail = file.read()
    place = tail.rfind(b"OggS")
    if place < 0:
        return None
    page = tail[place:]
    segments = page[26] if len(page) > 26 else 0
    table = page[27 : 27 + segments]
    length = 27 + segments + sum(table)
    if len(page) > 26 and len(table) == segments and len(page) >= length:
        return None
    return begin + place + max(length, len(page) + 1), size


class UnsizedWave(io.RawIOBase):
    """A WAV whose sound has the size 0, as a stream that was never finished has, read as a file
    that names the size that is there.
    """

    def __init__(self, path: Path, place: int, count: int) -> None:
        self._file = path.open("rb")
        self._place, self._size = place, min(count, UNKNOWN_32).to_bytes(4, "little")

    @classmethod
    def of(cls, path: Path) -> UnsizedWave | None:
        """The file, where it is such a WAV; else None."""
        with path.open("rb") as file:
            head, size = file.read(12), path.stat().st_size
            if head[:4] != b"RIFF" or head[8:] != b"WAVE":
                return None
            sound = _first(_chunks(file, 12, 4, "little", 2, size), b"data")
        if sound is None or sound[1] or size - sound[0] <= SPARE:
            return None
        return cls(path, sound[0] - 4, size - sound[0])

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        start = self._file.tell()
        content = bytearray(self._file.read(size))
        for offset, byte in enumerate(self._size, self._place - start):
            if 0 <= offset < len(content):
                content[offset] = byte
        return bytes(content)

    def readinto(self, buffer: memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._file.close()
        super().close()
