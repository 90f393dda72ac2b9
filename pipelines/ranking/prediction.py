"""New rows to probabilities: parts of files, encoded by the run's vocabularies and histories."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TypedDict

import numpy as np
import polars as pl
from torch import nn

from ...base.account import note
from ...base.errors import InputError
from ...data.clicks.account import empty_cells, note_unseen_lists
from ...data.clicks.batches import ClickRows
from ...data.clicks.coding import Rows
from ...data.clicks.encoder import ClickEncoder
from ...data.clicks.fit import encode_log
from ...data.clicks.layouts import files_of, log_of
from ...data.clicks.log import count_rows, scan_log
from ...data.clicks.marks import number_columns, with_points
from ...data.clicks.schema import Schema
from ...data.clicks.times import check_as_in_log
from ...data.clicks.vocabulary import UNSEEN, clean
from ...data.formats.tables import collect
from ..engine.inference.members import member_key
from ..engine.pipeline import Context, Member
from .data import RankingSpec, load_encoder
from .options import RankingPredictOptions
from .scoring import probabilities

PART = 50_000  # rows of an item
MOST_LINES = 10  # of an answer in the terminal


class RowsItem(TypedDict):
    """A part of a file: `rows` rows from row `start` on.

    further_files: of the log of later events, on which the scores depend, too.
    """

    file: str
    id: str
    start: int
    rows: int
    further_files: list[str]


def list_parts(path: str, log: str | None = None) -> list[RowsItem]:
    """Parts of the files that a path, folder or pattern names; log: of later events.

    A file that cannot be listed is one item, and fails when it is read, unless it is the only file.
    """
    files = files_of(path)
    further = [] if log is None else [str(file) for file in files_of(log)]
    items: list[RowsItem] = []

    def add(file: str, name: str, start: int, rows: int) -> None:
        items.append(RowsItem(file=file, id=name, start=start, rows=rows, further_files=further))

    for file in files:
        name = Path(file).name
        try:
            rows = count_rows(file)
        except InputError:
            if len(files) == 1:
                raise
            add(file, name, 0, 0)
            continue
        for start in range(0, max(rows, 1), PART):
            add(file, f"{name}:{start}", start, min(PART, rows - start))
    return items


def schema(spec: RankingSpec) -> dict[str, pl.DataType]:
    """row: its place in its file; part: of the rows that the run was trained on; unseen: fields
    whose value the training part did not have; unread: cells that should be numbers and are not,
    counted as missing.
    """
    user, item = (pl.Int64() if integers else pl.String() for integers in spec.whole_ids)
    return {
        "row": pl.Int64(),
        "part": pl.String(),
        "user_id": user,
        "item_id": item,
        **{f"p_{task}": pl.Float32() for task in spec.tasks},
        "seen_user": pl.Boolean(),
        "seen_item": pl.Boolean(),
        "unseen": pl.Int32(),
        "unread": pl.Int32(),
    }


def encoder_with_log(spec: RankingSpec, log: str | None) -> ClickEncoder:
    """The run's encoder, with the later events of a log; a worker keeps it from shard to shard."""
    return _encoder(log, json.dumps(spec.to_json()), str(spec.assets_folder))


@lru_cache(maxsize=2)
def _encoder(log: str | None, spec: str, assets_folder: str) -> ClickEncoder:
    opened = RankingSpec.from_json(json.loads(spec))
    encoder = load_encoder(opened.with_assets(opened.assets, Path(assets_folder)))
    return encoder if log is None else encode_log(log_of(log), encoder, split=False)[0]


def predict_parts(
    model: nn.Module,
    items: Sequence[RowsItem],
    context: Context[RankingPredictOptions, RankingSpec],
) -> list[pl.DataFrame | ValueError]:
    """A table for each part, or the error that says why there is none. Parts that follow each other
    in a file are read as one.
    """
    encoder = encoder_with_log(context.spec, context.options.log)
    answers: list[pl.DataFrame | ValueError] = []
    counts = Counter[str]()
    for block in _blocks(items):
        try:
            table, empty = _scored_rows(model, block, encoder, context)
            counts.update(_counts(table) | empty)
            ends = np.cumsum([0, *(item["rows"] for item in block)]).tolist()
            answers += [table[start:stop] for start, stop in pairwise(ends)]
        except ValueError as error:
            answers += [error] * len(block)
    for what, count in counts.items():
        if count:
            note("read" if what == "rows" else "values", what, count=count)
    return answers


def _counts(table: pl.DataFrame) -> dict[str, int]:
    """What the account says of scored rows, and of how many."""
    return {
        "rows": table.height,
        "rows of users that the training part does not have": int((~table["seen_user"]).sum()),
        "rows of items that the training part does not have": int((~table["seen_item"]).sum()),
        "rows with a value that the training part does not have": int((table["unseen"] > 0).sum()),
        "rows with a cell that should be a number and is not": int((table["unread"] > 0).sum()),
    }


