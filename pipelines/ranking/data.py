"""The log of a run: read, split, encoded; and what a run keeps of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
import polars as pl
from safetensors import safe_open
from safetensors.numpy import save_file

from ...base.errors import InputError
from ...data.clicks.batches import ClickRows
from ...data.clicks.coding import Rows
from ...data.clicks.encoder import ClickEncoder
from ...data.clicks.fit import encode_log, fit
from ...data.clicks.history import AGES, Events
from ...data.clicks.layouts import log_of, open_log
from ...data.clicks.log import Log, count_rows
from ...data.clicks.marks import NumberMarks, number_columns
from ...data.clicks.row_parts import RowParts
from ...data.clicks.schema import Schema, schema_of
from ...data.clicks.split import PARTS, TRAIN
from ...data.clicks.vocabulary import Vocabulary
from ...models.clicks.click import Layout
from ..engine.inference.members import member_key
from ..engine.pipeline import Member, Splits
from ..engine.runs.loaded import open_spec
from ..engine.runs.run_directory import RunDirectory
from ..engine.spec import JsonValue, Spec
from .baselines import note_telling_fields, rates
from .options import RankingOptions

VOCABULARIES, ARRAYS = "vocabularies.parquet", "arrays.safetensors"
FILE = "parts.file."  # begins the name of an array with the parts of the rows of a file


class FieldFacts(TypedDict):
    """A field of the model: how many codes it has, how many of them a row holds, whose it is."""

    name: str
    codes: int
    width: int
    side: str
    ordered: NotRequired[bool]
    """Whether it is a number, whose buckets share their vectors; earlier runs have none."""


@dataclass(frozen=True, kw_only=True)
class RankingSpec(Spec):
    """What a click model needs to meet new rows. Vocabularies, histories and the codes of users and
    items are assets.

    targets: places in `fields` that the sequences are histories of; whole, whole_ids: which
    vocabularies hold whole numbers (of fields; of users and items); log: checksum of the rows;
    decimal_comma: the columns of the log whose numbers have one; units: of columns that have one;
    proxies_mix: whether the proxies of INFNet read by --attention, which earlier versions took
    without reading it; it is stored where that is not the paper's (proxies_changed); span: first
    and last second of the log; complete: fields of which no cell of the training part is empty.
    """

    schema: Mapping[str, object]
    sides: dict[str, str]
    fields: list[FieldFacts]
    tasks: list[str]
    sequences: list[str]
    targets: list[int]
    edges: dict[str, list[float]]
    whole: dict[str, bool]
    whole_ids: list[bool]
    users: int
    items: int
    rows: int
    log: str
    input: dict[str, str | None]
    decimal_comma: dict[str, bool] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    span: list[int] = field(default_factory=list)
    complete: list[str] = field(default_factory=list)
    proxies_mix: bool = False
    proxies_changed: bool = field(default=False, metadata={"saved": False})

    def to_json(self) -> dict[str, JsonValue]:
        """All values as JSON can hold them; what is empty, and the paper's proxies, have no key, as
        in earlier versions.
        """
        values = super().to_json()
        for key in ("decimal_comma", "units", "span", "complete"):
            if not values[key]:
                del values[key]
        if not self.proxies_changed:
            del values["proxies_mix"]
        return values

    @property
    def layout(self) -> Layout:
        """The model's view of the fields."""
        return Layout(
            [field["codes"] for field in self.fields],
            [field["width"] for field in self.fields],
            len(self.sequences),
            len(self.tasks),
            AGES,
            [field.get("ordered", False) for field in self.fields],
        )


def spec_of_run(run: str) -> RankingSpec:
    """The spec of a ranking run."""
    return open_spec(RankingSpec, RunDirectory.open(run, "ranking"))


