"""Where a model looked: the mask of each scale, Grad-CAM, and how well they fit boxes and lungs.

Shapes: B pictures, Y x X pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...base.errors import InputError, fail
from ...data.formats.pictures import list_pictures
from ...data.formats.tables import collect, numbers, scan_table
from ...data.scenes.scenes import read_mask
from ...data.xrays.xrays import XraySet, read_xray
from ...models.vision.medusa import Attended, scaled
from ..engine.command_line.terminal import say

CAM = "Grad-CAM"


def maps_of(
    model: nn.Module, found: Attended, size: tuple[int, int], classes: Tensor
) -> dict[str, Tensor]:
    """Maps (B, Y, X) in [0, 1] by name: "scale 1" to "scale 4", their mean "attention", "body", its
    own map, and Grad-CAM of a class of each picture, int64 (B,).

    Grad-CAM (Selvaraju et al., ICCV 2017) of a linear classifier on means is relu(sum_c w_c A_c)
    but for its scale; it is stretched to a maximum of 1."""
    plain: Any = getattr(model, "module", model)
    drawn = {f"scale {k}": _at(mask, size) for k, mask in enumerate(found.masks, 1)}
    if drawn:
        drawn["attention"] = torch.stack(list(drawn.values())).mean(0)
    if found.lungs is not None:
        drawn["body"] = _at(found.lungs.sigmoid(), size)
    weight = plain.classifier.weight[classes]
    cam = torch.einsum("bc,bcyx->byx", weight.float(), found.features.float()).clamp_min(0)[:, None]
    drawn[CAM] = _at(cam / cam.amax((2, 3), keepdim=True).clamp_min(1e-12), size)
    return {name: value.float().cpu() for name, value in drawn.items()}


def _at(x: Tensor, size: tuple[int, int]) -> Tensor:
    return scaled(x.float(), size)[:, 0]


def read_lungs(rows: XraySet, folder: str) -> dict[int, str]:
    """The lung mask of each row that has one, by the stem of its name.

    Raises InputError where the folder is none or no mask in it belongs to a picture.
    """
    if not Path(folder).is_dir():
        raise fail(folder, "is no folder of lung masks")
    by_stem = {Path(name).stem: file for file, name in list_pictures(folder)}
    found = {
        row: by_stem[stem]
        for row, name in enumerate(rows.names)
        if (stem := Path(name).stem) in by_stem
    }
    if not found:
        raise fail(folder, "holds no mask of the name of a picture")
    return found


def read_boxes(
    rows: XraySet, table: str, frame: tuple[int, int] | None
) -> dict[int, list[tuple[float, ...]]]:
    """Boxes of each row that has any: (left, top, right, bottom) as shares of the picture's sides.

    table: columns image, x, y, w, h, or those of NIH's list; frame: (width, height) that they are
    in, by default that of the picture's file. Raises InputError for what is missing or no number.
    """
    lazy, columns = scan_table(table)
    short = {name.replace("Bbox [", "").rstrip("]").strip().lower(): name for name in columns}
    image = next((short[name] for name in ("image", "file", "image index") if name in short), None)
    if image is None or any(name not in short for name in "xywh"):
        raise fail(table, f"needs columns image, x, y, w, h; it has {', '.join(columns)}")
    chosen = [
        pl.col(image).cast(pl.String).alias("image"),
        *(pl.col(short[n]).alias(n) for n in "xywh"),
    ]
    read = collect(table, lazy.select(chosen))
    sides = []
    for name in "xywh":
        values, bad = numbers(read[name])
        if bad.any():
            raise fail(
                f"{table}: column {short[name]!r}, row {int(np.flatnonzero(bad)[0]) + 1}",
                "is no number",
            )
        sides.append(values)
    by_stem = {Path(name).stem: row for row, name in enumerate(rows.names)}
    found: dict[int, list[tuple[float, ...]]] = {}
    frames: dict[int, tuple[int, ...]] = {}  # a picture is opened once, however many boxes it has
    for name, x, y, w, h in zip(read["image"].to_list(), *sides):
        row = by_stem.get(Path(name or "").stem)
        if row is None:
            continue
        if row not in frames:
            frames[row] = frame or read_xray(rows.files[row]).shape[::-1]
        width, height = frames[row]
        found.setdefault(row, []).append((x / width, y / height, (x + w) / width, (y + h) / height))
    if not found:
        raise fail(table, "holds no box of a picture of the data")
    return found


def pointing(drawn: np.ndarray, boxes: Sequence[tuple[float, ...]]) -> bool:
    """Whether the highest place of a map (Y, X) lies in a box (pointing game, Zhang et al., IJCV
    2018).
    """
    y, x = np.unravel_index(int(drawn.argmax()), drawn.shape)
    v, u = (y + 0.5) / drawn.shape[0], (x + 0.5) / drawn.shape[1]
    return any(left <= u <= right and top <= v <= bottom for left, top, right, bottom in boxes)


def inside(drawn: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Share of a map (Y, X) that lies in a mask, and the mask's share of the picture, which an even
    map would have.
    """
    total = float(drawn.sum())
    return float(drawn[mask].sum()) / total if total > 0 else float("nan"), float(mask.mean())


