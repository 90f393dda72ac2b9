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
from pathlib import Path

import numpy as np
import polars as pl

from ...base.errors import fail, shown
from ..formats.tables import require_columns
from .cells import holds, lists_of, places, read_numbers, seconds, task_labels, texts
from .coding import FieldCodes, Rows
from .encoder import ClickEncoder, field_codes
from .history import Events, Ragged
from .log import JoinedTable, Log, joined, scan_log
from .schema import Categorical, Schema
from .split import TEST, TRAIN, split_rows
from .vocabulary import MISSING, Vocabulary, clean, equal_counts

CODES_IN_MEMORY = 1 << 29  # bytes
SAMPLED = 1_000_000  # numbers that the edges of buckets are computed from
SIDES = ("user", "item")


def fit(
    log: Log, schema: Schema, base: ClickEncoder | None = None
) -> tuple[ClickEncoder, Rows, np.ndarray]:
    """The encoder of a log, its encoded rows, and the part of each row, int8 (N,).

    Vocabularies and buckets come from the training part. base: an encoder to grow; all its codes
    stay as they are. Raises InputError for a log that cannot be trained on.
    """
    tables = [joined(log, join, schema.user) for join in schema.join]
    sides = _sides(log, schema, tables)
    users, items, rows, met = _first_pass(log, schema, base, tables)
    part = split_rows(log, schema, rows)
    _check_labels(rows, part, schema, log)
    training = part == TRAIN
    values = _Values(log, schema, sides, tables, rows, training, {"user": users, "item": items})
    vocabularies, edges = values.vocabularies(base), values.edges(base)
    fields = FieldCodes(schema, vocabularies, edges, sides, users, items)
    side_codes = {side: _side_codes(fields, side, tables, base) for side in SIDES}
    _encode(log, fields, rows)
    newer = _events(fields, side_codes, rows, met)
    events = {n: base.events[n].merged(e) if base else e for n, e in newer.items()}
    _check_sequences(log, events, rows.listed)
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
    )
    return encoder, rows, part


def encode_log(
    log: Log, encoder: ClickEncoder, *, split: bool = True
) -> tuple[ClickEncoder, Rows, np.ndarray]:
    """A labelled log in the codes of a run: the encoder with its events, its rows and their parts.

    split: as `fit` splits it; else all rows are the test part.
    """
    schema = encoder.schema
    _, _, rows, met = _first_pass(log, schema, encoder, [], grow=False)
    part = split_rows(log, schema, rows) if split else np.full(len(rows), TEST, np.int8)
    _encode(log, encoder, rows)
    newer = _events(encoder, encoder.side_codes, rows, met)
    return encoder.with_events(newer), rows, part


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
    *,
    grow: bool = True,
) -> tuple[Vocabulary, Vocabulary, Rows, np.ndarray]:
    """All users and items; ids, times and labels of all rows; and bool (N, sequences), the events
    that each row is.
    """
    users, items = (base.users, base.items) if base else (Vocabulary(), Vocabulary())
    conditions = [sequence.where for sequence in schema.events.values()]
    columns = [schema.user, schema.item, *([schema.time] if schema.time else [])]
    columns += [condition.column for condition in conditions if condition is not None]
    for task in schema.tasks.values():
        columns += [task.label.column, *([task.only_where.column] if task.only_where else [])]
    if schema.split.column is not None:
        columns.append(schema.split.column)
    parts: list[Rows] = []
    met = []
    for frame, where in log.parts(columns):
        if grow:
            users, items = users.grown(frame[schema.user]), items.grown(frame[schema.item])
        time, _ = seconds(frame, schema, where, needed=True)
        labels = task_labels(frame, schema, where)
        user, item = (
            places(users, frame, schema.user, where),
            places(items, frame, schema.item, where),
        )
        parts.append(Rows(np.zeros((frame.height, 0), np.int32), user, item, time, labels))
        flags = np.ones((frame.height, len(conditions)), bool)
        for place, condition in enumerate(conditions):
            if condition is not None:
                flags[:, place] = holds(frame, condition, where)[0]
        met.append(flags)
    if not parts:
        raise fail(log.files[0], "holds no rows")
    for table in tables:
        if table.side == "user":
            users = users.grown(table.frame[table.on])
        else:
            items = items.grown(table.frame[table.on])
    user, item, time, labels = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("user", "item", "time", "labels")
    )
    rows = Rows(np.zeros((len(user), 0), np.int32), user, item, time, labels)
    return users, items, rows, np.concatenate(met)


def _check_labels(rows: Rows, part: np.ndarray, schema: Schema, log: Log) -> None:
    assert rows.labels is not None
    for place, (name, task) in enumerate(schema.tasks.items()):
        labels = rows.labels[part == TRAIN, place]
        labels = labels[labels >= 0]
        if not len(labels) or labels.min() == labels.max():
            problem = (
                f"every label of the training part is {labels[0]}"
                if len(labels)
                else "no row of the training part counts"
            )
            where = f"task {name} ({task.label.column})"
            raise fail(log.files[0], f"{where}: {problem}; nothing can be learned from it")


def _check_sequences(log: Log, events: Mapping[str, Events], listed: Mapping[str, Ragged]) -> None:
    codes = {name: sequence.codes for name, sequence in events.items()}
    codes |= {name: sequence.values for name, sequence in listed.items()}
    for name, values in codes.items():
        if not len(values):
            problem = f"sequence {name}: is empty on every row"
            raise fail(log.files[0], f"{problem}; mend its condition or take it away")