def open_new_log(options: RankingOptions) -> Splits[RankingSpec]:
    """The three parts of the log of a new run, whose vocabularies and histories it makes, or grows
    from those of the run to go on from.
    """
    assert options.data is not None
    log, schema = open_log(options.data, options.schema)
    base = None
    if options.from_run is not None:
        base = load_encoder(spec_of_run(options.from_run))
        schema = grown_schema(base.schema, schema)
    encoder, rows, part = fit(log, schema, base)
    training_rows = np.flatnonzero(part == TRAIN)
    counted = rates(rows, training_rows, len(encoder.users.keys), len(encoder.items.keys))
    encoder = replace(encoder, rates=counted)
    note_telling_fields(encoder, rows, part)
    by_file = encoder.row_parts.with_files(parts_by_file(log, part))
    encoder = replace(encoder, row_parts=by_file)
    changed = options.attention != "softmax" or bool(options.attention_options)
    spec = replace(make_spec(encoder, rows, part), proxies_mix=True, proxies_changed=changed)
    return Splits(*parts_of(encoder, rows, part), spec, assets(encoder))


def open_log_of_run(
    options: RankingOptions, spec: RankingSpec, as_test: bool
) -> Splits[RankingSpec]:
    """The three parts by the codes of the run. as_test: all rows of a new log are `test`."""
    log = log_of(str(options.data))
    encoder, rows, part = encode_log(log, load_encoder(spec), split=not as_test)
    return Splits(*parts_of(encoder, rows, part), spec)


def parts_by_file(log: Log, part: np.ndarray) -> dict[str, np.ndarray]:
    """By what tells a file from others, the parts of its rows. part: int8 (N,), in their order."""
    ends = np.cumsum([count_rows(file) for file in log.files])
    parts = np.split(part.astype(np.int8), ends[:-1])
    keys = [member_key(Member(file)) for file in log.files]
    return {key: of_file for key, of_file in zip(keys, parts, strict=True) if key is not None}


def parts_of(
    encoder: ClickEncoder, rows: Rows, part: np.ndarray
) -> tuple[ClickRows, ClickRows, ClickRows]:
    """The training, validation and test part."""
    train, validation, test = (
        ClickRows(encoder, rows, np.flatnonzero(part == code)) for code in PARTS.values()
    )
    return train, validation, test


def grown_schema(old: Schema, new: Schema) -> Schema:
    """The schema of the run to go on from; a new one may differ in where tables are and how rows
    are split.
    """
    new = replace(
        new,
        sequences={
            # What fills up lists is what filled them up before, unless the new schema says it.
            name: replace(sequence, filler=sequence.filler or old.sequences[name].filler)
            if name in old.sequences
            else sequence
            for name, sequence in new.sequences.items()
        },
    )
    same = replace(new, join=old.join, split=old.split, log=old.log)
    if same != old:
        names = [f.name for f in fields(Schema)]
        differing = [name for name in names if getattr(same, name) != getattr(old, name)]
        raise InputError(
            "--from: the schema of the new log differs from the run's in " + ", ".join(differing)
        )
    return new


def make_spec(encoder: ClickEncoder, rows: Rows, part: np.ndarray) -> RankingSpec:
    """The spec of a run that was trained on these rows."""
    assert rows.labels is not None
    digest = hashlib.sha256()
    for array in (rows.user, rows.item, rows.time, rows.labels, part):
        digest.update(np.ascontiguousarray(array).tobytes())
    names = [column.name for column in encoder.columns]
    schema = encoder.schema
    return RankingSpec(
        schema=schema.as_dict(),
        sides=dict(encoder.sides),
        fields=[
            FieldFacts(
                name=c.name,
                codes=c.codes,
                width=c.width,
                side=c.side,
                ordered=c.name in schema.numeric,
            )
            for c in encoder.columns
        ],
        tasks=list(schema.tasks),
        sequences=list(schema.sequences),
        targets=[names.index(sequence.of) for sequence in schema.sequences.values()],
        edges={name: edges.tolist() for name, edges in encoder.edges.items()},
        whole={name: words.integers for name, words in encoder.vocabularies.items()},
        whole_ids=[encoder.users.integers, encoder.items.integers],
        users=len(encoder.users.keys),
        items=len(encoder.items.keys),
        rows=len(rows),
        log=digest.hexdigest(),
        input={"user": schema.user, "item": schema.item, "time": schema.time},
        decimal_comma={name: True for name, comma in encoder.marks.commas.items() if comma},
        units={name: unit for name, unit in encoder.marks.units.items() if unit},
        span=list(encoder.span),
        complete=sorted(encoder.complete),
    )


