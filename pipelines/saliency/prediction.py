"""Batch inference: pictures with depth to saliency maps and a table that lists them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from ...base.errors import InputError, fail
from ...base.files import distinct_names, place_below
from ...data.formats.pictures import write_png
from ...data.scenes.scenes import SceneArrays, list_scenes, read_scene
from ..engine.pipeline import Item
from .augment import BLANK
from .scoring import saliency_of, to_bytes


def list_inputs(options: Any) -> list[Item]:
    """What --input holds, sorted; map: where its map is written below OUTPUT.maps/."""
    found = list_scenes(options.input, options.depth)
    maps = distinct_names([name for _, name, _ in found], None, ".png")
    return [
        {
            "file": file,
            "id": name,
            "depth": depth,
            "map": one,
            **({} if depth is None else {"further_files": [depth]}),
        }
        for (file, name, depth), one in zip(found, maps)
    ]


def schema() -> dict[str, Any]:
    """height, width: of the picture and its map, pixels; depth: whether it had any; salient: share
    of the picture; box: left, top, right, bottom of what is salient, in pixels, null where nothing
    is."""
    return {
        "height": pl.Int64,
        "width": pl.Int64,
        "depth": pl.Boolean,
        "salient": pl.Float64,
        "box": pl.List(pl.Int64),
    }


def predict_items(
    model: Any, items: Sequence[Item], options: Any, spec: dict[str, Any], device: torch.device
) -> list[pl.DataFrame | ValueError]:
    """A map and a row for each picture, or the error that says why there is none."""
    height, width = spec["input"]["size"]
    near = spec["input"]["near"] if options.near == "trained" else options.near
    rows: list[Any] = [None] * len(items)
    places = range(len(items))
    for start in range(0, len(items), options.batch_size):
        read: dict[int, SceneArrays] = {}
        for place in places[start : start + options.batch_size]:
            item = items[place]
            try:
                if item["depth"] is None and options.missing == "error":
                    raise fail(item["file"], "has no depth map; add it, or say --missing blank")
                read[place] = read_scene(item["file"], item["depth"], (height, width), near)
            except InputError as error:
                rows[place] = error
        if not read:
            continue
        blank = np.full((1, height, width), BLANK, np.float32)
        depth = torch.from_numpy(
            np.stack([blank if one["depth"] is None else one["depth"] for one in read.values()])
        )
        image = torch.from_numpy(np.stack([one["image"] for one in read.values()]))
        found = saliency_of(model, image.to(device), depth.to(device)).cpu()
        for (place, one), saliency in zip(read.items(), found):
            drawn = to_bytes(saliency, one["shape"])
            write_png(place_below(Path(f"{options.output}.maps"), items[place]["map"]), drawn)
            rows[place] = _row(drawn, one["depth"] is not None, options.threshold)
    return rows


def _row(drawn: np.ndarray, depth: bool, threshold: float) -> pl.DataFrame:
    salient = drawn >= max(1, round(255 * threshold))
    box = None
    if salient.any():
        y, x = np.flatnonzero(salient.any(1)), np.flatnonzero(salient.any(0))
        box = [int(x[0]), int(y[0]), int(x[-1]) + 1, int(y[-1]) + 1]
    row = {
        "height": [drawn.shape[0]],
        "width": [drawn.shape[1]],
        "depth": [depth],
        "salient": [float(salient.mean())],
        "box": [box],
    }
    return pl.DataFrame(row, schema=schema())
