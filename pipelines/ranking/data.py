"""The log of a run: read, split, encoded; and what a run keeps of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import nn

from ...base.errors import InputError
from ...data.clicks.batches import ClickRows
from ...data.clicks.coding import Rows
from ...data.clicks.encoder import ClickEncoder
from ...data.clicks.fit import encode_log, fit
from ...data.clicks.history import AGES, Events
from ...data.clicks.layouts import log_of, open_log
from ...data.clicks.schema import Schema, schema_of
from ...data.clicks.split import PARTS, TRAIN
from ...data.clicks.vocabulary import UNSEEN, Vocabulary
from ...models.clicks.click import Layout
from ..engine.pipeline import Splits
from ..engine.runs.checkpoint import load_weights
from ..engine.runs.loaded import open_spec
from ..engine.runs.run_directory import RunDirectory
from ..engine.spec import DictSpec
from .baselines import rates
from .options import RankingOptions

VOCABULARIES, ARRAYS = "vocabularies.parquet", "arrays.safetensors"


def open_splits(options: RankingOptions, spec: dict[str, Any] | None, whole: bool) -> Splits:
    """Three parts of the log; with `spec`, by the codes of the run. `whole`: all rows of a new log
    are `test`.
    """
    assert options.data is not None
    if spec is None:
        log, schema = open_log(options.data, options.schema)
        base = None
        if options.from_run is not None:
            base = load_encoder(open_spec(DictSpec, RunDirectory.open(options.from_run, "ranking")))
            schema = grown_schema(base.schema, schema)
        encoder, rows, part = fit(log, schema, base)
        counted = rates(
            rows, np.flatnonzero(part == TRAIN), len(encoder.users.keys), len(encoder.items.keys)
        )
        encoder = replace(encoder, rates=counted)
        found = make_spec(encoder, rows, part)
        return Splits(*_parts(encoder, rows, part), DictSpec(found), assets(encoder))
    log = log_of(options.data)
    encoder, rows, part = encode_log(log, load_encoder(spec), split=not whole)
    return Splits(*_parts(encoder, rows, part), spec)


def _parts(
    encoder: ClickEncoder, rows: Rows, part: np.ndarray
) -> tuple[ClickRows, ClickRows, ClickRows]:
    """The training, validation and test part."""
    train, validation, test = (
        ClickRows(encoder, rows, np.flatnonzero(part == code)) for code in PARTS.values()
    )
    return train, validation, test


def grown_schema(old: Schema, new: Schema) -> Schema:
    """The schema of the run to go on from; a new one may differ in where tables lie and how rows
    are split.
    """
    same = replace(new, join=old.join, split=old.split, log=old.log)
    if same != old:
        differs = [
            one.name for one in fields(Schema) if getattr(same, one.name) != getattr(old, one.name)
        ]
        raise InputError(
            f"--from: the schema of the new log differs from the run's in {', '.join(differs)}"
        )
    return new


def make_spec(encoder: ClickEncoder, rows: Rows, part: np.ndarray) -> dict[str, Any]:
    """What the model and its data are, as plain JSON."""
    assert rows.labels is not None
    digest = hashlib.sha256()
    for array in (rows.user, rows.item, rows.time, rows.labels, part):
        digest.update(np.ascontiguousarray(array).tobytes())
    names = [one.name for one in encoder.columns]
    schema = encoder.schema
    return {
        "schema": schema.as_dict(),
        "sides": dict(encoder.sides),
        "fields": [
            {"name": c.name, "codes": c.codes, "width": c.width, "side": c.side}
            for c in encoder.columns
        ],
        "tasks": list(schema.tasks),
        "sequences": list(schema.sequences),
        "targets": [names.index(one.of) for one in schema.sequences.values()],
        "edges": {name: edges.tolist() for name, edges in encoder.edges.items()},
        "whole": {name: one.integers for name, one in encoder.vocabularies.items()},
        "whole_ids": [encoder.users.integers, encoder.items.integers],
        "users": len(encoder.users.keys),
        "items": len(encoder.items.keys),
        "rows": len(rows),
        "log": digest.hexdigest(),
        "input": {"user": schema.user, "item": schema.item, "time": schema.time},
    }


def layout_of(spec: dict[str, Any]) -> Layout:
    """The model's view of the columns."""
    fields_ = spec["fields"]
    return Layout(
        [f["codes"] for f in fields_],
        [f["width"] for f in fields_],
        len(spec["sequences"]),
        len(spec["tasks"]),
        AGES,
    )


