"""Pictures of 16 bits that Pillow reads but does not write."""

import struct
import zlib
from pathlib import Path

import numpy as np


def write_deep_png(path: Path, values: np.ndarray, key: tuple[int, ...] = ()) -> Path:
    """A PNG of 16 bits, of values (Y, X, 2 to 4): grey with alpha, colour, colour with alpha; key:
    the colour that is transparent.
    """
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    parts = {b"IHDR": head}
    if key:
        parts[b"tRNS"] = struct.pack(f">{len(key)}H", *key)
    parts |= {b"IDAT": zlib.compress(rows), b"IEND": b""}
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts.items()
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return path


def write_deep_tiff(
    path: Path, values: np.ndarray, *, white_is_zero: bool = False, planes: bool = False
) -> Path:
    """A TIFF of 16 bits, of values (Y, X) or (Y, X, 3); planes: one channel after the other."""
    height, width = values.shape[:2]
    channels = 1 if values.ndim == 2 else values.shape[2]
    photometric = 2 if channels == 3 else int(not white_is_zero)
    size = height * width * 2
    data = (values.transpose(2, 0, 1) if planes else values).astype("<u2").tobytes()
    strips = channels if planes else 1
    counts = [len(data) // strips] * strips
    # Behind the header of 8 bytes: the pixels, then the lists of three numbers, then the tags.
    lists = 8 + len(data)
    bits, offsets, sizes = lists, lists + 6, lists + 6 + 12
    listed = struct.pack("<3H", 16, 16, 16) + struct.pack("<3I", *(8 + k * size for k in range(3)))
    listed += struct.pack("<3I", *(counts * 3)[:3])
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, channels, 16 if channels == 1 else bits),
        (259, 3, 1, 1),
        (262, 3, 1, photometric),
        (273, 4, strips, 8 if strips == 1 else offsets),
        (277, 3, 1, channels),
        (278, 4, 1, height),
        (279, 4, strips, counts[0] if strips == 1 else sizes),
        (284, 3, 1, 2 if planes else 1),
    ]
    head = b"II*\0" + struct.pack("<I", lists + len(listed))
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    path.write_bytes(head + data + listed + struct.pack("<H", len(tags)) + entries + bytes(4))
    return path
