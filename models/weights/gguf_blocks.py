"""Weights in the blocks of GGUF files, as float32.

A block holds 32 or 256 weights of a row: small integers, with one scale for all of them or one for
every 16 or 32. The layouts are those of ggml (github.com/ggml-org/ggml, ggml-common.h); all numbers
are little-endian. The operations are in the order of ggml's own, so that values are the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

_LOW, _FOUR = np.uint8(15), np.uint8(4)


class Kind(NamedTuple):
    """How a tensor is stored. name: as ggml calls it; weights, size: of a block, the size in bytes;
    unpack: blocks (n, size), uint8 -> values (n, weights), float32.
    """

    name: str
    weights: int
    size: int
    unpack: Callable[[Bytes], Floats]


def _halves(blocks: Bytes, start: int) -> Floats:
    """A float16 of each block, (n, 1)."""
    return blocks[:, start : start + 2].copy().view("<f2").astype(np.float32)


def _nibbles(packed: Bytes) -> Bytes:
    """Low halves of the bytes of a group (..., g), then the high ones: (..., 2 g)."""
    return np.concatenate([packed & _LOW, packed >> _FOUR], axis=-1)


def _fifth_bits(blocks: Bytes, start: int) -> Bytes:
    """The bits of four bytes of each block, lowest first, as the fifth bits of 32 numbers."""
    bits = np.unpackbits(blocks[:, start : start + 4], axis=1, bitorder="little")
    return bits << _FOUR


def _f32(blocks: Bytes) -> Floats:
    return blocks.copy().view("<f4").astype(np.float32)


def _f16(blocks: Bytes) -> Floats:
    return blocks.copy().view("<f2").astype(np.float32)


def _bf16(blocks: Bytes) -> Floats:
    return (blocks.copy().view("<u2").astype(np.uint32) << 16).view(np.float32)


def _q8_0(blocks: Bytes) -> Floats:
    return blocks[:, 2:].view(np.int8).astype(np.float32) * _halves(blocks, 0)


def _q4_0(blocks: Bytes) -> Floats:
    return (_nibbles(blocks[:, 2:]).astype(np.float32) - 8) * _halves(blocks, 0)


def _q4_1(blocks: Bytes) -> Floats:
    return _nibbles(blocks[:, 4:]).astype(np.float32) * _halves(blocks, 0) + _halves(blocks, 2)


def _q5_0(blocks: Bytes) -> Floats:
    values = _nibbles(blocks[:, 6:]) | _fifth_bits(blocks, 2)
    return (values.astype(np.float32) - 16) * _halves(blocks, 0)


def _q5_1(blocks: Bytes) -> Floats:
    values = _nibbles(blocks[:, 8:]) | _fifth_bits(blocks, 4)
    return values.astype(np.float32) * _halves(blocks, 0) + _halves(blocks, 2)


def _scales_and_minima(blocks: Bytes) -> tuple[Floats, Floats]:
    """Of each 32 weights of Q4_K and Q5_K, (n, 8, 1): twelve bytes hold them in six bits each."""
    low, middle, high = np.split(blocks[:, 4:16], 3, axis=1)
    scales = np.concatenate([low & 63, (high & 15) | (low >> 6 << 4)], axis=1)
    minima = np.concatenate([middle & 63, (high >> 4) | (middle >> 6 << 4)], axis=1)
    scale = _halves(blocks, 0) * scales.astype(np.float32)
    minimum = _halves(blocks, 2) * minima.astype(np.float32)
    return scale[:, :, None], minimum[:, :, None]


def _q4_k(blocks: Bytes) -> Floats:
    scale, minimum = _scales_and_minima(blocks)
    values = _nibbles(blocks[:, 16:].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    return (scale * values.astype(np.float32) - minimum).reshape(-1, 256)


def _q5_k(blocks: Bytes) -> Floats:
    scale, minimum = _scales_and_minima(blocks)
    values = _nibbles(blocks[:, 48:].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    # Bit k of the 32 bytes belongs to the k-th 32 weights.
    places = np.arange(8, dtype=np.uint8)[:, None]
    fifth = (blocks[:, 16:48][:, None] >> places & 1) << 4
    return (scale * (values | fifth).astype(np.float32) - minimum).reshape(-1, 256)


def _q6_k(blocks: Bytes) -> Floats:
    # Two halves of 128 weights: 64 bytes of low halves, 32 bytes with two further bits of four.
    low = _nibbles(blocks[:, :128].reshape(-1, 2, 64)).reshape(-1, 2, 4, 32)
    places = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    high = (blocks[:, 128:192].reshape(-1, 2, 1, 32) >> places & 3) << 4
    values = (low | high).astype(np.float32).reshape(-1, 16, 16) - 32
    scales = blocks[:, 192:208].view(np.int8).astype(np.float32) * _halves(blocks, 208)
    return (scales[:, :, None] * values).reshape(-1, 256)


KINDS = {
    0: Kind("F32", 1, 4, _f32),
    1: Kind("F16", 1, 2, _f16),
    2: Kind("Q4_0", 32, 18, _q4_0),
    3: Kind("Q4_1", 32, 20, _q4_1),
    6: Kind("Q5_0", 32, 22, _q5_0),
    7: Kind("Q5_1", 32, 24, _q5_1),
    8: Kind("Q8_0", 32, 34, _q8_0),
    12: Kind("Q4_K", 256, 144, _q4_k),
    13: Kind("Q5_K", 256, 176, _q5_k),
    14: Kind("Q6_K", 256, 210, _q6_k),
    30: Kind("BF16", 1, 2, _bf16),
}
"""By the number that a file has for it."""
