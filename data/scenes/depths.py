"""Depth maps: pictures and arrays of numbers, the numbers that mean "nothing was measured", and one
scale for all.

Shapes: Y rows and X columns; a depth map is float32 (1, Y, X) in [0, 1] where 1 is the nearest
point of the scene.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from ...base.account import note
from ...base.errors import InputError, fail
from ..formats.arrays import ARRAY_SUFFIXES, read_array, read_array_header
from ..formats.grey_range import wide_values
from ..formats.pictures import (
    PICTURE_PIXELS,
    PICTURE_SUFFIXES,
    PictureHeader,
    decode_picture,
    read_header,
    resized,
    upright,
)

if TYPE_CHECKING:
    from PIL.Image import Image

Near: TypeAlias = Literal["bright", "dark"]
DEPTH_SUFFIXES = (*PICTURE_SUFFIXES, *ARRAY_SUFFIXES)
AUTO, NONE = "auto", "none"
GREY = 24  # largest mean difference between the channels of a grey picture; JPEG changes them a bit
# Share of a type's range that no value lies in, between its end and the rest of the scene, from
# which the values at the end are taken for holes: depth itself has no such step at just that value.
GAP = 1 / 16
CODES = 4  # most negative numbers that mean "no value"; more are depths around a middle of 0
_ARRAY_NAMES = ("depth",)  # of the array that is meant, in an archive of several


def read_depth(
    path: str | os.PathLike[str],
    near: Near = "bright",
    size: tuple[int, int] | None = None,
    *,
    invalid: Sequence[str] = (AUTO,),
    orientation: int | None = None,
) -> np.ndarray:
    """Read a depth map: float32 (1, Y, X), scaled so that the nearest point of the scene is 1 and
    the farthest 0.

    near: whether near things are bright (NJU2K, NLPR) or dark (millimetres of a sensor); size:
    (height, width) in pixels, bilinear; None keeps that of the file. invalid: the numbers that mean
    that nothing was measured, see `find_holes`; such pixels take the nearest measured value, and
    the account says so. orientation: the EXIF orientation to turn by, None for the file's own.
    Files are pictures of 8 or 16 bits or fractions, or arrays (.npy, .npz). A scene of constant
    depth is 0.5 everywhere.

    Raises `InputError` as `read_picture`, and for a coloured picture of depth.
    """
    raw, narrow = _read_values(path, orientation)
    holes, numbers = find_holes(raw, near, invalid, narrow=narrow)
    for number in numbers:
        note("values", f"depth maps in which {number:g} means no value (--invalid)", [path])
    values = raw.astype(np.float32)
    lone = None if narrow or NONE in invalid else _lone_value(raw[~holes])
    if lone is not None:
        what = f"depth maps in which {lone:g}, far beyond all others, takes most of the range"
        note("values", f"{what} (--invalid auto {lone:g} leaves it out)", [path])
    if holes.any():
        values = _filled(values, holes)
    low, high = float(values.min()), float(values.max())
    values = (values - low) / (high - low) if high > low else np.full_like(values, 0.5)
    if near == "dark":
        values = 1 - values
    if size is not None and values.shape != tuple(size):
        values = resized(values, size)
    return np.array(values, np.float32)[None]


def depth_header(path: str | os.PathLike[str]) -> PictureHeader:
    """Rows, columns and EXIF orientation of a depth map; arrays are upright."""
    if not _is_array(path):
        return read_header(path)
    shape = read_array_header(path, PICTURE_PIXELS, _ARRAY_NAMES).shape
    return PictureHeader(*_plane(path, shape), 1)


def find_holes(
    values: np.ndarray, near: Near, invalid: Sequence[str] = (AUTO,), *, narrow: bool = False
) -> tuple[np.ndarray, list[float]]:
    """Where nothing was measured, bool (Y, X), and the numbers that say so.

    invalid: numbers, or "auto", or "none". narrow: whether the values are 8 bits. Values that are
    not finite are always holes. "auto": with more than 8 bits, 0 and the largest value of the type
    (also that of 16 bits), where nothing of the scene comes near it, and where dark is near, up to
    `CODES` negative numbers beside positive ones; with 8 bits, 0 where dark is near and nothing
    else comes near it, and 255 where all the rest lies together far from it, and does not begin at
    0.

    Raises `InputError` for a word that is no number.
    """
    holes = ~np.isfinite(values)
    for word in invalid:
        if word == AUTO:
            chosen = _narrow_holes(values, near) if narrow else _wide_holes(values, near)
        else:
            chosen = [] if word == NONE else [invalid_number(word)]
        for number in chosen:
            holes |= values == number
    numbers = np.unique(values[holes & np.isfinite(values)]).astype(np.float64)
    return holes, numbers.tolist()


def invalid_number(word: str) -> float:
    """A number of the option --invalid. Raises `InputError` for another word."""
    try:
        number = float(word)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise InputError(f"--invalid {word}: give numbers, {AUTO} or {NONE}")
    return number


def _wide_holes(values: np.ndarray, near: Near) -> list[float]:
    """0, the largest value of the type where nothing of the scene comes near it, and negative
    numbers where they can be no distances.
    """
    holes = [0.0]
    negative = np.unique(values[np.isfinite(values) & (values < 0)])
    if near == "dark" and len(negative) <= CODES and bool((values > 0).any()):
        holes += negative.tolist()
    limits = {65535.0}
    if values.dtype.kind == "f":
        limits.add(float(np.finfo(values.dtype).max))
    else:
        limits.add(float(np.iinfo(values.dtype).max))
    present = values[np.isfinite(values) & ~np.isin(values, holes)]
    top = float(present.max()) if present.size else 0.0
    rest = present[present < top]
    if top not in limits or not rest.size or top - float(rest.max()) <= GAP * top:
        return holes
    # 8 bits that were written as 16: their steps are 257, and 255 is the end of their own scale.
    return holes if top == 65535 and (present % 257 == 0).all() else [*holes, top]


def _lone_value(values: np.ndarray) -> float | None:
    """The largest or smallest number of a depth map, where no other lies in most of the range, it
    is of another size than all others, and less than half of the pixels have it: a code, perhaps.
    """
    if not values.size or values.min() == values.max():
        return None
    low, high = float(values.min()), float(values.max())
    below, above = float(values[values < high].max()), float(values[values > low].min())
    most = (high - low) / 2
    if high - below > most and high > 2 * abs(below):
        lone, rest = high, (low, below)
    elif above - low > most and (low < 0 or 10 * low < above):
        lone, rest = low, (above, high)
    else:
        return None
    return lone if rest[0] < rest[1] and (values == lone).mean() < 0.5 else None


def _narrow_holes(values: np.ndarray, near: Near) -> list[float]:
    """0 and 255 in 8 bits, where they are clearly holes."""
    holes = []
    rest = values[(values > 0) & (values < 255)]
    if not rest.size or rest.min() == rest.max():
        return holes
    low, high = int(rest.min()), int(rest.max())
    has_zero = bool((values == 0).any())
    if near == "dark" and has_zero and low > 256 * GAP:
        holes.append(0.0)
    alone = 255 - high > max(high - low, 256 * GAP)
    if alone and (not has_zero or holes) and bool((values == 255).any()):
        holes.append(255.0)
    return holes


def _is_array(path: str | os.PathLike[str]) -> bool:
    return Path(path).suffix.lower() in ARRAY_SUFFIXES


def _plane(path: object, shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of an array of depth."""
    sides = [side for side in shape if side != 1] if len(shape) != 2 else list(shape)
    if len(sides) != 2 or 0 in sides:
        raise fail(path, f"has the shape {shape}; a depth map has rows and columns")
    return sides[0], sides[1]


