"""One scene from its files: colour, depth and mask on one grid.

Cameras and phones store a picture lying on its side and say in its EXIF how to turn it; depth maps
and masks made from the stored pixels say nothing. So the shapes of the three are compared before
anything is stretched to one size.

Shapes: Y rows and X columns.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypedDict

import numpy as np

from ...base.account import note
from ...base.errors import fail, shown
from ..formats.pictures import PictureHeader, as_array, decode_picture, read_header, to_rgb, upright
from .depths import AUTO, Near, depth_header, read_depth
from .masks import read_mask
from .scenes import RgbdSet

Turn: TypeAlias = Literal["own", "picture"]
INVERTED = 0.5  # share of scenes that are farther in the mask from which depth counts as inverted
_SLACK = 2  # pixels by which sides of one view may differ, after rounding to another size


@dataclass(frozen=True)
class Reading:
    """How the files of a scene are read.

    near: whether near things are bright or dark in the depth maps. invalid: the numbers that mean
    that nothing was measured (`depths.find_holes`). turn: where shapes do not tell, whether depth
    and mask are turned by their own EXIF orientation or by that of the picture. stretch: whether
    a depth map or mask of another shape is stretched to the picture.
    """

    near: Near = "bright"
    invalid: tuple[str, ...] = (AUTO,)
    turn: Turn = "own"
    stretch: bool = False


class SceneArrays(TypedDict):
    """A scene in memory, resized to (height, width) = *size."""

    image: np.ndarray  # uint8 (3, *size)
    depth: np.ndarray | None  # float32 (1, *size)
    shape: tuple[int, int]  # (height, width) of the upright picture, pixels


class Sample(SceneArrays):
    """A scene with its mask."""

    mask: np.ndarray | None  # bool (*size)


Path: TypeAlias = "str | os.PathLike[str]"


def read_scene(
    image: Path, depth: Path | None, size: tuple[int, int], reading: Reading | None = None
) -> SceneArrays:
    """Read a picture and its depth map, resized to `size` (height, width) in pixels.

    Raises `InputError` for a file that cannot be read, and for a depth map of another shape.
    """
    reading = reading or Reading()
    picture = decode_picture(image, lambda opened: upright(to_rgb(image, opened), opened))
    return {
        "image": as_array(picture, size),
        "depth": None if depth is None else read_scene_depth(image, depth, size, reading),
        "shape": (picture.height, picture.width),
    }


def read_scene_depth(
    image: Path, depth: Path, size: tuple[int, int] | None, reading: Reading
) -> np.ndarray:
    """The depth map of a picture, turned as the picture is; see `read_depth`."""
    turn = aligned_orientation(image, depth, "depth map", reading)
    return read_depth(depth, reading.near, size, invalid=reading.invalid, orientation=turn)


def read_scene_mask(
    image: Path, mask: Path, size: tuple[int, int] | None, reading: Reading
) -> np.ndarray:
    """The mask of a picture, turned as the picture is; see `read_mask`."""
    return read_mask(mask, size, orientation=aligned_orientation(image, mask, "mask", reading))


def read_sample(
    scenes: RgbdSet, row: int, size: tuple[int, int], reading: Reading | None = None
) -> Sample:
    """`read_scene` of a row, with its mask."""
    reading = reading or Reading()
    image, mask = scenes.images[row], scenes.masks[row]
    return {
        **read_scene(image, scenes.depths[row], size, reading),
        "mask": None if mask is None else read_scene_mask(image, mask, size, reading),
    }


def aligned_orientation(image: Path, partner: Path, noun: str, reading: Reading) -> int | None:
    """The EXIF orientation by which a depth map or a mask is turned to lie on its picture; None for
    its own.

    noun: what the partner is called. Raises `InputError` where the two do not show the same view.
    """
    first, second = read_header(image), depth_header(partner)
    as_own, as_picture = _fits(first.upright, second.upright), _fits(first.stored, second.stored)
    if not as_own and not as_picture:
        if reading.stretch:
            note("assumed", f"{noun}s of another shape than their picture are stretched", [partner])
            return None
        (height, width), (rows, columns) = first.upright, second.upright
        sizes = f"is {columns} x {rows} pixels and its picture {shown(image)} {width} x {height}"
        cure = "cut both to the same view, or say --stretch"
        raise fail(partner, f"this {noun} {sizes}: they do not show the same view; {cure}")
    if first.orientation == second.orientation:
        return None
    if as_own and as_picture:
        # A half turn or a square: nothing but the rest of the set can tell.
        how = "their picture" if reading.turn == "picture" else "their own EXIF"
        doubtful = f"{noun}s with another EXIF orientation than their picture, turned as {how} says"
        note("assumed", f"{doubtful}, since their shape does not tell (--orientation)", [partner])
        return first.orientation if reading.turn == "picture" else None
    if as_picture:
        saved = "that were saved from the stored pixels of their picture and are turned with it"
        note("assumed", f"{noun}s {saved}", [partner])
        return first.orientation
    return None


def usual_turn(scenes: RgbdSet) -> Turn:
    """How depth and masks are turned where their shapes do not tell: as in the scenes of the set
    whose shapes do, by their own orientation where none does. Files that cannot be read are passed
    over.
    """
    for row, image in enumerate(scenes.images):
        partners = [path for path in (scenes.depths[row], scenes.masks[row]) if path is not None]
        first = _header(image)
        for path in partners if first is not None and first.orientation > 1 else ():
            second = _header(path)
            if first is None or second is None or first.orientation == second.orientation:
                continue
            as_picture = _fits(first.stored, second.stored)
            if as_picture != _fits(first.upright, second.upright):
                return "picture" if as_picture else "own"
    return "own"


def _header(path: str) -> PictureHeader | None:
    try:
        return depth_header(path)
    except ValueError:
        return None


def _fits(first: tuple[int, int], second: tuple[int, int]) -> bool:
    """Whether two pictures (height, width) can be the same view at two sizes."""
    small, large = sorted((first, second))
    return abs(large[1] * small[0] / large[0] - small[1]) <= _SLACK


def share_of_grounds(masks: Iterable[np.ndarray]) -> float:
    """Share of masks that cover more than half of the picture and of its border, as the background
    does; 0 for no masks.
    """
    edges = [(mask, np.r_[mask[0], mask[-1], mask[:, 0], mask[:, -1]]) for mask in masks]
    return float(np.mean([min(m.mean(), e.mean()) > 0.5 for m, e in edges])) if edges else 0.0


def depth_polarity(depths: Iterable[np.ndarray], masks: Iterable[np.ndarray]) -> float:
    """Share of scenes whose depth is farther in the mask than outside; NaN where no scene has both.

    Salient things are mostly near: a share above `INVERTED` means that `near` is the wrong way
    round.
    """
    wrong = []
    for depth, mask in zip(depths, masks):
        if mask.any() and not mask.all():
            wrong.append(float(depth[0][mask].mean() < depth[0][~mask].mean()))
    return float(np.mean(wrong)) if wrong else float("nan")
