"""The values that a grey picture really uses: without burnt-in markers, and the bits they need.

A marker (a letter, a ruler, a dead pixel) is written with the highest or lowest number that the
file can hold, far from the values of the picture. Stretching the picture to it would leave the
picture itself dark.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...base.account import note

MARKER_SHARE = 0.02  # most of the pixels that markers may cover
_BINS = 64
_EMPTY = 31  # empty bins in a row, half of the range, that separate markers from the picture
_DEPTHS = (8, 10, 12, 14, 16)  # bits of detectors


class ValueRange(NamedTuple):
    """Lowest and highest value of a picture, and whether values beyond them are markers."""

    low: float
    high: float
    marked: bool


def value_range(values: np.ndarray) -> ValueRange:
    """The lowest and highest value of a picture without its markers.

    values: numbers of any shape, at least one. Markers are at most `MARKER_SHARE` of the pixels,
    with no value between them and the picture over half of the range.
    """
    low, high = float(values.min()), float(values.max())
    if not high > low:
        return ValueRange(low, high, False)
    place = (values.astype(np.float64, copy=False) - low) * (_BINS / (high - low))
    counts = np.bincount(np.minimum(place.astype(np.int64), _BINS - 1).ravel(), minlength=_BINS)
    filled = np.flatnonzero(counts)
    gap = int(np.argmax(np.diff(filled)))
    first, last = int(filled[gap]), int(filled[gap + 1])  # the bins on both sides of the gap
    if last - first - 1 < _EMPTY:
        return ValueRange(low, high, False)
    middle = low + (first + last + 1) / 2 / _BINS * (high - low)
    most = MARKER_SHARE * values.size
    for inside, share in (
        (values[values < middle], counts[last:].sum()),
        (values[values > middle], counts[: first + 1].sum()),
    ):
        if share <= most and inside.min() < inside.max():
            return ValueRange(float(inside.min()), float(inside.max()), True)
    return ValueRange(low, high, False)


def unit_range(path: object, values: np.ndarray) -> np.ndarray:
    """Values of a picture of 16 bits, float32 from 0 to 1, by the bits that they need: detectors
    and thermal cameras write 8, 10, 12 or 14 bits into files of 16. Burnt-in markers do not count.

    path: the file, which is named in the account where it uses fewer bits.
    """
    _, high, marked = value_range(values)
    bits = bits_for(high)
    if bits == 16:
        return values / np.float32(65535)
    what = f"files of 16 bits whose values need only {bits}, scaled by {2**bits - 1}"
    note("assumed", what, [path])
    if marked:
        what = "files with burnt-in markers far outside of the other values, cut off"
        note("values", what, [path])
    return np.minimum(values / np.float32(2**bits - 1), 1)


def bits_for(highest: float) -> int:
    """The fewest bits of a detector (8, 10, 12, 14 or 16) that hold a value.

    >>> bits_for(4095), bits_for(4096)
    (12, 14)
    """
    return next((bits for bits in _DEPTHS if highest < 2**bits), _DEPTHS[-1])