class _Values:
    """Second pass: values of the fields in the training part.

    counts: of each vocabulary, tables of values and how often they occur; samples: of each numeric
    field, some of its numbers.
    """

    def __init__(
        self,
        log: Log,
        schema: Schema,
        sides: Mapping[str, str],
        tables: Sequence[JoinedTable],
        rows: Rows,
        training: np.ndarray,
        ids: Mapping[str, Vocabulary],
    ) -> None:
        self.schema = schema
        counted = [name for name, field in schema.categorical.items() if field.hash is None]
        self.counts: dict[str, list[pl.DataFrame]] = {name: [] for name in counted}
        self.samples: dict[str, list[np.ndarray]] = {name: [] for name in schema.numeric}
        self._read_log(log, [n for n in (*counted, *schema.numeric) if n not in sides], training)
        who = {"user": rows.user, "item": rows.item}
        for name, side in sides.items():
            known = who[side][training & (who[side] >= 0)]
            weight = np.bincount(known, minlength=len(ids[side].keys))
            for table in tables:
                if table.side == side and schema.column(name) in table.frame.columns:
                    self._read_table(table, name, ids[side], weight)

    def _read_log(self, log: Log, names: Sequence[str], training: np.ndarray) -> None:
        schema = self.schema
        share = min(1.0, SAMPLED / max(int(training.sum()), 1))
        generator, start = np.random.default_rng(0), 0
        for frame, where in log.parts([schema.column(name) for name in names]) if names else ():
            mask = training[start : start + frame.height]
            start += frame.height
            frame = frame.filter(pl.Series(mask))
            for name in names:
                column = frame[schema.column(name)]
                if name in self.counts:
                    self.counts[name].append(_counted(schema.categorical[name], column))
                else:
                    values = _only_numbers(column, where, name)
                    self.samples[name].append(values[generator.random(len(values)) < share])

    def _read_table(
        self, table: JoinedTable, name: str, ids: Vocabulary, weight: np.ndarray
    ) -> None:
        """Values of a joined table, each as often as its user or item is in the training part."""
        column = table.frame[self.schema.column(name)]
        place = places(ids, table.frame, table.on, table.path)
        times = np.where(place < 0, 0, weight[place])  # a row without an id has no owner
        if name in self.counts:
            self.counts[name].append(_counted(self.schema.categorical[name], column, times))
        elif name in self.samples:
            values = np.repeat(_only_numbers(column, table.path, name), times)
            self.samples[name].append(values[:SAMPLED])

    def vocabularies(self, base: ClickEncoder | None) -> dict[str, Vocabulary]:
        """The vocabularies of `base`, or new ones, grown by the values that are frequent enough."""
        vocabularies = {}
        for name, tables in self.counts.items():
            total = pl.concat(tables).group_by("value").agg(pl.col("count").sum())
            total = total.filter(pl.col("count") >= self.schema.categorical[name].min_count)
            values = total.sort(["count", "value"], descending=[True, False])["value"]
            vocabularies[name] = (base.vocabularies[name] if base else Vocabulary()).grown(values)
        return vocabularies

    def edges(self, base: ClickEncoder | None) -> dict[str, np.ndarray]:
        """The edges of the buckets of `base`, or new ones of equal count."""
        if base:
            return {name: base.edges[name] for name in self.samples}
        return {
            name: equal_counts(np.concatenate(samples), self.schema.numeric[name].buckets)
            for name, samples in self.samples.items()
        }


def _only_numbers(column: pl.Series, where: object, name: str) -> np.ndarray:
    values, bad = read_numbers(column, where, name)
    if bad.any():
        cell = shown(column.filter(pl.Series(bad))[0])
        problem = f"numeric field {name}: column {shown(column.name)} holds {cell}, not a number"
        raise fail(where, f"{problem}; clean it, or make it categorical")
    return values


def _counted(
    field: Categorical, column: pl.Series, times: np.ndarray | None = None
) -> pl.DataFrame:
    """Values of a column as text, and how often they occur; times: how often each row counts."""
    frame = pl.DataFrame({"value": texts(field, column)})
    frame = frame.with_columns(
        count=pl.lit(1, pl.Int64) if times is None else pl.Series(times.astype(np.int64))
    )
    frame = frame.filter(pl.col("count") > 0)
    if field.split is not None:
        frame = frame.with_columns(lists_of(frame["value"], field.split))
        frame = frame.explode("value", empty_as_null=False)
    frame = frame.group_by("value").agg(pl.col("count").sum())
    return frame.with_columns(clean(frame["value"]).cast(pl.String)).drop_nulls()


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
        who, place = places(ids, table.frame, table.on, table.path), 0
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


def _encode(log: Log, fields: FieldCodes, rows: Rows) -> None:
    """Third pass: write the codes of the log's fields into `rows`."""
    schema = fields.schema
    columns = fields.of_side("row")
    needed = [schema.column(c.name) for c in columns if c.name not in schema.time_fields]
    needed += [s.column for s in schema.listed.values() if s.column is not None]
    rows.fields = _codes_array((len(rows), sum(column.width for column in columns)))
    listed: dict[str, list[Ragged]] = {name: [] for name in schema.listed}
    start = 0
    for frame, where in log.parts(needed or [schema.user]):
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
