"""Depth maps and masks as pictures: the meaning of their numbers, in every kind of file.

Shapes: Y rows and X columns; a depth map is float32 (1, Y, X) in [0, 1] where 1 is the nearest
point of the scene; a mask is bool (Y, X), True for what is salient.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

import numpy as np

from ...base.errors import fail
from ..formats.pictures import decode_picture, resized, upright

if TYPE_CHECKING:
    from PIL.Image import Image

Near = Literal["bright", "dark"]
GREY = 24  # largest mean difference between the channels of a grey picture; JPEG changes them a bit
NOISE = 15  # largest value that JPEG makes of black


def read_depth(
    path: str | os.PathLike[str], near: Near = "bright", size: tuple[int, int] | None = None
) -> np.ndarray:
    """Read a depth map: float32 (1, Y, X), scaled so that the nearest point of the scene is 1 and
    the farthest 0.

    near: whether near things are bright (NJU2K, NLPR) or dark (millimetres of a sensor); size:
    (height, width) in pixels, bilinear; None keeps that of the file. Files have 8 or 16 bits or
    fractions; with more than 8 bits, 0 and values that are not finite are holes, which take the
    nearest measured value. A scene of constant depth is 0.5 everywhere.

    Raises `InputError` as `read_picture`, and for a coloured picture of depth.
    """
    values, holes = decode_picture(path, lambda opened: _depth_values(path, opened))
    if holes.any():
        values = _filled(values, holes)
    low, high = float(values.min()), float(values.max())
    values = (values - low) / (high - low) if high > low else np.full_like(values, 0.5)
    if near == "dark":
        values = 1 - values
    if size is not None and values.shape != tuple(size):
        values = resized(values, size)
    return np.array(values, np.float32)[None]


def _depth_values(path: object, opened: Image) -> tuple[np.ndarray, np.ndarray]:
    """float32 (Y, X), and where nothing was measured, bool (Y, X)."""
    if opened.mode == "F" or opened.mode.startswith("I"):
        picture = upright(opened.copy(), opened)
        values = np.asarray(picture).astype(np.float32)
        return values, ~np.isfinite(values) | (values == 0)
    if opened.mode in ("L", "1"):
        values = np.asarray(upright(opened.convert("L"), opened))
    else:
        pixels = np.asarray(upright(opened.convert("RGB"), opened))
        spread = float((pixels.max(2).astype(np.int16) - pixels.min(2)).mean())
        if spread > GREY:
            cure = "give the depth itself, in grey of 8 or 16 bits"
            raise fail(path, f"is a coloured picture of depth; {cure}")
        values = pixels.mean(2)
    return values.astype(np.float32), np.zeros(values.shape, bool)


def _filled(values: np.ndarray, holes: np.ndarray) -> np.ndarray:
    """Fill each hole with the value of the nearest measured pixel; 0 where there is none."""
    from scipy.ndimage import distance_transform_edt

    if holes.all():
        return np.zeros_like(values)
    nearest = distance_transform_edt(holes, return_distances=False, return_indices=True)
    assert isinstance(nearest, np.ndarray)
    return values[tuple(nearest)]


def read_mask(path: str | os.PathLike[str], size: tuple[int, int] | None = None) -> np.ndarray:
    """Read a mask: bool (Y, X).

    Grey above 128 is salient; a mask of 0 and 1 is taken as it is; in a picture with a coloured
    palette every entry but the first is salient. size: (height, width) in pixels; a pixel is
    salient if at least half of the area that it covers is.

    Raises `InputError` as `read_picture`, and for other values, such as numbers of classes.
    """
    mask = decode_picture(path, lambda opened: _mask_values(path, opened))
    if size is not None and mask.shape != tuple(size):
        return resized(mask.astype(np.float32), size) >= 0.5
    return mask


def _mask_values(path: object, opened: Image) -> np.ndarray:
    if opened.mode == "P":
        place = np.asarray(upright(opened.copy(), opened))
        colours = np.array(opened.getpalette("RGB") or [], dtype=np.int16).reshape(-1, 3)
        used = colours[[k for k in np.unique(place) if k < len(colours)]]
        if not (used.max(1) == used.min(1)).all():
            return place != 0
    if opened.mode.startswith("I") or opened.mode == "F":
        values = np.asarray(upright(opened.copy(), opened)).astype(np.float64)
        values = values / 257 if values.max(initial=0) > 255 else values
    elif "A" in opened.mode or "transparency" in opened.info:
        clear = np.asarray(upright(opened.convert("LA"), opened)).astype(np.float64)
        values = clear[..., 0] * clear[..., 1] / 255
    else:
        values = np.asarray(upright(opened.convert("L"), opened))
    most = float(values.max(initial=0))
    if most == 1:
        return values > 0
    if NOISE < most <= 128 or (0 < most <= NOISE and opened.format not in ("JPEG", "MPO")):
        values_are = f"holds no value above 128, but values up to {most:g}"
        raise fail(path, f"{values_are}; a mask is 0 and 255, or 0 and 1")
    return values > 128
