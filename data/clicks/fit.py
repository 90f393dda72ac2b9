"""Fitting a `ClickEncoder` to a log, and encoding the log once for training.

Three passes over the files: ids, times and labels; then the values of fields in the training part;
then their codes. Memory holds 17 bytes per row and one more per task and sequence; the codes are in
memory up to CODES_IN_MEMORY, and beyond that in a temporary file.

Shapes: N rows of the log, M columns of codes, U users, I items, S tasks.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...base.account import note
from ...base.errors import fail
from ..formats.tables import require_columns
from .account import (
    complete_fields,
    empty_cells,
    note_columns,
    note_events,
    note_fields,
    note_unseen_lists,
)
from .cells import holds, places, take, task_labels
from .checks import check_labels, check_roles, check_sequences
from .coding import FieldCodes, Rows
from .encoder import ClickEncoder, field_codes
from .history import Events, Ragged
from .lists import with_fillers
from .log import JoinedTable, Log, joined, scan_log, with_table
from .marks import NumberMarks, marks_of, number_columns, number_parts, with_points
from .row_parts import RowParts
from .schema import Schema
from .split import TEST, TRAIN, split_rows
from .times import check_as_in_log, check_times, seconds
from .values import TrainingValues
from .vocabulary import MISSING, Vocabulary

CODES_IN_MEMORY = 1 << 29  # bytes
SIDES = ("user", "item")


def fit(
    log: Log, schema: Schema, base: ClickEncoder | None = None
) -> tuple[ClickEncoder, Rows, np.ndarray]:
    """The encoder of a log, its encoded rows, and the part of each row, int8 (N,).

    Vocabularies and buckets come from the training part. base: an encoder to grow; all its codes
    stay as they are. Raises InputError for a log that cannot be trained on.
    """
    check_roles(log, schema)
    tables = [joined(log, join, schema.user) for join in schema.join]
    sides = _sides(log, schema, tables)
    note_columns(log, schema, tables)
    in_log = marks_of(log.files, number_columns(schema))
    marks = in_log.before(base.marks) if base else in_log
    tables = [_with_points(table, schema, marks) for table in tables]
    users, items, rows, met = _first_pass(log, schema, base, tables, marks)
    check_times(rows.time, schema, log.files[0])
    part = split_rows(log, schema, rows)
    check_labels(rows, part, schema, log)
    note_events(log, schema, rows, part)
    training = part == TRAIN
    ids = {"user": users, "item": items}
    values = TrainingValues(log, schema, sides, tables, rows, training, ids, marks)
    vocabularies, edges = values.vocabularies(base), values.edges(base)
    schema = with_fillers(log, schema, vocabularies)
    fields = FieldCodes(schema, vocabularies, edges, sides, users, items)
    side_codes = {side: _side_codes(fields, side, tables, base) for side in SIDES}
    _encode(log, fields, rows, marks)
    newer = _events(fields, side_codes, rows, met)
    events = {n: base.events[n].merged(e) if base else e for n, e in newer.items()}
    check_sequences(log, schema, events, rows.listed)
    encoder = ClickEncoder(
        schema,
        vocabularies,
        edges,
        sides,
        users,
        items,
        side_codes=side_codes,
        trained={side: _trained(fields, side, rows, training, base) for side in SIDES},
        events=events,
        last={side: _last(fields, side, rows, base) for side in SIDES},
        row_parts=RowParts.of(rows, part, base.row_parts if base else None),
        marks=marks,
        span=_span(rows.time, schema, base),
    )
    encoder = replace(encoder, complete=complete_fields(encoder, rows, training))
    note_fields(encoder, rows, part)
    return encoder, rows, part


def encode_log(
    log: Log, encoder: ClickEncoder, *, split: bool = True
) -> tuple[ClickEncoder, Rows, np.ndarray]:
    """A labelled log in the codes of a run: the encoder with its events, its rows and their parts.

    split: as `fit` splits it; else all rows are the test part.
    """
    schema = encoder.schema
    note_columns(log, schema)
    marks = marks_of(log.files, number_columns(schema)).before(encoder.marks)
    _, _, rows, met = _first_pass(log, schema, encoder, [], marks, grow=False)
    check_times(rows.time, schema, log.files[0])
    check_as_in_log(rows.time, encoder.span, schema, log.files[0])
    part = split_rows(log, schema, rows) if split else np.full(len(rows), TEST, np.int8)
    note_events(log, schema, rows, part if split else None)
    _encode(log, encoder, rows, marks)
    note_fields(encoder, rows, part)
    for what, count in empty_cells(encoder, rows, scan_log(log.files[0])[1]).items():
        note("values", what, count=count)
    note_unseen_lists(schema, rows.listed)
    newer = _events(encoder, encoder.side_codes, rows, met)
    return encoder.with_events(newer), rows, part


def _with_points(table: JoinedTable, schema: Schema, marks: NumberMarks) -> JoinedTable:
    """A joined table whose numbers have decimal points."""
    columns = [name for name in number_columns(schema) if name != table.on]
    return table._replace(frame=with_points(table.frame, columns, table.path, marks))


def _sides(log: Log, schema: Schema, tables: Sequence[JoinedTable]) -> dict[str, str]:
    """Fields that come from joined tables: those whose column the log does not have."""
    in_log = set(scan_log(log.files[0])[1])
    sides: dict[str, str] = {}
    for name in (*schema.categorical, *schema.numeric):
        column = schema.column(name)
        if column in in_log:
            continue
        owners = [table.side for table in tables if column in table.frame.columns]
        if not owners:
            names = [*in_log, *(name for table in tables for name in table.frame.columns)]
            require_columns(log.files[0], [column], list(dict.fromkeys(names)))
        sides[name] = owners[0]
    return sides


def _first_pass(
    log: Log,
    schema: Schema,
    base: ClickEncoder | None,
    tables: Sequence[JoinedTable],
    marks: NumberMarks,
    *,
    grow: bool = True,
) -> tuple[Vocabulary, Vocabulary, Rows, np.ndarray]:
    """All users and items; ids, times and labels of all rows; and bool (N, sequences), the events
    that each row is.
    """
    users, items = (base.users, base.items) if base else (Vocabulary(), Vocabulary())
    ids = {"user": users, "item": items}
    words = {side: schema.missing_words(getattr(schema, side)) for side in SIDES}
    conditions = [sequence.where for sequence in schema.events.values()]
    columns = [*schema.id_columns, *([schema.time] if schema.time else [])]
    columns += [condition.column for condition in conditions if condition is not None]
    for task in schema.tasks.values():
        columns += [task.label.column, *([task.only_where.column] if task.only_where else [])]
    if schema.split.column is not None:
        columns.append(schema.split.column)
    parts: list[Rows] = []
    met = []
    for frame, where in number_parts(log, schema, columns, marks):
        who = {side: np.full(frame.height, -1, np.int32) for side in SIDES}
        for side, column in (("user", schema.user), ("item", schema.item)):
            if column is not None:
                cells = take(frame, column, where)
                if grow:
                    ids[side] = ids[side].grown(cells, missing_words=words[side])
                who[side] = places(ids[side], frame, column, where, missing_words=words[side])
        time, _ = seconds(frame, schema, where, needed=True)
        labels = task_labels(frame, schema, where)
        no_codes = np.zeros((frame.height, 0), np.int32)
        parts.append(Rows(no_codes, who["user"], who["item"], time, labels))
        flags = np.ones((frame.height, len(conditions)), bool)
        for place, condition in enumerate(conditions):
            if condition is not None:
                flags[:, place] = holds(frame, condition, where)[0]
        met.append(flags)
    if not parts:
        raise fail(log.files[0], "holds no rows")
    for table in tables:
        ids[table.side] = with_table(ids[table.side], table, words[table.side])
    user, item, time, labels = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("user", "item", "time", "labels")
    )
    rows = Rows(np.zeros((len(user), 0), np.int32), user, item, time, labels)
    return ids["user"], ids["item"], rows, np.concatenate(met)


def _side_codes(
    fields: FieldCodes, side: str, tables: Sequence[JoinedTable], base: ClickEncoder | None
) -> np.ndarray:
    """int32 (U or I, ·): the joined fields of all users or items; missing for those that the tables
    lack.
    """
    ids, columns = fields.ids(side), fields.of_side(side)
    table_codes = np.full((len(ids.keys), sum(c.width for c in columns)), MISSING, np.int32)
    if base is not None:
        table_codes[: len(base.side_codes[side])] = base.side_codes[side]
    for table in tables:
        if table.side != side:
            continue
        who, place = fields.ids_of(side, table.frame, table.on, table.path), 0
        for column in columns:
            name = fields.schema.column(column.name)
            if name in table.frame.columns:
                codes = fields.codes(column.name, table.frame[name], table.path)[0]
                table_codes[who[who >= 0], place : place + column.width] = codes[who >= 0]
            place += column.width
    return table_codes


def _trained(
    fields: FieldCodes, side: str, rows: Rows, training: np.ndarray, base: ClickEncoder | None
) -> np.ndarray:
    """bool (U or I,): which users or items the training part has, or had for `base`."""
    who = (rows.user if side == "user" else rows.item)[training]
    trained = np.zeros(len(fields.ids(side).keys), bool)
    if base is not None:
        trained[: len(base.trained[side])] = base.trained[side]
    trained[who[who >= 0]] = True
    return trained


def _span(time: np.ndarray, schema: Schema, base: ClickEncoder | None) -> tuple[int, ...]:
    """The first and last second of a log, and of the log of `base`; empty without times."""
    if schema.time is None or not len(time):
        return ()
    ends = [int(time.min()), int(time.max()), *(base.span if base else ())]
    return min(ends), max(ends)


def _encode(log: Log, fields: FieldCodes, rows: Rows, marks: NumberMarks) -> None:
    """Third pass: write the codes of the log's fields into `rows`."""
    schema = fields.schema
    columns = fields.of_side("row")
    needed = [schema.column(c.name) for c in columns if c.name not in schema.time_fields]
    needed += [s.column for s in schema.listed.values() if s.column is not None]
    rows.fields = _codes_array((len(rows), sum(column.width for column in columns)))
    listed: dict[str, list[Ragged]] = {name: [] for name in schema.listed}
    start = 0
    any_column = next(iter(schema.tasks.values())).label.column
    for frame, where in number_parts(log, schema, needed or [any_column], marks):
        part = slice(start, start + frame.height)
        rows.fields[part], _ = fields.fields(frame, rows.time[part], where)
        start += frame.height
        for name in listed:
            listed[name].append(fields.listed(name, frame, where))
    for name, parts in listed.items():
        lengths = np.concatenate([np.diff(lists.offsets) for lists in parts])
        values = np.concatenate([lists.values for lists in parts])
        rows.listed[name] = Ragged(values, np.r_[0, np.cumsum(lengths)])


