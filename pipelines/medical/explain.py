"""Where a model looked: the mask of each scale, Grad-CAM, and how well they fit boxes and lungs.

Shapes: B pictures, Y x X pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from ...base.account import note
from ...base.errors import InputError, fail
from ...data.columns import find_columns
from ...data.formats.pictures import list_pictures
from ...data.formats.tables import collect, number_column, scan_table
from ...data.scenes.scenes import read_mask
from ...data.xrays.files import by_place_or_stem, without_ending
from ...data.xrays.records import XraySet
from ...data.xrays.xrays import read_row
from ...models.vision.medusa import Attended, Medusa, scaled
from ..engine.command_line.terminal import say
from .options import MedicalOptions

ATTENTION, CAM = "attention", "Grad-CAM"

Box = tuple[float, float, float, float]
"""Left, top, right and bottom as shares of the picture's sides."""
Maps = Mapping[str, np.ndarray]
"""Maps (Y, X) of one picture by name."""


def maps_of(
    model: Medusa, attended: Attended, size: tuple[int, int], classes: Tensor
) -> dict[str, Tensor]:
    """Maps (B, Y, X) in [0, 1] by name: "scale 1" to "scale 4", their mean "attention", the map of
    the body "body", and Grad-CAM of one class per picture.

    size: Y and X; classes: int64 (B,). Grad-CAM (Selvaraju et al., ICCV 2017) of a
    classifier of means is relu(sum_c w_c A_c) up to its scale, with w the slopes of its logit; it
    is stretched to a maximum of 1."""
    maps = {f"scale {k}": _resized(mask, size) for k, mask in enumerate(attended.masks, 1)}
    if maps:
        maps[ATTENTION] = torch.stack(list(maps.values())).mean(0)
    if attended.lungs is not None:
        maps["body"] = _resized(attended.lungs.sigmoid(), size)
    weight = model.slopes(attended.features, classes).float()
    cam = torch.einsum("bc,bcyx->byx", weight, attended.features.float()).clamp_min(0)[:, None]
    maps[CAM] = _resized(cam / cam.amax((2, 3), keepdim=True).clamp_min(1e-12), size)
    return {name: values.float().cpu() for name, values in maps.items()}


def maps_of_picture(maps: Mapping[str, Tensor], place: int) -> dict[str, np.ndarray]:
    """The maps of one picture of a batch, (Y, X) by name."""
    return {name: values[place].numpy() for name, values in maps.items()}


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    return scaled(x.float(), size)[:, 0]


def read_lungs(xrays: XraySet, folder: str) -> dict[int, str]:
    """The lung mask of each row that has one.

    A mask has the path of the picture up to the ending, or its name alone where that is unique in
    both folders. Raises InputError if there is no such folder or no mask in it belongs to a
    picture.
    """
    if not Path(folder).is_dir():
        raise fail(folder, "is no folder of lung masks")
    files = {name: file for file, name in list_pictures(folder)}
    masks: dict[int, str] = {}
    for name, row in _rows_by_name(xrays, files).items():
        masks.setdefault(row, files[name])
    if not masks:
        raise fail(folder, "holds no mask of the name of a picture")
    return masks


def _rows_by_name(xrays: XraySet, names: Iterable[str | None]) -> dict[str, int]:
    """The row of the picture that each name means: that of its path up to the ending, or else of
    the last part alone. Names that several pictures or several names share mean none.
    """
    rows = {name: row for row, name in enumerate(xrays.names)}
    pictures = by_place_or_stem(xrays.names)
    listed = list(dict.fromkeys(name for name in names if name))
    by_name: dict[str, int] = {}
    for name in listed:
        picture = pictures.get(without_ending(name))
        if picture is not None:
            by_name[name] = rows[picture]
    unmatched = [name for name in listed if name not in by_name]
    taken = set(by_name.values())
    for stem, name in by_place_or_stem(unmatched).items():
        picture = pictures.get(stem)
        if picture is not None and rows[picture] not in taken:
            by_name[name] = rows[picture]
    return by_name


