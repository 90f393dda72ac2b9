"""Pictures to vectors, classes and rollout maps."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from ...base.account import note
from ...base.errors import fail
from ...base.files import checksum, place_below
from ...data.columns import find_columns, parse_columns
from ...data.formats.picture_folder import PictureFolder
from ...data.formats.pictures import list_pictures, read_picture, write_png
from ...data.formats.tables import TABLE_SUFFIXES, suffix_of
from ...data.items import is_missing
from ...data.listed import note_whole_folder
from ...data.persons.table import FIELDS, read_cells
from ...models.attention import has_feature
from ...models.vision.dcal import DCAL
from ...models.vision.picture_rungs import attending
from ..engine.inference.batches import predict_in_batches
from ..engine.inference.shards import Predicted
from ..engine.inference.shards import predict as predict_shards
from ..engine.options import RungName
from ..engine.pipeline import AnyPipeline, Context, Item, Schema
from ..engine.runs.ladder_files import FACTS as LADDER
from ..engine.runs.run_directory import RunDirectory, read_facts
from .augment import denormalised, normalise
from .data import ReidSpec
from .embedding import outputs
from .figures import blended
from .options import ReidPredictOptions
from .pictures import Size

MODEL_LETTERS = 12  # of the checksum of the weights, by which vectors of one model are known
PredictContext: TypeAlias = Context[ReidPredictOptions, ReidSpec]


def list_inputs(path: str, images: str | None, columns: Sequence[str] = ()) -> list[Item]:
    """The pictures of a table, or files whose id is their path below the folder; sorted.

    images, columns: of a table, see `read_picture_set`.
    """
    table = Path(path)
    if table.is_file() and suffix_of(table) in TABLE_SUFFIXES:
        items = _pictures_of_table(table, images, columns)
    else:
        for option, value in (("images", images), ("columns", columns)):
            if value:
                raise fail(path, f"is no table; --{option} is read with a table")
        note_whole_folder(path, "pictures")
        items = [Item(file=file, id=name) for file, name in list_pictures(path)]
    note("read", "pictures", count=len(items))
    return items


def _pictures_of_table(path: Path, images: str | None, columns: Sequence[str]) -> list[Item]:
    """The pictures of a table, without repetitions, in its order; all lie in their folder. One that
    is missing fails when it is read.
    """
    table, column = _cells_of(path, columns)
    folder = PictureFolder(images if images is not None else path.parent)
    items: dict[str, Item] = {}
    repeated = []
    for row, cell in enumerate(table[column["image"]].to_list(), 1):
        where = f"{path}: column {column['image']!r}, row {row}"
        file, name = folder.find(where, cell or "", needed=False)
        if name in items:
            repeated.append(name)
        items[name] = {"file": file, "id": name}
    if repeated:
        note("items", "pictures that the table lists more than once, predicted once", repeated)
    return list(items.values())


def _cells_of(path: Path, columns: Sequence[str]) -> tuple[pl.DataFrame, dict[str, str]]:
    table, names = read_cells(path)
    chosen = {
        field: name
        for field, name in parse_columns(columns, FIELDS).items()
        if name in names or field == "image"  # of a training on another table
    }
    column = find_columns(
        path, names, FIELDS, required=("image",), chosen=chosen, unused_noted=False
    )
    return table, column


def identities_of(path: str) -> dict[str, str]:
    """The identity of each picture of a table by its name, as far as the table says it."""
    table = Path(path)
    if not table.is_file() or suffix_of(table) not in TABLE_SUFFIXES:
        return {}
    cells, column = _cells_of(table, ())
    if "identity" not in column:
        return {}
    folder = PictureFolder(table.parent)
    return {
        folder.find(path, image or "", needed=False)[1]: identity
        for image, identity in cells.select(column["image"], column["identity"]).iter_rows()
        if not is_missing(identity)
    }


def fingerprint(run: str) -> str:
    """The mark of what predicts in the parquet of its vectors: of the run's weights, and, where its
    domain model does not predict, of the rung that does.
    """
    home = RunDirectory.open(run, "reid").path
    return _mark(str(home), *_stamp(home / "model.safetensors"), *_stamp(home / LADDER))


def _stamp(file: Path) -> tuple[int, int]:
    """Size and time of change of a file; zeros where there is none."""
    try:
        status = os.stat(file)
    except FileNotFoundError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=16)
def _mark(home: str, *_stamps: int) -> str:
    """The beginning of the checksum of the weights, read once as long as the files stay as they
    are; or of the checksums of all that the rung that predicts is made of.
    """
    weights = checksum(Path(home) / "model.safetensors")
    if (chosen := chosen_rung(home)) == "model":
        return weights[:MODEL_LETTERS]
    rungs = read_facts(Path(home) / LADDER)["sha256"]
    marks = " ".join([chosen, weights, *(f"{name} {rungs[name]}" for name in sorted(rungs))])
    return hashlib.sha256(marks.encode()).hexdigest()[:MODEL_LETTERS]


def chosen_rung(run: str) -> RungName:
    """The rung of a run that predicts."""
    path = Path(run) / LADDER
    return str(read_facts(path)["chosen"]) if path.exists() else "model"


def check_run(options: ReidPredictOptions, spec: ReidSpec) -> None:
    """Refuse options that the run does not read, before all pictures fail one by one."""
    if spec.attributes and options.embedding != "trained":
        raise fail(options.run, "--embedding chooses heads of dcal; this run is of cca")
    rung = chosen_rung(options.run)
    if options.embedding != "trained" and rung != "model":
        cure = "train with --choose model for it"
        raise fail(
            options.run, f"--embedding chooses heads of dcal; in this run predicts {rung}; {cure}"
        )
    if options.maps and rung in ("naive", "simple"):
        cure = "train with --choose model or blend for it"
        raise fail(
            options.run, f"--maps draws the rollout of dcal; in this run predicts {rung}; {cure}"
        )
    if not options.maps:
        return
    if spec.attributes:
        raise fail(options.run, "--maps draws the rollout of dcal; this run is of cca")
    mixer = str(RunDirectory.open(options.run, "reid").config().get("attention", "softmax"))
    if not has_feature(mixer, "weights"):
        what = f"--maps draws the rollout of attention weights, which {mixer} of this run has not"
        raise fail(options.run, what)


def answer_lines(rows: pl.DataFrame, spec: ReidSpec) -> list[str]:
    """The class of each picture, or how its vector is used."""
    if spec.goal == "classes":
        cells = rows.select("prediction", "probability").iter_rows()
        return [f"{name}, probability {probability:.3f}" for name, probability in cells]
    column = vector_columns(spec.attributes)[0]
    return [
        f"a vector of {len(vector)} numbers of the model {mark}; `headwise reid search` compares it"
        for vector, mark in rows.select(column, "model").iter_rows()
    ]


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
    config = RunDirectory.open(run, "reid").path / "config.yaml"
    share = _enlarge(run, os.stat(config).st_mtime_ns)
    return round(size[0] * share), round(size[1] * share)


@lru_cache(maxsize=16)
def _enlarge(run: str, _changed: int) -> float:
    """--enlarge of a training, read once as long as its options stay as they are."""
    return float(RunDirectory.open(run, "reid").config().get("enlarge", 1.0))


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
    dcal = attending(model)
    assert dcal is not None
    maps = dcal.rollout(x.to(context.device)).float().cpu().numpy()
    for image, heat, item in zip(x, maps, items, strict=True):
        picture = (blended(denormalised(image), heat) * 255).round().astype(np.uint8)
        path = place_below(Path(f"{context.options.output}.maps"), item.get("id", item["file"]))
        write_png(path.with_name(f"{path.name}.png"), picture)


def embed(pipeline: AnyPipeline, options: ReidPredictOptions) -> Predicted:
    """`predict`, by the name that this field has for it."""
    return predict_shards(pipeline, options)