def _codes_array(shape: tuple[int, int]) -> np.ndarray:
    """int32 zeros; large ones in a temporary file that is deleted with the array."""
    if 4 * shape[0] * shape[1] <= CODES_IN_MEMORY:
        return np.zeros(shape, np.int32)
    folder = tempfile.TemporaryDirectory(prefix="headwise-")
    codes = np.memmap(Path(folder.name) / "codes", np.int32, "w+", shape=shape)
    weakref.finalize(codes, folder.cleanup)
    return codes


def _events(
    fields: FieldCodes, side_codes: Mapping[str, np.ndarray], rows: Rows, met: np.ndarray
) -> dict[str, Events]:
    """The events of each sequence that is made from the log."""
    events = {}
    for place, (name, sequence) in enumerate(fields.schema.events.items()):
        which = met[:, place] & (rows.user >= 0)
        codes = field_codes(fields, side_codes, rows, sequence.of)
        events[name] = Events.of(rows.user[which], rows.time[which], codes[which])
    return events


def _last(fields: FieldCodes, side: str, rows: Rows, base: ClickEncoder | None) -> np.ndarray:
    """int32 (U or I, M): the codes of the log's fields in the last row of each."""
    who, count = rows.user if side == "user" else rows.item, len(fields.ids(side).keys)
    last = np.full((count, rows.fields.shape[1]), MISSING, np.int32)
    if base is not None:
        last[: len(base.last[side])] = base.last[side]
    order = np.argsort(rows.time, kind="stable")
    order = order[who[order] >= 0]
    newest = np.full(count, -1, np.int64)
    newest[who[order]] = order  # of several rows the last one assigned stays
    present_mask = newest >= 0
    last[present_mask] = rows.fields[newest[present_mask]]
    return last