def read_boxes(
    xrays: XraySet,
    table: str,
    frame: tuple[int, int] | None,
    sides: Callable[[int], tuple[int, int]] | None = None,
) -> dict[int, list[Box]]:
    """The boxes of each row that has any.

    table: columns image, x, y, w (width), h (height), or those of NIH's list; in pixels, or from 0
    to 1 as shares of the picture's sides. frame: (width, height) of the pictures in which the boxes
    were drawn; by default that of the picture's file. sides: gives height and width of the picture
    of a row; by default it is read. Raises InputError for columns that are missing or cells that
    are no number.
    """
    names, columns = _read_box_table(table)
    row_of = _rows_by_name(xrays, names)
    sides = sides or (lambda row: read_row(xrays, row).shape[:2])
    x, y, w, h = columns
    boxed = [k for k in range(len(names)) if np.isfinite([x[k], y[k], w[k], h[k]]).all()]
    if len(boxed) < len(names):
        note("left out", f"rows of {table} without a box", count=len(names) - len(boxed))
    extents = [max(x[k] + w[k], y[k] + h[k]) for k in boxed]
    shares = frame is None and bool(extents) and max(extents) <= 1
    if shares:
        note("assumed", f"boxes of {table} are from 0 to 1, as shares of the sides")
    boxes: dict[int, list[Box]] = {}
    frames: dict[int, tuple[int, int]] = {}  # a picture is asked once, however many boxes it has
    for k in boxed:
        row = row_of.get(names[k] or "")
        if row is None:
            continue
        if row not in frames:
            height, width = (1, 1) if shares else sides(row) if frame is None else frame[::-1]
            frames[row] = width, height
        width, height = frames[row]
        box = (x[k] / width, y[k] / height, (x[k] + w[k]) / width, (y[k] + h[k]) / height)
        boxes.setdefault(row, []).append(box)
    if not boxes:
        raise fail(table, "holds no box of a picture of the data")
    return boxes


def _read_box_table(table: str) -> tuple[list[str | None], list[np.ndarray]]:
    """Names of pictures, and the four columns x, y, w, h."""
    lazy, columns = scan_table(table)
    short = {name.replace("Bbox [", "").rstrip("]").strip().lower(): name for name in columns}
    for plain, letter in (("width", "w"), ("height", "h")):
        if plain in short:
            short.setdefault(letter, short[plain])
    known = find_columns(table, columns, ("image",), unused_noted=False)
    if "image" not in known or any(name not in short for name in "xywh"):
        raise fail(table, f"needs columns image, x, y, w, h; it has {', '.join(columns)}")
    cells = [pl.col(known["image"]).cast(pl.String).alias("image")]
    cells += [pl.col(short[name]).alias(name) for name in "xywh"]
    frame = collect(table, lazy.select(cells))
    sides = []
    for name in "xywh":
        values, bad = number_column(table, frame[name], short[name])
        if bad.any():
            row = int(np.flatnonzero(bad)[0]) + 1
            raise fail(f"{table}: column {short[name]!r}, row {row}", "is no number")
        sides.append(values)
    return frame["image"].to_list(), sides


def pointing(values: np.ndarray, boxes: Sequence[Box]) -> bool:
    """Whether the highest place of a map (Y, X) lies in a box (pointing game, Zhang et al., IJCV
    2018).
    """
    y, x = np.unravel_index(int(values.argmax()), values.shape)
    v, u = (y + 0.5) / values.shape[0], (x + 0.5) / values.shape[1]
    return any(x0 <= u <= x1 and y0 <= v <= y1 for x0, y0, x1, y1 in boxes)


