"""Tiny GGUF files, written field by field, and the values of blocks by a plain formula."""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

NUMBERS = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q4_K": 12}
NUMBERS |= {"Q5_K": 13, "Q6_K": 14, "BF16": 30}
SIZES = {"F32": (1, 4), "F16": (1, 2), "BF16": (1, 2), "Q4_0": (32, 18), "Q4_1": (32, 20)}
SIZES |= {"Q5_0": (32, 22), "Q5_1": (32, 24), "Q8_0": (32, 34), "Q4_K": (256, 144)}
SIZES |= {"Q5_K": (256, 176), "Q6_K": (256, 210)}
# The places of the float16 numbers in a block.
HALVES = {"F16": (0,), "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,)}
HALVES |= {"Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}
ALIGNMENT = 32


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def fact(value: object) -> bytes:
    """Kind and value, as a writer would choose them."""
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value) if value >= 0 else struct.pack("<Iq", 11, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + text(value)
    assert isinstance(value, list)
    entries = [fact(item) for item in value]
    kind = entries[0][:4] if entries else struct.pack("<I", 8)
    return (
        struct.pack("<I", 9)
        + kind
        + struct.pack("<Q", len(value))
        + b"".join(entry[4:] for entry in entries)
    )


def gguf_bytes(
    facts: Mapping[str, object],
    tensors: Mapping[str, tuple[Sequence[int], str, bytes]],
    *,
    version: int = 3,
) -> bytes:
    """tensors: name -> shape with rows first, kind, bytes."""
    beginning = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(facts))
    beginning += b"".join(text(name) + fact(value) for name, value in facts.items())
    content = b""
    for name, (shape, kind, stored) in tensors.items():
        beginning += text(name) + struct.pack("<I", len(shape))
        beginning += struct.pack(f"<{len(shape)}Q", *reversed(shape))
        beginning += struct.pack("<IQ", NUMBERS[kind], len(content))
        content += stored + bytes(-len(stored) % ALIGNMENT)
    return beginning + bytes(-len(beginning) % ALIGNMENT) + content


def floats(values: np.ndarray) -> tuple[Sequence[int], str, bytes]:
    """A tensor as F32."""
    return values.shape, "F32", values.astype("<f4").tobytes()


def random_blocks(kind: str, count: int, seed: int = 0) -> bytes:
    """Blocks of random bytes whose scales are finite."""
    generator = np.random.default_rng(seed)
    blocks = generator.integers(0, 256, (count, SIZES[kind][1]), dtype=np.uint8)
    for place in HALVES.get(kind, ()):
        scales = generator.normal(0, 1, count).astype("<f2")
        blocks[:, place : place + 2] = scales.view(np.uint8).reshape(count, 2)
    if kind == "F32":
        return generator.normal(0, 1, count).astype("<f4").tobytes()
    if kind == "BF16":
        return (
            (generator.normal(0, 1, count).astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
        )
    return blocks.tobytes()


def _half(block: bytes, place: int) -> np.float32:
    return np.float32(struct.unpack_from("<e", block, place)[0])


def _six_bits(block: bytes, j: int) -> tuple[int, int]:
    """Scale and minimum j of eight, as ggml's get_scale_min_k4 takes them out of twelve bytes."""
    q = block[4:16]
    if j < 4:
        return q[j] & 63, q[j + 4] & 63
    return (q[j + 4] & 15) | ((q[j - 4] >> 6) << 4), (q[j + 4] >> 4) | ((q[j] >> 6) << 4)


def plain_block(kind: str, block: bytes) -> list[np.float32]:
    """The weights of a block, one after the other."""
    one = np.float32
    if kind == "F32":
        return [one(struct.unpack("<f", block)[0])]
    if kind == "F16":
        return [_half(block, 0)]
    if kind == "BF16":
        return [one(struct.unpack("<f", b"\0\0" + block)[0])]
    scale = _half(block, HALVES[kind][0])
    if kind == "Q8_0":
        return [one(scale * one(number)) for number in struct.unpack("<32b", block[2:])]
    if kind in ("Q4_0", "Q4_1", "Q5_0", "Q5_1"):
        minimum = _half(block, 2) if kind.endswith("1") else None
        place = 4 if minimum is not None else 2
        bits = 0
        if kind.startswith("Q5"):
            bits = struct.unpack_from("<I", block, place)[0]
            place += 4
        values = []
        for j in range(32):
            byte = block[place + j % 16]
            number = (byte & 15 if j < 16 else byte >> 4) | (bits >> j & 1) << 4
            if minimum is None:
                values.append(one(scale * one(number - (16 if kind == "Q5_0" else 8))))
            else:
                values.append(one(one(scale * one(number)) + minimum))
        return values
    return _plain_super_block(kind, block, scale)


def _plain_super_block(kind: str, block: bytes, scale: np.float32) -> list[np.float32]:
    one, values = np.float32, []
    for k in range(256):
        if kind == "Q6_K":
            half, rest = divmod(k, 128)
            quarter, j = divmod(rest, 32)
            low = block[64 * half + 32 * (quarter % 2) + j]
            low = low & 15 if quarter < 2 else low >> 4
            high = block[128 + 32 * half + j] >> 2 * quarter & 3
            factor = struct.unpack_from("<b", block, 192 + k // 16)[0]
            values.append(one(one(scale * one(factor)) * one((low | high << 4) - 32)))
            continue
        group, j = divmod(k, 32)
        start = 16 if kind == "Q4_K" else 48
        byte = block[start + 32 * (group // 2) + j]
        number = byte & 15 if group % 2 == 0 else byte >> 4
        if kind == "Q5_K":
            number |= (block[16 + j] >> group & 1) << 4
        factor, offset = _six_bits(block, group)
        minimum = one(_half(block, 2) * one(offset))
        values.append(one(one(one(scale * one(factor)) * one(number)) - minimum))
    return values


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