Drawn = Mapping[int, Mapping[str, np.ndarray]]  # maps by row and name


def measure(rows: XraySet, drawn: Drawn, options: Any) -> dict[str, dict[str, float]]:
    """Of the attention and of Grad-CAM: how they fit boxes and lungs, where the options name them
    and there are any; other data than that of the training may have none."""
    found: dict[str, dict[str, float]] = {}
    for part in (_in_boxes, _in_lungs):
        try:
            for name, values in part(rows, drawn, options).items():
                found.setdefault(name, {}).update(values)
        except InputError as error:
            say(f"left out: {error}")
    return found


def _in_boxes(rows: XraySet, drawn: Drawn, options: Any) -> dict[str, dict[str, float]]:
    """Share of the pictures with boxes whose highest place lies in one, beside chance."""
    if options.boxes is None:
        return {}
    boxes = read_boxes(rows, options.boxes, options.box_frame)
    hits: dict[str, list[bool]] = {}
    for row in (own := [row for row in drawn if row in boxes]):
        for name in {"attention", CAM} & drawn[row].keys():
            hits.setdefault(name, []).append(pointing(drawn[row][name], boxes[row]))
    return {
        name: {
            "pointing": float(np.mean(one)),
            "boxed": float(len(one)),
            "pointing_chance": float(np.mean([_covered(boxes[row]) for row in own])),
        }
        for name, one in sorted(hits.items(), reverse=True)
    }


def _in_lungs(rows: XraySet, drawn: Drawn, options: Any) -> dict[str, dict[str, float]]:
    """Mean share of a map that lies in the lung, beside that of an even map."""
    if options.lungs is None:
        return {}
    lungs = read_lungs(rows, options.lungs)
    shares: dict[str, list[tuple[float, float]]] = {}
    for row, maps in drawn.items():
        if row not in lungs:
            continue
        mask = read_mask(lungs[row], maps[CAM].shape)
        for name in {"attention", CAM} & maps.keys():
            shares.setdefault(name, []).append(inside(maps[name], mask))
    found = {}
    for name, pairs in sorted(shares.items(), reverse=True):
        share, even = np.nanmean(np.array(pairs), 0)
        found[name] = {
            "in_lungs": float(share),
            "lungs_even": float(even),
            "masked": float(len(pairs)),
        }
    return found


def _covered(boxes: Sequence[tuple[float, ...]]) -> float:
    """Share of a picture that boxes cover."""
    grid = np.zeros((100, 100), bool)
    for left, top, right, bottom in boxes:
        grid[
            max(0, round(100 * top)) : round(100 * bottom),
            max(0, round(100 * left)) : round(100 * right),
        ] = True
    return float(grid.mean())


def overlay(pixels: np.ndarray, drawn: Mapping[str, np.ndarray], *, side: int = 160) -> np.ndarray:
    """A strip, uint8 (side, n side, 3): the picture, then each map upon it; pixels in [0, 1] (Y,
    X).
    """
    from matplotlib import colormaps

    def at(x: np.ndarray) -> np.ndarray:
        there = F.interpolate(
            torch.from_numpy(np.ascontiguousarray(x))[None, None].float(),
            (side, side),
            mode="bilinear",
            align_corners=False,
        )
        return there[0, 0].numpy()

    grey = at(pixels)[..., None].repeat(3, 2)
    parts = [
        grey,
        *(0.55 * grey + 0.45 * colormaps["turbo"](at(one))[..., :3] for one in drawn.values()),
    ]
    return (255 * np.concatenate(parts, 1)).round().clip(0, 255).astype(np.uint8)
