"""New rows to probabilities: parts of files, encoded by the run's vocabularies and histories."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import nn

from ...base.errors import InputError
from ...data.clicks.batches import ClickRows
from ...data.clicks.coding import Rows
from ...data.clicks.encoder import ClickEncoder
from ...data.clicks.fit import encode_log
from ...data.clicks.layouts import files_of, log_of
from ...data.clicks.log import scan_log
from ...data.clicks.vocabulary import UNSEEN, clean
from ...data.formats.tables import collect
from ..engine.pipeline import Item
from .data import load_encoder
from .options import RankingPredictOptions
from .scoring import probabilities

PART = 50_000  # rows of an item


def list_parts(path: str) -> list[Item]:
    """Parts of the files that a path, folder or pattern names. A file that cannot be listed is one
    item, and fails when it is read, unless it is the only one."""
    files = files_of(path)
    found: list[Item] = []
    for file in files:
        try:
            rows = count_rows(file)
        except InputError:
            if len(files) == 1:
                raise
            found.append({"file": file, "id": Path(file).name, "start": 0, "rows": 0})
            continue
        for start in range(0, max(rows, 1), PART):
            count = min(PART, rows - start)
            found.append(
                {"file": file, "id": f"{Path(file).name}:{start}", "start": start, "rows": count}
            )
    return found


def count_rows(file: str) -> int:
    """Rows of a table; of parquet from its last bytes."""
    return int(collect(file, scan_log(file)[0].select(pl.len())).item())


def schema(spec: dict[str, Any]) -> dict[str, Any]:
    """row: its place in its file; unseen: fields whose value the training part did not have;
    unread: cells that should be numbers and are not, counted as missing."""
    ids = [pl.Int64 if whole else pl.String for whole in spec["whole_ids"]]
    return {
        "row": pl.Int64,
        "user_id": ids[0],
        "item_id": ids[1],
        **{f"p_{task}": pl.Float32 for task in spec["tasks"]},
        "seen_user": pl.Boolean,
        "seen_item": pl.Boolean,
        "unseen": pl.Int32,
        "unread": pl.Int32,
    }


@lru_cache(maxsize=2)
def _encoder(log: str | None, spec: str) -> ClickEncoder:
    """The run's encoder with later events. spec: as JSON, so that a worker keeps it from shard to
    shard.
    """
    encoder = load_encoder(json.loads(spec))
    return encoder if log is None else encode_log(log_of(log), encoder, split=False)[0]


def predict_parts(
    model: nn.Module,
    items: Sequence[Item],
    options: RankingPredictOptions,
    spec: dict[str, Any],
    device: torch.device,
) -> list[pl.DataFrame | ValueError]:
    """A table for each part, or the error that says why there is none. Parts that follow each other
    are one.
    """
    encoder = _encoder(options.log, json.dumps(spec))
    out: list[pl.DataFrame | ValueError] = []
    place = 0
    while place < len(items):
        end = place + 1
        while end < len(items) and _follows(items[end - 1], items[end]):
            end += 1
        run = items[place:end]
        try:
            table = _score(model, run, encoder, options, spec, device)
            sizes = np.cumsum([0, *(one["rows"] for one in run)])
            out += [table[int(a) : int(b)] for a, b in pairwise(sizes)]
        except ValueError as error:
            out += [error] * len(run)
        place = end
    return out


def _follows(one: Item, other: Item) -> bool:
    return one["file"] == other["file"] and one["start"] + one["rows"] == other["start"]


def _score(
    model: nn.Module,
    items: Sequence[Item],
    encoder: ClickEncoder,
    options: RankingPredictOptions,
    spec: dict[str, Any],
    device: torch.device,
) -> pl.DataFrame:
    file, start = items[0]["file"], items[0]["start"]
    rows = sum(one["rows"] for one in items)
    frame, names = scan_log(file)
    wanted = [name for name in needed_columns(encoder) if name in names]
    table = collect(file, frame.select(wanted).slice(start, rows)) if wanted else pl.DataFrame()
    coded = encoder.rows(table, file, labels=False)
    dataset = ClickRows(encoder, coded)
    found = list(probabilities(model, dataset, device, options.batch_size))
    probability = np.concatenate(found) if found else np.zeros((0, len(spec["tasks"])), np.float32)
    ids = schema(spec)
    named = encoder.schema
    return pl.DataFrame(
        {
            "row": np.arange(start, start + len(coded)),
            "user_id": clean(table[named.user]).cast(ids["user_id"], strict=False),
            "item_id": clean(table[named.item]).cast(ids["item_id"], strict=False),
            **{f"p_{task}": probability[:, i] for i, task in enumerate(spec["tasks"])},
            "seen_user": encoder.trained_on("user", coded.user),
            "seen_item": encoder.trained_on("item", coded.item),
            "unseen": _unseen(coded),
            "unread": coded.unread,
        }
    )


def needed_columns(encoder: ClickEncoder) -> list[str]:
    """Columns that a row may be scored by: those of joined tables and the time may be missing."""
    one = encoder.schema
    columns = [one.user, one.item, *([one.time] if one.time else [])]
    columns += [
        one.column(column.name) for column in encoder.columns if column.name not in one.time_fields
    ]
    columns += [sequence.column for sequence in one.listed.values() if sequence.column]
    return list(dict.fromkeys(columns))


def _unseen(coded: Rows) -> np.ndarray:
    found = (coded.fields == UNSEEN).sum(1)
    for codes in coded.sides.values():
        found = found + (codes == UNSEEN).sum(1)
    return found.astype(np.int32)
