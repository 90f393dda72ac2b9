"""Batch prediction: pictures with depth to saliency maps and a table that lists them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NotRequired

import numpy as np
import polars as pl
import torch
from torch import nn

from ...base.errors import InputError, fail
from ...base.files import distinct_names, place_below
from ...data.formats.pictures import read_picture, write_png
from ...data.scenes.inputs import list_scenes
from ...data.scenes.reading import Reading, SceneArrays, read_scene
from ..engine.pipeline import Context, Item, Schema
from .augment import BLANK
from .data import SaliencySpec, reading_of
from .options import TRAINED, SaliencyPredictOptions
from .scoring import saliency_of, to_bytes

DARKEST = 0.25  # brightness of what is not salient, in an overlay
PredictContext = Context[SaliencyPredictOptions, SaliencySpec]

SCHEMA: Schema = {
    "height": pl.Int64(),
    "width": pl.Int64(),
    "depth": pl.Boolean(),
    "salient": pl.Float64(),
    "box": pl.List(pl.Int64),
}
"""height, width: of the picture and its map, in pixels; depth: whether it had a depth map; salient:
share of the picture that is; box: left, top, right and bottom of what is salient, in pixels, null
where nothing is."""


class SceneItem(Item):
    """A picture to predict for."""

    depth: str | None
    """Its depth map."""
    map: str
    """Where its map is written, below OUTPUT.maps/."""
    further_files: NotRequired[list[str]]
    """The depth map, on whose content the answer depends, too."""


def list_inputs(options: SaliencyPredictOptions) -> list[SceneItem]:
    """What --input holds, sorted."""
    scenes = list_scenes(options.input, options.depth, options.columns)
    maps = distinct_names([name for _, name, _ in scenes], None, ".png")
    items: list[SceneItem] = []
    for (file, name, depth), place in zip(scenes, maps):
        items.append({"file": file, "id": name, "depth": depth, "map": place})
        if depth is not None:
            items[-1]["further_files"] = [depth]
    return items


def read_item(item: SceneItem, context: PredictContext) -> SceneArrays:
    """A picture and its depth at the size of the model.

    Raises `InputError` for a file that cannot be read, and for a missing depth map with --missing
    error.
    """
    options, trained = context.options, context.spec.input
    if item["depth"] is None and options.missing == "error":
        raise fail(item["file"], "has no depth map; add it, or say --missing blank")
    height, width = trained["size"]
    near = trained["near"] if options.near == TRAINED else options.near
    before = reading_of(trained)
    reading = Reading(
        near,
        before.invalid if options.invalid == (TRAINED,) else options.invalid,
        before.turn if options.orientation == TRAINED else options.orientation,
        before.stretch or options.stretch,
    )
    return read_scene(item["file"], item["depth"], (height, width), reading)


def predict_batch(
    model: nn.Module,
    items: Sequence[SceneItem],
    scenes: Sequence[SceneArrays],
    context: PredictContext,
) -> list[pl.DataFrame | ValueError]:
    """Write the map of each picture, and give its row, or the error of one without a finite map."""
    options = context.options
    height, width = context.spec.input["size"]
    blank = np.full((1, height, width), BLANK, np.float32)
    depths = [blank if scene["depth"] is None else scene["depth"] for scene in scenes]
    depth = torch.from_numpy(np.stack(depths)).to(context.device)
    image = torch.from_numpy(np.stack([scene["image"] for scene in scenes])).to(context.device)
    rows: list[pl.DataFrame | ValueError] = []
    for item, scene, saliency in zip(items, scenes, saliency_of(model, image, depth).cpu()):
        if not torch.isfinite(saliency).all():  # bytes would hide it
            rows.append(InputError("the model gives no finite number (map)"))
            continue
        levels = to_bytes(saliency, scene["shape"])
        write_png(place_below(Path(f"{options.output}.maps"), item["map"]), levels)
        if options.overlays:
            over = place_below(Path(f"{options.output}.overlays"), item["map"])
            write_png(over, overlay(read_picture(item["file"]), levels))
        rows.append(_row(levels, scene["depth"] is not None, options.threshold))
    return rows


def overlay(picture: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """A picture, uint8 (3, Y, X), that is darker the less salient it is: uint8 (Y, X, 3).

    levels: its map, uint8 (Y, X).
    """
    bright = DARKEST + (1 - DARKEST) * levels[..., None].astype(np.float32) / 255
    return (picture.transpose(1, 2, 0) * bright).round().astype(np.uint8)


def answer_lines(rows: pl.DataFrame) -> list[str]:
    """How much of each picture is salient and where, and where its map is."""
    lines = []
    for row in rows.iter_rows(named=True):
        depth = "" if row["depth"] else " (no depth map: from colour alone)"
        where = "nothing is salient"
        if row["box"] is not None:
            left, top, right, bottom = row["box"]
            where = f"salient from x {left} to {right} and y {top} to {bottom}"
        lines.append(f"{row['salient']:.1%} of the picture, {where}{depth}")
        (place,) = distinct_names([row["item"]], None, ".png")
        lines.append(f"map: {place} in OUTPUT.maps/")
    return lines


def _row(levels: np.ndarray, has_depth: bool, threshold: float) -> pl.DataFrame:
    """levels: the map, uint8 (Y, X)."""
    salient = levels >= max(1, round(255 * threshold))
    box = None
    if salient.any():
        y, x = np.flatnonzero(salient.any(1)), np.flatnonzero(salient.any(0))
        box = [int(x[0]), int(y[0]), int(x[-1]) + 1, int(y[-1]) + 1]
    row = {
        "height": levels.shape[0],
        "width": levels.shape[1],
        "depth": has_depth,
        "salient": float(salient.mean()),
        "box": box,
    }
    return pl.DataFrame([row], schema=SCHEMA)