def share_inside(values: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Share of a map (Y, X) that lies in a mask, and the share of the picture that the mask covers,
    which a uniform map would have. NaN for a map of zeros.
    """
    total = float(values.sum())
    return float(values[mask].sum()) / total if total > 0 else float("nan"), float(mask.mean())


def measure(
    xrays: XraySet,
    maps: Mapping[int, Maps],
    options: MedicalOptions,
    sides: Callable[[int], tuple[int, int]],
) -> dict[str, dict[str, float]]:
    """How the attention and Grad-CAM fit the boxes and lungs that the options name, by map and
    figure; maps: by row; sides: height and width of the picture of a row.

    Boxes or lungs that have no picture of this data are left out with a line on the terminal, since
    other data than that of the training may have none.
    """
    figures: dict[str, dict[str, float]] = {}
    parts = (
        lambda: _in_boxes(xrays, maps, options, sides),
        lambda: _in_lungs(xrays, maps, options),
    )
    for part in parts:
        try:
            for name, values in part().items():
                figures.setdefault(name, {}).update(values)
        except InputError as error:
            say(f"left out: {error}")
    return figures


def _in_boxes(
    xrays: XraySet,
    maps: Mapping[int, Maps],
    options: MedicalOptions,
    sides: Callable[[int], tuple[int, int]],
) -> dict[str, dict[str, float]]:
    """Share of the pictures with boxes whose highest place lies in a box, and the share by
    chance.
    """
    if options.boxes is None:
        return {}
    boxes = read_boxes(xrays, options.boxes, options.box_frame, sides)
    rows = [row for row in maps if row in boxes]
    hits: dict[str, list[bool]] = {}
    for row in rows:
        for name in {ATTENTION, CAM} & maps[row].keys():
            hits.setdefault(name, []).append(pointing(maps[row][name], boxes[row]))
    return {
        name: {
            "pointing": float(np.mean(values)),
            "boxed": float(len(values)),
            "pointing_chance": float(np.mean([_covered_share(boxes[row]) for row in rows])),
        }
        for name, values in sorted(hits.items(), reverse=True)
    }


def _in_lungs(
    xrays: XraySet, maps: Mapping[int, Maps], options: MedicalOptions
) -> dict[str, dict[str, float]]:
    """Mean share of a map that lies in the lungs, and that of a uniform map."""
    if options.lungs is None:
        return {}
    lungs = read_lungs(xrays, options.lungs)
    shares: dict[str, list[tuple[float, float]]] = {}
    for row in [row for row in maps if row in lungs]:
        height, width = maps[row][CAM].shape
        mask = read_mask(lungs[row], (height, width))
        for name in {ATTENTION, CAM} & maps[row].keys():
            shares.setdefault(name, []).append(share_inside(maps[row][name], mask))
    figures = {}
    for name, pairs in sorted(shares.items(), reverse=True):
        share, uniform = np.nanmean(np.array(pairs), 0)
        figures[name] = {
            "in_lungs": float(share),
            "lungs_even": float(uniform),
            "masked": float(len(pairs)),
        }
    return figures


def _covered_share(boxes: Sequence[Box]) -> float:
    """Share of a picture that boxes cover, on a grid of 100 x 100."""
    grid = np.zeros((100, 100), bool)
    for x0, y0, x1, y1 in boxes:
        rows = slice(max(0, round(100 * y0)), round(100 * y1))
        grid[rows, max(0, round(100 * x0)) : round(100 * x1)] = True
    return float(grid.mean())


def overlay(pixels: np.ndarray, maps: Maps, *, side: int = 160) -> np.ndarray:
    """A strip, uint8 (side, n side, 3): the picture, then each map but "attention" on top of it.

    pixels: (Y, X) in [0, 1].
    """
    from matplotlib import colormaps

    def resize(x: np.ndarray) -> np.ndarray:
        batch = torch.from_numpy(np.ascontiguousarray(x))[None, None].float()
        square = F.interpolate(batch, (side, side), mode="bilinear", align_corners=False)
        return square[0, 0].numpy()

    grey = resize(pixels)[..., None].repeat(3, 2)
    parts = [grey]
    for name, values in maps.items():
        if name != ATTENTION:
            parts.append(0.55 * grey + 0.45 * colormaps["turbo"](resize(values))[..., :3])
    return (255 * np.concatenate(parts, 1)).round().clip(0, 255).astype(np.uint8)