def assets(encoder: ClickEncoder) -> dict[str, Callable[[Path], object]]:
    """Writers of the files that hold vocabularies, histories and the codes of users and items."""
    lists = [(str(place), one) for place, one in enumerate(encoder.vocabularies.values())]
    lists += [("users", encoder.users), ("items", encoder.items)]
    table = pl.concat(
        pl.DataFrame(
            {"of": pl.repeat(name, len(one.keys), eager=True), "key": one.keys.cast(pl.String)},
            schema={"of": pl.String, "key": pl.String},
        )
        for name, one in lists
    )
    arrays = {f"side.{side}": codes for side, codes in encoder.side_codes.items()}
    arrays |= {f"seen.{side}": trained for side, trained in encoder.trained.items()}
    arrays |= {f"rates.{name}": one for name, one in encoder.rates.items()}
    arrays |= {f"last.{side}": codes for side, codes in encoder.last.items()}
    for place, one in enumerate(encoder.events.values()):
        arrays |= {f"events.{place}.keys": one.keys, f"events.{place}.codes": one.codes}
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return {VOCABULARIES: table.write_parquet, ARRAYS: lambda path: save_file(arrays, path)}


def load_encoder(spec: dict[str, Any]) -> ClickEncoder:
    """The encoder of a run."""
    schema, folder = schema_of(spec["schema"]), Path(spec["folder"])
    keys = dict(pl.read_parquet(folder / VOCABULARIES).partition_by("of", as_dict=True))

    def vocabulary(name: str, whole: bool) -> Vocabulary:
        found = keys[(name,)]["key"] if (name,) in keys else pl.Series("key", [], pl.String)
        return Vocabulary(found.cast(pl.Int64) if whole else found)

    with safe_open(folder / ARRAYS, framework="np") as opened:
        arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  (it is no mapping)
    return ClickEncoder(
        schema,
        {
            name: vocabulary(str(place), whole)
            for place, (name, whole) in enumerate(spec["whole"].items())
        },
        {name: np.array(edges, float) for name, edges in spec["edges"].items()},
        spec["sides"],
        *(vocabulary(name, whole) for name, whole in zip(("users", "items"), spec["whole_ids"])),
        side_codes={side: arrays[f"side.{side}"] for side in ("user", "item")},
        trained={side: arrays[f"seen.{side}"] for side in ("user", "item")},
        events={
            name: Events(arrays[f"events.{place}.keys"], arrays[f"events.{place}.codes"])
            for place, name in enumerate(schema.events)
        },
        last={side: arrays[f"last.{side}"] for side in ("user", "item")},
        rates={name: arrays[f"rates.{name}"] for name in ("overall", "user", "item")},
    )


def moved_weights(model: nn.Module, spec: dict[str, Any], run: str) -> None:
    """Weights of a run into a model whose tables have grown; new codes begin as the unseen value of
    their field.
    """
    before = open_spec(DictSpec, RunDirectory.open(run, "ranking"))
    weights = load_weights(Path(run) / "model.safetensors")
    own = model.state_dict()
    if weights.keys() != own.keys():
        raise InputError(f"--from {run}: is of another model; give the model options of that run")
    name, start, shift = "embedding.table.weight", 0, 0
    for key, value in weights.items():
        grows = 1 if key == name else 0  # the table has more rows now
        if value.shape[grows:] != own[key].shape[grows:]:
            raise InputError(
                f"--from {run}: {key} has another size; give the model options of that run"
            )
    for old, new in zip(before["fields"], spec["fields"], strict=True):
        part = weights[name][start : start + old["codes"]]
        own[name][shift : shift + new["codes"]] = part[UNSEEN]
        own[name][shift : shift + old["codes"]] = part
        start, shift = start + old["codes"], shift + new["codes"]
    for key, value in weights.items():
        if key != name:
            own[key].copy_(value)
