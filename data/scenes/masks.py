"""Masks as pictures: the meaning of their numbers, in every kind of file.

Shapes: Y rows and X columns; a mask is bool (Y, X), True for what is salient.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from ...base.account import note
from ...base.errors import fail
from ..formats.grey_range import wide_values
from ..formats.pictures import decode_picture, resized, upright

if TYPE_CHECKING:
    from PIL.Image import Image

NOISE = 15  # largest value that JPEG makes of black
MOST_EDGES = (
    0.1  # share of pixels that are half transparent, at the edges of a shape that is cut out
)
MOST_BETWEEN = 0.25  # share of pixels of a mask that are neither black nor white


def read_mask(
    path: str | os.PathLike[str],
    size: tuple[int, int] | None = None,
    *,
    orientation: int | None = None,
) -> np.ndarray:
    """Read a mask: bool (Y, X).

    Grey above 128 is salient; a mask of 0 and 1 is taken as it is; in a picture with a coloured
    palette every entry but the first is salient; of a dark shape on transparent ground its opaque
    pixels are. size: (height, width) in pixels; a pixel is
    salient if at least half of the area that it covers is. orientation: the EXIF orientation to
    turn by, None for the file's own.

    Raises `InputError` as `read_picture`, and for other values, such as numbers of classes.
    """
    mask = decode_picture(path, lambda opened: _mask_values(path, opened, orientation))
    if size is not None and mask.shape != tuple(size):
        return resized(mask.astype(np.float32), size) >= 0.5
    return mask


def _mask_values(path: object, opened: Image, orientation: int | None) -> np.ndarray:
    if opened.mode == "P":
        place = np.asarray(upright(opened.copy(), opened, orientation))
        colours = np.array(opened.getpalette("RGB") or [], dtype=np.int16).reshape(-1, 3)
        used = colours[[k for k in np.unique(place) if k < len(colours)]]
        if not (used.max(1) == used.min(1)).all():
            return place != 0
    wide = wide_values(path, opened, lambda channel: upright(channel, opened, orientation))
    if opened.mode == "F":
        wide = np.asarray(upright(opened.copy(), opened, orientation))[..., None]
    if wide is not None:
        values = wide[..., :3].astype(np.float64).mean(2)
        values = values / 257 if values.max(initial=0) > 255 else values
        if wide.shape[2] == 4:
            values = _opaque(path, values, wide[..., 3] / 257)
    elif "A" in opened.mode or "transparency" in opened.info:
        clear = np.asarray(upright(opened.convert("LA"), opened, orientation)).astype(np.float64)
        values = _opaque(path, clear[..., 0], clear[..., 1])
    else:
        values = np.asarray(upright(opened.convert("L"), opened, orientation))
    most = float(values.max(initial=0))
    if most == 1:
        return values > 0
    if NOISE < most <= 128 or (0 < most <= NOISE and opened.format not in ("JPEG", "MPO")):
        values_are = f"holds no value above 128, but values up to {most:g}"
        raise fail(path, f"{values_are}; a mask is 0 and 255, or 0 and 1")
    return values > 128


def _opaque(path: object, grey: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """A mask of grey and opacity, both from 0 to 255: what is transparent is not salient.

    Where the opaque pixels have all one colour, a dark one, the opacity alone is the mask, and the
    account says so. Raises `InputError` for an object cut out of a photograph.
    """
    shape = alpha > 128
    edges = ((alpha > NOISE) & (alpha < 255 - NOISE)).mean()
    if edges <= MOST_EDGES and shape.any() and not shape.all():
        inside = grey[shape]
        between = ((inside > NOISE) & (inside < 255 - NOISE)).mean()
        if inside.max() - inside.min() <= NOISE:
            if inside.max() <= 128:
                note(
                    "values", "masks in one dark colour, of which the opaque part is taken", [path]
                )
            return alpha
        if between > MOST_BETWEEN:
            cure = "save its transparency as the mask, in 0 and 255"
            raise fail(path, f"is a picture that was cut out, whose colours are no mask; {cure}")
    return grey * alpha / 255
