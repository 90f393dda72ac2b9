"""Tables of numbers as data sets: read and checked, split into three parts, scaled.

Shapes: N rows, D columns that the model sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypedDict

import numpy as np
import polars as pl
import torch
from torch import Tensor

from ...base.errors import fail
from ...base.files import write_text
from ...data.formats.tables import collect, numbers, require_columns, scan_table
from ..engine.pipeline import Item, Splits
from ..engine.spec import Spec
from ..engine.subsets import own_or_shares, take_groups
from ..engine.training.order import mix
from .options import TextOptions

SAMPLE_ROWS = 400


class InputFacts(TypedDict):
    """What the model was trained on, as the run's card says it."""

    columns: list[str]
    rows: int


class TextItem(Item):
    """A table to predict for."""


@dataclass(frozen=True, kw_only=True)
class TextSpec(Spec):
    """What a model needs to meet new tables.

    columns    that the model sees, in their order
    target     the column that it predicts
    mean       of each column and of the target in the training part, (D + 1)
    deviation  the same for standard deviations; 1 for a constant column
    """

    input: InputFacts
    columns: list[str]
    target: str
    mean: list[float]
    deviation: list[float]


class TextRows:
    """Rows of a table, scaled, as a data set."""

    def __init__(self, values: np.ndarray, spec: TextSpec) -> None:
        scaled = (values - np.array(spec.mean)) / np.array(spec.deviation)
        self.features = torch.from_numpy(scaled[:, :-1].astype(np.float32))
        self.target = torch.from_numpy(scaled[:, -1].astype(np.float32))

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"features": self.features[index], "target": self.target[index]}


def write_sample(folder: Path) -> Path:
    """A generated table: the last column is a smooth function of three others, with noise."""
    generator = np.random.default_rng(0)
    a, b, c = generator.normal(size=(3, SAMPLE_ROWS))
    target = np.sin(a) + b * c + 0.1 * generator.normal(size=SAMPLE_ROWS)
    lines = [f"{w:.4f},{x:.4f},{y:.4f},{z:.4f}" for w, x, y, z in zip(a, b, c, target)]
    path = folder / "generated.csv"
    write_text(path, "\n".join(["a,b,c,target", *lines]) + "\n")
    return path


def read_values(path: str | Path, columns: list[str] | None = None) -> pl.DataFrame:
    """Columns of a table as float64; without names, all of them.

    Raises `InputError` for a missing column, a cell that is not a number, and a table without rows.
    """
    frame, names = scan_table(path)
    chosen = names if columns is None else columns
    require_columns(path, chosen, names)
    table = collect(path, frame.select(chosen))
    values = {}
    for name in chosen:
        values[name], bad = numbers(table[name])
        if (wrong := np.flatnonzero(bad | np.isnan(values[name]))).size:
            raise fail(path, f"column {name!r}, row {wrong[0] + 1}: is not a number")
    if not len(table):
        raise fail(path, "has no rows")
    return pl.DataFrame(values)


def open_splits(
    options: TextOptions, spec: TextSpec | None, as_test: bool
) -> Splits[TextSpec, TextRows]:
    """The three parts, scaled by the training part. as_test: all rows are the test part."""
    assert options.data is not None
    table = read_values(options.data, None if spec is None else [*spec.columns, spec.target])
    if table.width < 2:
        raise fail(options.data, "has one column; the others predict the last")
    values, rows = table.to_numpy(), np.arange(len(table))
    if as_test and spec is not None:
        part = TextRows(values, spec)
        return Splits(part, part, part, spec)
    # Rows that belong together (of one person, of one day) need one group each: see `take_groups`.
    generator = np.random.default_rng(mix(options.seed, 3))
    subsets = own_or_shares(
        options.data,
        [""] * len(rows),
        lambda among, share, _: take_groups(among, among, share, generator),
        test_share=options.test_share,
        validation_share=options.validation_share,
        items="rows",
    )
    spec = spec or _new_spec(table, values[subsets.train])
    make_part = partial(TextRows, spec=spec)
    train, validation, test = (make_part(values[part]) for part in subsets)
    return Splits(train, validation, test, spec)


def _new_spec(table: pl.DataFrame, values: np.ndarray) -> TextSpec:
    deviation = values.std(0)
    *columns, target = table.columns
    return TextSpec(
        input=InputFacts(columns=columns, rows=len(table)),
        columns=columns,
        target=target,
        mean=values.mean(0).tolist(),
        deviation=np.where(deviation > 0, deviation, 1.0).tolist(),
    )
