"""Hostile files that several tests give to the program."""

import json
import os
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any


class Bomb:
    """Makes the folder `mark` if it is ever unpickled."""

    def __init__(self, mark: Path | str) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.mark,)


def _header(size: int, text: bytes = b"{}") -> bytes:
    return struct.pack("<Q", size) + text


def _tensor(**entry: Any) -> bytes:
    text = json.dumps({"a": entry}).encode().ljust(100)
    return _header(100, text)


def png_without_pixels(side: int, colour_type: int = 2) -> bytes:
    """A PNG whose header says `side` x `side` pixels and that holds none.

    colour_type: 0 grey, 2 red, green and blue.
    """

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, colour_type, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


# Content of a file that is given as safetensors. The pickle would make the folder "unpickled".
HEADERS = {
    "a header longer than the file": _header(10**9),
    "a header of 2^63": _header(2**63),
    "no JSON": _header(4, b"nope"),
    "not UTF-8": _header(4, b"\xff\xfe\xfd\xfc"),
    "an offset past the end": _tensor(dtype="F32", shape=[9], data_offsets=[0, 36]),
    "a shape that overflows": _tensor(dtype="F32", shape=[2**62, 2**62], data_offsets=[0, 4]),
    "a shape that is not its bytes": _tensor(dtype="F32", shape=[9], data_offsets=[0, 4])
    + b"\0" * 4,
    "an unknown kind of number": _tensor(dtype="F3", shape=[1], data_offsets=[0, 4]) + b"\0" * 4,
    "bytes between tensors": _tensor(dtype="F32", shape=[1], data_offsets=[4, 8]) + b"\0" * 8,
    "a deep header": _header(60_000, b"[" * 60_000),
    "three bytes": b"abc",
    "nothing": b"",
    "a pickle": pickle.dumps(Bomb("unpickled")),
}
