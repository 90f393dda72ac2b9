"""Pictures to vectors, classes and rollout maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from ...base.errors import fail
from ...base.files import checksum, place_below
from ...data.formats.pictures import PictureFolder, list_pictures, read_picture, write_png
from ...data.formats.tables import TABLE_SUFFIXES, collect, require_columns, scan_table, suffix_of
from ...models.vision.dcal import DCAL
from ..engine.inference.batches import predict_in_batches
from ..engine.inference.shards import Predicted
from ..engine.inference.shards import predict as predict_shards
from ..engine.pipeline import AnyPipeline, Context, Item, Schema
from ..engine.runs.run_directory import RunDirectory
from .augment import denormalised, normalise
from .data import ReidSpec
from .figures import blended
from .options import ReidPredictOptions
from .pictures import Size
from .scoring import outputs

MODEL_LETTERS = 12  # of the checksum of the weights, by which vectors of one model are known
PredictContext: TypeAlias = Context[ReidPredictOptions, ReidSpec]


def list_inputs(path: str, images: str | None) -> list[Item]:
    """The pictures of a table, or files whose id is their path below the folder; sorted."""
    table = Path(path)
    if table.is_file() and suffix_of(table) in TABLE_SUFFIXES:
        return _pictures_of_table(table, images)
    return [{"file": file, "id": name} for file, name in list_pictures(path)]


def _pictures_of_table(path: Path, images: str | None) -> list[Item]:
    """The pictures of a table, without repetitions, in its order; all lie in their folder."""
    frame, names = scan_table(path)
    require_columns(path, ("image",), names)
    cells = collect(path, frame.select(pl.col("image").cast(pl.String).str.strip_chars()))["image"]
    folder = PictureFolder(images if images is not None else path.parent)
    items: dict[str, Item] = {}
    for row, cell in enumerate(cells.to_list(), 1):
        file, name = folder.find(f"{path}: column 'image', row {row}", cell or "")
        items[name] = {"file": file, "id": name}
    return list(items.values())


def fingerprint(run: str) -> str:
    """The mark of a run's weights in the parquet of its vectors."""
    return checksum(RunDirectory.open(run, "reid").path / "model.safetensors")[:MODEL_LETTERS]


def check_maps(options: ReidPredictOptions, spec: ReidSpec) -> None:
    """Refuse --maps for a run without rollout, before all pictures fail one by one."""
    if not options.maps:
        return
    if spec.attributes:
        raise fail(options.run, "--maps draws the rollout of dcal; this run is of cca")
    mixer = RunDirectory.open(options.run, "reid").config().get("attention", "softmax")
    if mixer != "softmax":
        what = f"--maps draws the rollout of softmax attention; this run has {mixer}"
        raise fail(options.run, what)


def vector_columns(attributes: Sequence[str]) -> list[str]:
    """Names of the columns of vectors."""
    return [f"vector_{name}" for name in attributes] or ["vector"]


def schema(spec: ReidSpec) -> Schema:
    """prediction and probability if the model names classes; vector, or vector_ATTRIBUTE of each
    attribute; model."""
    columns: Schema = {}
    if spec.goal == "classes":
        columns = {"prediction": pl.String, "probability": pl.Float32}
    vectors = dict.fromkeys(vector_columns(spec.attributes), pl.List(pl.Float32))
    return {**columns, **vectors, "model": pl.String}


def predict_items(
    model: nn.Module, items: Sequence[Item], context: PredictContext
) -> list[pl.DataFrame | ValueError]:
    """One row per picture, or the error that says why there is none."""
    options, spec = context.options, context.spec
    mark, read_size = fingerprint(options.run), _read_size(spec.size, options.run)

    def read(item: Item) -> Tensor:
        return torch.from_numpy(read_picture(item["file"], read_size))

    def predict(batch: Sequence[Item], images: Sequence[Tensor]) -> list[pl.DataFrame]:
        x = normalise(torch.stack(list(images)), spec.size)
        values = outputs(model, x.to(context.device))
        values = {name: value.float().cpu() for name, value in values.items()}
        if options.maps:
            _draw_maps(model, x, batch, context)
        return [
            _row({name: value[place] for name, value in values.items()}, mark, spec)
            for place in range(len(batch))
        ]

    with _with_heads(model, options):
        return predict_in_batches(items, read, predict, options.batch_size)


@contextmanager
def _with_heads(model: nn.Module, options: ReidPredictOptions) -> Iterator[None]:
    """The model with the heads of --embedding; afterwards again with those it was trained with."""
    if not isinstance(model, DCAL) or options.embedding == "trained":
        yield
        return
    trained = model.heads
    model.heads = options.embedding
    try:
        yield
    finally:
        model.heads = trained


def _read_size(size: Size, run: str) -> Size:
    """The size that pictures are read at; the model takes its centre."""
    share = float(RunDirectory.open(run, "reid").config().get("enlarge", 1.0))
    return round(size[0] * share), round(size[1] * share)


def _row(values: Mapping[str, Tensor], mark: str, spec: ReidSpec) -> pl.DataFrame:
    row: dict[str, list[object]] = {"model": [mark]}
    if "probability" in values:
        best = int(values["probability"].argmax())
        row["prediction"] = [spec.classes[best]]
        row["probability"] = [float(values["probability"][best])]
    vectors = values["vectors"] if spec.attributes else values["vectors"][None]
    for name, vector in zip(vector_columns(spec.attributes), vectors, strict=True):
        row[name] = [vector.numpy()]
    kinds = schema(spec)
    return pl.DataFrame({name: row[name] for name in kinds}, schema=kinds)


def _draw_maps(model: nn.Module, x: Tensor, items: Sequence[Item], context: PredictContext) -> None:
    """The rollout over each picture, OUTPUT.maps/ID.png; an id never leads out of it."""
    assert isinstance(model, DCAL)
    maps = model.rollout(x.to(context.device)).float().cpu().numpy()
    for image, heat, item in zip(x, maps, items, strict=True):
        picture = (blended(denormalised(image), heat) * 255).round().astype(np.uint8)
        path = place_below(Path(f"{context.options.output}.maps"), item.get("id", item["file"]))
        write_png(path.with_name(f"{path.name}.png"), picture)


def embed(pipeline: AnyPipeline, options: ReidPredictOptions) -> Predicted:
    """`predict`, by the name that this field has for it."""
    return predict_shards(pipeline, options)
