"""The values that a picture of 16 bits really uses: without burnt-in markers, and the bits they
need.

A marker (a letter, a ruler, a dead pixel) is written with the highest or lowest number that the
file can hold, far from the values of the picture. Stretching the picture to it would leave the
picture itself dark.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeGuard

import numpy as np

from ...base.account import note
from ...base.errors import fail

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # the TIFF tag and its value
MARKER_SHARE = 0.02  # most of the pixels that markers may cover
# How Pillow takes the upper byte of 16 bits in each order (B, L, N of the machine), and how the
# lower one.
_ORDERS = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_OTHER_BYTES = {
    f"{mode};16{order}": f"{mode};16{other}"
    for mode in ("RGB", "RGBA")
    for order, other in _ORDERS.items()
}
_GREY_AND_ALPHA = "LA;16B"  # of which the lower bytes cannot be had
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


def wide_values(path: object, opened: Image, turn: Callable[[Image], Image]) -> np.ndarray | None:
    """The numbers (Y, X, channels) of a picture of 16 or 32 bits; None for one of 8, and for one of
    16 bits in colour of which the upper 8, which Pillow reads, say all.

    opened: not yet decoded. turn: turns each channel upright. Where a TIFF says that white is zero,
    the numbers are turned round, as Pillow does with 8 bits, and the account says so. Raises
    InputError where the lower 8 bits are needed and Pillow drops them.
    """
    if opened.mode.startswith("I"):
        values = np.asarray(turn(opened.copy()))[..., None]
        tags = getattr(opened, "tag_v2", {})
        in_range = values.min() >= 0 and values.max() <= 65535
        if tags.get(_PHOTOMETRIC) != _WHITE_IS_ZERO or not in_range:
            return values
        note("assumed", "pictures of 16 bits in which white is zero, turned round", [path])
        top = 2 ** bits_for(value_range(values).high) - 1
        return (top - np.minimum(values, top)).astype(values.dtype)
    if not _stored_in_16_bits(opened):
        _refuse_lost_bits(path, opened)
        return None
    upper = np.stack([np.asarray(turn(channel)) for channel in opened.split()], -1)
    if _bits_by_upper(upper[..., :3]) == 16:
        return None
    with _lower_bytes(opened) as picture:
        lower = np.stack([np.asarray(turn(channel)) for channel in picture.split()], -1)
    return upper.astype(np.uint16) * 256 + lower


def _stored_in_16_bits(opened: Image) -> TypeGuard[ImageFile]:
    """Whether a picture in colour that was not yet decoded has 16 bits a channel."""
    tiles = getattr(opened, "tile", [])
    usual = opened.mode in ("RGB", "RGBA") and "transparency" not in opened.info
    return usual and bool(tiles) and all(_packing(tile.args) in _OTHER_BYTES for tile in tiles)


def _refuse_lost_bits(path: object, opened: Image) -> None:
    """Raise `InputError` for a picture of 16 bits beside its transparency whose values need the
    lower 8, which Pillow drops: it would be nearly black.
    """
    packings = {_packing(tile.args) for tile in getattr(opened, "tile", [])}
    if not packings & {_GREY_AND_ALPHA, *_OTHER_BYTES}:
        return
    upper = np.asarray(opened.copy())
    bits = _bits_by_upper(upper[..., : 1 if opened.mode == "LA" else 3])
    if bits < 16:
        problem = f"uses {bits} of its 16 bits, which cannot be read beside its transparency"
        raise fail(path, f"{problem}; save it as png without transparency")


def _bits_by_upper(upper: np.ndarray) -> int:
    """The fewest bits that hold values of 16 bits, by their upper 8, without burnt-in markers."""
    return bits_for(value_range(upper).high * 256)


def _packing(arguments: object) -> str:
    """How a decoder of Pillow takes pixels from the bytes of a file."""
    return str(arguments[0]) if isinstance(arguments, tuple) and arguments else str(arguments)


def _lower_bytes(opened: ImageFile) -> ImageFile:
    """The same file, of which the lower byte of each number is taken: as if the order of the two
    were the other.
    """
    picture = type(opened)(opened.filename)
    swapped = []
    for tile in picture.tile:
        other = _OTHER_BYTES[_packing(tile.args)]
        arguments = (other, *tile.args[1:]) if isinstance(tile.args, tuple) else other
        swapped.append(tile._replace(args=arguments))
    picture.tile = swapped
    return picture