def _read_values(path: str | os.PathLike[str], orientation: int | None) -> tuple[np.ndarray, bool]:
    """The numbers of a depth map (Y, X) in the type of the file, and whether they are 8 bits."""
    if not _is_array(path):
        return decode_picture(path, lambda opened: _pixel_values(path, opened, orientation))
    values = read_array(path, PICTURE_PIXELS, _ARRAY_NAMES)
    values = values.reshape(_plane(path, values.shape))
    values = values.astype(np.uint8) if values.dtype == bool else values
    return values, values.dtype == np.uint8


def _pixel_values(path: object, opened: Image, orientation: int | None) -> tuple[np.ndarray, bool]:
    if opened.mode == "F":
        return np.asarray(upright(opened.copy(), opened, orientation)), False
    wide = wide_values(path, opened, lambda channel: upright(channel, opened, orientation))
    if wide is not None and wide.shape[2] == 1:
        return wide[..., 0], False
    if opened.mode in ("L", "1"):
        return np.asarray(upright(opened.convert("L"), opened, orientation)), True
    if wide is None:
        pixels = np.asarray(upright(opened.convert("RGB"), opened, orientation))
        most = GREY
    else:
        pixels, most = wide[..., :3], GREY / 255 * wide[..., :3].max()
    spread = float((pixels.max(2).astype(np.int32) - pixels.min(2)).mean())
    if spread > most:
        cure = "give the depth itself, in grey of 8 or 16 bits"
        raise fail(path, f"is a coloured picture of depth; {cure}")
    values = pixels.mean(2)
    return values.astype(np.float32), wide is None


def _filled(values: np.ndarray, holes: np.ndarray) -> np.ndarray:
    """Fill each hole with the value of the nearest measured pixel; 0 where there is none."""
    from scipy.ndimage import distance_transform_edt

    if holes.all():
        return np.zeros_like(values)
    nearest = distance_transform_edt(holes, return_distances=False, return_indices=True)
    assert isinstance(nearest, np.ndarray)
    return values[tuple(nearest)]
