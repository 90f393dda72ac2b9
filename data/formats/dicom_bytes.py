"""What the first bytes of a file say about it, and how large a deflated DICOM file is unpacked.

Nothing here needs pydicom: files are told apart while folders are listed.
"""

from __future__ import annotations

import os
import zlib
from typing import BinaryIO

from ...base.errors import fail, reason

_PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"GIF8", b"RIFF", b"BM")
_DEFLATED = b"1.2.840.10008.1.2.1.99"  # the transfer syntax
_LONG = (b"OB", b"OW", b"UN", b"UR", b"UC", b"UT")  # with a length of 4 bytes
_FIRST_ELEMENT = 0x0060  # a data set begins with one of the first elements of its group
_FIRST_LENGTH = 256  # bytes of the first value, which is short
_CHUNK = 1 << 20


def starts_as_picture(head: bytes) -> bool:
    """Whether a file that begins so is a PNG, JPEG, TIFF, GIF, WebP or BMP."""
    return head.startswith(_PICTURES)


def starts_as_dicom(head: bytes) -> bool:
    """Whether a file that begins so is DICOM, with a preamble or without. head: 132 bytes."""
    return head[128:132] == b"DICM" or _starts_with_element(head)


def is_bare(path: str | os.PathLike[str]) -> bool:
    """Whether a file is DICOM without a preamble. Raises OSError where it cannot be read."""
    with open(path, "rb") as opened:
        head = opened.read(132)
    return head[128:] != b"DICM" and _starts_with_element(head)


def _starts_with_element(head: bytes) -> bool:
    """Whether bytes begin with an early element of group 2 or 8, little endian."""
    if len(head) < 12:
        return False
    group, element = (int.from_bytes(head[k : k + 2], "little") for k in (0, 2))
    if group not in (0x0002, 0x0008) or element > _FIRST_ELEMENT:
        return False
    if head[4:6].isalpha() and head[4:6].isupper():
        return int.from_bytes(head[6:8], "little") <= _FIRST_LENGTH
    return 0 < int.from_bytes(head[4:8], "little") <= _FIRST_LENGTH


def check_deflated(path: str | os.PathLike[str], most: int) -> None:
    """Raise InputError for a deflated DICOM file that unpacks to more than `most` bytes or is
    damaged; nothing is stored. Other files pass. Raises OSError where it cannot be read.
    """
    with open(path, "rb") as opened:
        if opened.read(132)[128:] != b"DICM" or _skip_meta(opened) != _DEFLATED:
            return
        unpacker, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
        try:
            while not unpacker.eof:
                packed = unpacker.unconsumed_tail or opened.read(_CHUNK)
                if not packed:
                    return  # cut off: the reader says so
                total += len(unpacker.decompress(packed, _CHUNK))
                if total > most:
                    raise fail(path, f"unpacks to more than {most:,} bytes; export it again")
        except zlib.error as error:
            raise fail(path, f"is damaged ({reason(error)}); fetch or export it again") from None


def _skip_meta(opened: BinaryIO) -> bytes:
    """The transfer syntax of a file that stands after its preamble, and is then read to where its
    data set begins.
    """
    syntax = b""
    while True:
        start = opened.tell()
        head = opened.read(8)
        if len(head) < 8 or head[:2] != b"\x02\x00":
            opened.seek(start)
            return syntax
        length = int.from_bytes(opened.read(4) if head[4:6] in _LONG else head[6:8], "little")
        value = opened.read(min(length, _CHUNK))
        if head[2:4] == b"\x10\x00":
            syntax = value.rstrip(b"\0 ")
        opened.seek(start + (12 if head[4:6] in _LONG else 8) + length)