def _blocks(items: Sequence[RowsItem]) -> list[list[RowsItem]]:
    """Items that follow each other in one file, together."""
    blocks: list[list[RowsItem]] = []
    for item in items:
        last = blocks[-1][-1] if blocks else None
        if (
            last is not None
            and last["file"] == item["file"]
            and last["start"] + last["rows"] == item["start"]
        ):
            blocks[-1].append(item)
        else:
            blocks.append([item])
    return blocks


def _scored_rows(
    model: nn.Module,
    items: Sequence[RowsItem],
    encoder: ClickEncoder,
    context: Context[RankingPredictOptions, RankingSpec],
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Rows of the output of the items of a block, and how many cells are empty that are not in the
    training part.
    """
    file, start, tasks = items[0]["file"], items[0]["start"], context.spec.tasks
    count = sum(item["rows"] for item in items)
    frame, names = scan_log(file)
    present = [name for name in needed_columns(encoder) if name in names]
    table = collect(file, frame.select(present).slice(start, count)) if present else pl.DataFrame()
    table = with_points(table, number_columns(encoder.schema), file, encoder.marks)
    coded = encoder.rows(table, file, labels=False)
    check_as_in_log(coded.time, encoder.span, encoder.schema, file)
    note_table(encoder, coded, names)
    batches = list(
        probabilities(model, ClickRows(encoder, coded), context.device, context.options.batch_size)
    )
    probability = np.concatenate(batches) if batches else np.zeros((0, len(tasks)), np.float32)
    types, columns = schema(context.spec), encoder.schema
    scored = pl.DataFrame(
        {
            "row": np.arange(start, start + len(coded)),
            "part": encoder.row_parts.names(coded, member_key(Member(file)), start),
            "user_id": _ids(table, columns, columns.user, types["user_id"]),
            "item_id": _ids(table, columns, columns.item, types["item_id"]),
            **{f"p_{task}": probability[:, place] for place, task in enumerate(tasks)},
            "seen_user": encoder.trained_on("user", coded.user) if columns.user else None,
            "seen_item": encoder.trained_on("item", coded.item) if columns.item else None,
            "unseen": _unseen_fields(coded),
            "unread": coded.unread,
        },
        schema_overrides={"seen_user": pl.Boolean, "seen_item": pl.Boolean},
    )
    return scored, empty_cells(encoder, coded, names)


def note_table(encoder: ClickEncoder, coded: Rows, names: Sequence[str]) -> None:
    """Note the columns of a table that are not used, and those that it lacks."""
    needed, time = needed_columns(encoder), encoder.schema.time
    lacking = [name for name in needed if name not in names and name != time]
    if lacking:
        note("columns", "not in the table; the run's values of users and items are taken", lacking)
    if unused := [name for name in names if name not in needed]:
        note("columns", "not used", unused)
    if time is not None and time not in names:
        note("assumed", f"there is no column {time}: rows are scored as of now, after all events")
    note_unseen_lists(encoder.schema, coded.listed)


def _ids(table: pl.DataFrame, columns: Schema, column: str | None, kind: pl.DataType) -> pl.Series:
    """A column of ids in the type that the run has them in; nulls where there is none."""
    if column is None:
        return pl.repeat(None, table.height, dtype=kind, eager=True)
    ids = clean(table[column], missing_words=columns.missing_words(column))
    if kind == pl.Int64 and ids.dtype == pl.String:
        ids = ids.str.replace(r"\.0+$", "")  # as other programs write whole numbers
    return ids.cast(kind, strict=False)


def needed_columns(encoder: ClickEncoder) -> list[str]:
    """Columns that a row may be scored by: those of joined tables and the time may be missing."""
    schema = encoder.schema
    columns = [*schema.id_columns, *([schema.time] if schema.time else [])]
    columns += [
        schema.column(field.name)
        for field in encoder.columns
        if field.name not in schema.time_fields
    ]
    columns += [sequence.column for sequence in schema.listed.values() if sequence.column]
    return list(dict.fromkeys(columns))


def answer_lines(rows: pl.DataFrame, tasks: Sequence[str]) -> list[str]:
    """The answer for the rows of one table in words: the best items of a single user, or the first
    rows in their order.
    """
    columns = [f"p_{task}" for task in tasks]
    single_user = rows.height > 1 and rows["user_id"].n_unique() == 1
    if single_user:
        rows = rows.sort(columns[0], descending=True, maintain_order=True)
    lines = []
    for row in rows.head(MOST_LINES).iter_rows(named=True):
        chances = ", ".join(f"{task} {row[f'p_{task}']:.1%}" for task in tasks)
        user = "" if single_user else f"user {row['user_id']}, "
        lines.append(f"{user}item {row['item_id']}: {chances}")
    if single_user:
        lines.insert(0, f"best items for user {rows['user_id'][0]}:")
    if rows.height > MOST_LINES:
        lines.append(f"… and {rows.height - MOST_LINES:,} more rows")
    return lines


def _unseen_fields(coded: Rows) -> np.ndarray:
    """int32 (N,): how many fields of a row hold a value that the training part did not have."""
    count = (coded.fields == UNSEEN).sum(1)
    for codes in coded.sides.values():
        count = count + (codes == UNSEEN).sum(1)
    return count.astype(np.int32)
