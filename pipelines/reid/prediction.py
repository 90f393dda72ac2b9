"""Batch inference: pictures to vectors, classes and rollout maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from ...base.errors import InputError, fail
from ...base.files import checksum, place_below
from ...data.formats.pictures import PictureFolder, list_pictures, read_picture, write_png
from ...data.formats.tables import TABLE_SUFFIXES, collect, require_columns, scan_table, suffix_of
from ...models.vision.dcal import DCAL
from ..engine.inference import shards as inference
from ..engine.pipeline import AnyPipeline, Item
from ..engine.runs.run_directory import RunDirectory
from .augment import DEVIATION, MEAN, normalise
from .figures import blended
from .scoring import outputs

MODEL_LETTERS = 12  # of the checksum of the weights, by which vectors of one model are known


def list_inputs(given: str, images: str | None) -> list[Item]:
    """What --input holds, sorted: the pictures of a table, or files whose id is their path below
    the folder given.
    """
    path = Path(given)
    if path.is_file() and suffix_of(path) in TABLE_SUFFIXES:
        return _listed(path, images)
    return [{"file": file, "id": name} for file, name in list_pictures(given)]


def _listed(path: Path, images: str | None) -> list[Item]:
    """The pictures of a table, each once, in its order; nothing outside of their folder is read."""
    frame, names = scan_table(path)
    require_columns(path, ("image",), names)
    cells = collect(path, frame.select(pl.col("image").cast(pl.String).str.strip_chars()))["image"]
    home = PictureFolder(images if images is not None else path.parent)
    found = {}
    for row, cell in enumerate(cells.to_list(), 1):
        file, name = home.find(f"{path}: column 'image', row {row}", cell or "")
        found[name] = {"file": file, "id": name}
    return list(found.values())


def fingerprint(run: str) -> str:
    """The mark of a run's weights in the parquet of its vectors."""
    return checksum(RunDirectory.open(run, "reid").path / "model.safetensors")[:MODEL_LETTERS]


def check_maps(options: Any, spec: dict[str, Any]) -> None:
    """Refuse --maps of a run without rollout, before all pictures fail one by one."""
    if not options.maps:
        return
    if spec["attributes"]:
        raise fail(options.run, "--maps draws the rollout of dcal; this run is of cca")
    mixer = RunDirectory.open(options.run, "reid").config().get("attention", "softmax")
    if mixer != "softmax":
        raise fail(
            options.run, f"--maps draws the rollout of softmax attention; this run has {mixer}"
        )


def schema(options: Any, spec: dict[str, Any]) -> dict[str, Any]:
    """vector, or vector_ATTRIBUTE of each; prediction and probability where the model names
    classes; model.
    """
    one = pl.List(pl.Float32)
    columns: dict[str, Any] = {}
    if spec["goal"] == "classes":
        columns = {"prediction": pl.String, "probability": pl.Float32}
    names = [f"vector_{name}" for name in spec["attributes"]] or ["vector"]
    return {**columns, **dict.fromkeys(names, one), "model": pl.String}


def predict_items(
    model: Any, items: Sequence[Item], options: Any, spec: dict[str, Any], device: torch.device
) -> list[pl.DataFrame | ValueError]:
    """A row for each picture, or the error that says why there is none."""
    size = tuple(spec["input"]["size"])
    mark, read_at = fingerprint(options.run), enlarged(size, options.run)
    trained = model.heads if isinstance(model, DCAL) else None
    if isinstance(model, DCAL) and options.embedding != "trained":
        model.heads = options.embedding
    rows: list[Any] = [None] * len(items)
    images: dict[int, torch.Tensor] = {}
    for place, item in enumerate(items):
        try:
            images[place] = torch.from_numpy(read_picture(item["file"], read_at))
        except InputError as error:
            rows[place] = error
    places = list(images)
    for start in range(0, len(places), options.batch_size):
        block = places[start : start + options.batch_size]
        x = normalise(torch.stack([images[k] for k in block]), size)
        found = {name: value.float().cpu() for name, value in outputs(model, x.to(device)).items()}
        if options.maps:
            _draw(model, x, [items[k] for k in block], options, device)
        for k, place in enumerate(block):
            rows[place] = _row(
                {name: value[k] for name, value in found.items()}, mark, options, spec
            )
    if isinstance(model, DCAL) and trained is not None:
        model.heads = trained
    return rows


def enlarged(size: tuple[int, int], run: str) -> tuple[int, int]:
    """The size that pictures are read at, of which the middle is taken."""
    share = float(RunDirectory.open(run, "reid").config().get("enlarge", 1.0))
    return round(size[0] * share), round(size[1] * share)


def _row(
    found: dict[str, torch.Tensor], mark: str, options: Any, spec: dict[str, Any]
) -> pl.DataFrame:
    row: dict[str, Any] = {"model": [mark]}
    if "probability" in found:
        best = int(found["probability"].argmax())
        row |= {
            "prediction": [spec["classes"][best]],
            "probability": [float(found["probability"][best])],
        }
    if spec["attributes"]:
        for name, vector in zip(spec["attributes"], found["vectors"]):
            row[f"vector_{name}"] = [vector.numpy()]
    else:
        row["vector"] = [found["vectors"].numpy()]
    kinds = schema(options, spec)
    return pl.DataFrame({name: row[name] for name in kinds}, schema=kinds)


def _draw(
    model: Any, x: torch.Tensor, items: Sequence[Item], options: Any, device: torch.device
) -> None:
    """The rollout over each picture, OUTPUT.maps/ID.png; an id never leads out of it."""
    assert isinstance(model, DCAL)
    heat = model.rollout(x.to(device)).float().cpu().numpy()
    for image, one, item in zip(x, heat, items):
        plain = (image * DEVIATION + MEAN).clamp(0, 1).permute(1, 2, 0).numpy()
        drawn = (blended(plain, one) * 255).round().astype(np.uint8)
        path = place_below(Path(f"{options.output}.maps"), str(item["id"]))
        write_png(path.with_name(f"{path.name}.png"), drawn)


def embed(pipeline: AnyPipeline, options: Any) -> inference.Predicted:
    """`predict` by the name that this field has for it."""
    return inference.predict(pipeline, options)