def assets(encoder: ClickEncoder) -> Mapping[str, Callable[[Path], object]]:
    """Writers of the files that hold vocabularies, histories and the codes of users and items."""
    vocabularies = {
        **{str(place): words for place, words in enumerate(encoder.vocabularies.values())},
        "users": encoder.users,
        "items": encoder.items,
    }
    table = pl.concat(
        pl.DataFrame(
            {"of": pl.repeat(name, len(words.keys), eager=True), "key": words.keys.cast(pl.String)},
            schema={"of": pl.String, "key": pl.String},
        )
        for name, words in vocabularies.items()
    )
    arrays = {f"side.{side}": codes for side, codes in encoder.side_codes.items()}
    arrays |= {f"seen.{side}": trained for side, trained in encoder.trained.items()}
    arrays |= {f"rates.{name}": values for name, values in encoder.rates.items()}
    arrays |= {f"last.{side}": codes for side, codes in encoder.last.items()}
    for place, events in enumerate(encoder.events.values()):
        arrays |= {f"events.{place}.keys": events.keys, f"events.{place}.codes": events.codes}
    row_parts = encoder.row_parts
    arrays |= {"parts.keys": row_parts.keys, "parts.codes": row_parts.parts}
    arrays |= {f"{FILE}{key}": parts for key, parts in row_parts.files.items()}
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return {VOCABULARIES: table.write_parquet, ARRAYS: lambda path: save_file(arrays, path)}


def load_encoder(spec: RankingSpec) -> ClickEncoder:
    """The encoder of a run that was opened."""
    assert spec.assets_folder is not None
    schema, folder = schema_of(spec.schema), spec.assets_folder
    table = pl.read_parquet(folder / VOCABULARIES, glob=False)
    keys = dict(table.partition_by("of", as_dict=True))

    def vocabulary(name: str, integers: bool) -> Vocabulary:
        words = keys[(name,)]["key"] if (name,) in keys else pl.Series("key", [], pl.String)
        return Vocabulary(words.cast(pl.Int64) if integers else words)

    with safe_open(folder / ARRAYS, framework="np") as opened:
        arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    users, items = (
        vocabulary(name, integers) for name, integers in zip(("users", "items"), spec.whole_ids)
    )
    return ClickEncoder(
        schema,
        {
            name: vocabulary(str(place), integers)
            for place, (name, integers) in enumerate(spec.whole.items())
        },
        {name: np.array(edges, float) for name, edges in spec.edges.items()},
        spec.sides,
        users,
        items,
        side_codes={side: arrays[f"side.{side}"] for side in ("user", "item")},
        trained={side: arrays[f"seen.{side}"] for side in ("user", "item")},
        events={
            name: Events(arrays[f"events.{place}.keys"], arrays[f"events.{place}.codes"])
            for place, name in enumerate(schema.events)
        },
        last={side: arrays[f"last.{side}"] for side in ("user", "item")},
        rates={name: arrays[f"rates.{name}"] for name in ("overall", "user", "item")},
        # Runs of earlier versions do not know which rows they were trained on.
        row_parts=RowParts(
            arrays["parts.keys"],
            arrays["parts.codes"],
            {name.removeprefix(FILE): arrays[name] for name in arrays if name.startswith(FILE)},
        )
        if "parts.keys" in arrays
        else RowParts(),
        # What had no decimal comma had a decimal point, or whole numbers.
        marks=NumberMarks(
            {**dict.fromkeys(number_columns(schema), False), **spec.decimal_comma}, spec.units
        ),
        span=tuple(spec.span),
        complete=frozenset(spec.complete),
    )
