"""An event log: files read part by part, fitted to an `Encoder`, and encoded once for training.

Passes over the files: ids, times, labels; then the values of fields on the training part; then
their codes. In memory stay, a row, 17 bytes and one a task and sequence; the codes lie in memory up
to CODES_IN_MEMORY, else in a temporary file."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from ...base.errors import fail, shown
from ..formats.tables import collect, list_files, require_columns, scan_table, unreadable
from .history import Events, Ragged
from .interactions import (
    Encoder,
    Rows,
    column_of,
    holds,
    index,
    parts_of,
    read_numbers,
    seconds,
    task_labels,
    texts,
)
from .schema import Categorical, Join, Schema
from .vocabulary import MISSING, Vocabulary, clean, equal_counts

PART = 500_000  # rows read at once
CODES_IN_MEMORY = 1 << 29  # bytes
SAMPLED = 1_000_000  # numbers that the edges of buckets are made from
TRAIN, VALIDATION, TEST = 0, 1, 2
PARTS = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
LOG_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".txt.gz", ".parquet", ".inter")


@dataclass(frozen=True)
class Log:
    """The files of a log, in the order of their names, and what stands beside them."""

    files: tuple[str, ...]
    folder: Path
    """Where the tables of `join` are looked for."""

    @staticmethod
    def open(path: str | Path, folder: Path | None = None) -> Log:
        """A file, a folder or a pattern."""
        files = tuple(list_files(path, LOG_SUFFIXES))
        return Log(files, folder or Path(files[0]).parent)

    def parts(self, columns: Sequence[str]) -> Iterator[tuple[pl.DataFrame, str]]:
        """Parts of the log in order, each with the name of its file; only these columns, which must
        be there.
        """
        for file in self.files:
            frame, names = scan_log(file)
            require_columns(file, columns, names)
            yield from (
                (part, file) for part in batches(file, frame.select(list(dict.fromkeys(columns))))
            )


def scan_log(file: str | Path) -> tuple[pl.LazyFrame, list[str]]:
    """`scan_table`, which also reads RecBole's files (tabs; `name:type` in the first line)."""
    frame, names = scan_table(file, (*LOG_SUFFIXES, ".user", ".item"))
    kinds = (":token", ":float", ":token_seq", ":float_seq")
    if all(name.endswith(kinds) for name in names):
        plain = [name.rsplit(":", 1)[0] for name in names]
        return frame.rename(dict(zip(names, plain))), plain
    return frame, names


def batches(where: object, frame: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    """A lazy table in parts; what is wrong with it is an `InputError`."""
    parts = iter(frame.collect_batches(chunk_size=PART, maintain_order=True))
    while True:
        try:
            part = next(parts, None)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise unreadable(where, error) from error
        if part is None:
            return
        if part.height:
            yield part


def fit(log: Log, schema: Schema, base: Encoder | None = None) -> tuple[Encoder, Rows, np.ndarray]:
    """Encoder, encoded rows, and int8 part (N,) of each: vocabularies and buckets from the training
    part.

    base: an encoder to grow; all its codes stay as they are. Raises `InputError` for what cannot be
    trained on."""
    tables = [(one, *joined(log, one)) for one in schema.join]
    sides = _sides(log, schema, tables)
    users, items, rows, met = _events(log, schema, base, tables)
    part = _split(log, schema, rows)
    _check_labels(rows, part, schema, log)
    training = part == TRAIN
    vocabularies, edges = _vocabularies(
        log, schema, base, sides, tables, rows, training, users, items
    )
    encoder = Encoder(
        schema, vocabularies, edges, sides, users, items, side_codes={}, seen={}, events={}, last={}
    )
    side_codes = {side: _side_codes(encoder, side, tables, base) for side in ("user", "item")}
    seen = {
        "user": _seen(rows.user[training], len(users.keys), base.seen["user"] if base else None),
        "item": _seen(rows.item[training], len(items.keys), base.seen["item"] if base else None),
    }
    encoder = replace(encoder, side_codes=side_codes, seen=seen)
    _encode(log, encoder, rows)
    newer = events_of(encoder, rows, met)
    events = {name: base.events[name].merged(one) if base else one for name, one in newer.items()}
    for name, one in (*events.items(), *rows.given.items()):
        if not len(one.codes if isinstance(one, Events) else one.values):
            raise fail(
                log.files[0],
                f"sequence {name}: is empty on every row; mend its condition or take it away",
            )
    last = {
        "user": _last(rows, rows.user, len(users.keys), base.last["user"] if base else None),
        "item": _last(rows, rows.item, len(items.keys), base.last["item"] if base else None),
    }
    return replace(encoder, events=events, last=last), rows, part


def encode_log(
    log: Log, encoder: Encoder, *, split: bool = True
) -> tuple[Encoder, Rows, np.ndarray]:
    """A labelled log by the codes of a run, its events added to the histories; and its split as
    `fit` makes it, or all of it as the test part."""
    schema = encoder.schema
    _, _, rows, met = _events(log, schema, encoder, [], grow=False)
    part = _split(log, schema, rows) if split else np.full(len(rows), TEST, np.int8)
    _encode(log, encoder, rows)
    return encoder.with_events(events_of(encoder, rows, met)), rows, part


def joined(log: Log, one: Join) -> tuple[pl.DataFrame, str]:
    """A joined table and its path; its ids must be there once each."""
    path = one.table if Path(one.table).is_absolute() else str(log.folder / one.table)
    frame, names = scan_log(path)
    require_columns(path, [one.on], names)
    table = collect(path, frame)
    ids = clean(table[one.on]).cast(pl.String)
    if (twice := ids.filter(ids.is_duplicated() & ids.is_not_null())).len():
        raise fail(path, f"{one.on} {shown(twice[0])} appears more than once; keep one row each")
    return table, path


Tables = list[tuple[Join, pl.DataFrame, str]]


def _sides(log: Log, schema: Schema, tables: Tables) -> dict[str, str]:
    """Fields that come from joined tables: those whose column the log does not have."""
    there = set(scan_log(log.files[0])[1])
    found: dict[str, str] = {}
    for name in (*schema.categorical, *schema.numeric):
        column = column_of(schema, name)
        if column in there:
            continue
        holders = [(one, table) for one, table, _ in tables if column in table.columns]
        if not holders:
            everything = list(
                dict.fromkeys([*there, *(c for _, table, _ in tables for c in table.columns)])
            )
            require_columns(log.files[0], [column], everything)
        found[name] = "user" if holders[0][0].on == schema.user else "item"
    return found


def _events(
    log: Log, schema: Schema, base: Encoder | None, tables: Tables, *, grow: bool = True
) -> tuple[Vocabulary, Vocabulary, Rows, np.ndarray]:
    """First pass: users and items, all of them, and of each row ids, time, labels, and which events
    it is.
    """
    users, items = (base.users, base.items) if base else (Vocabulary(), Vocabulary())
    wheres = {name: one.where for name, one in schema.events.items()}
    columns = [schema.user, schema.item, *([schema.time] if schema.time else [])]
    conditions = [one for one in wheres.values() if one is not None]
    for target in schema.tasks.values():
        conditions += [one for one in (target.label, target.only_where) if one is not None]
    columns += [one.column for one in conditions]
    if schema.split.column is not None:
        columns.append(schema.split.column)
    found: list[Rows] = []
    met = []
    for frame, where in log.parts(columns):
        if grow:
            users, items = users.grown(frame[schema.user]), items.grown(frame[schema.item])
        time, _ = seconds(frame, schema, where, needed=True)
        labels = task_labels(frame, schema, where)
        nothing = np.zeros((frame.height, 0), np.int32)
        user, item = (
            index(users, frame, schema.user, where),
            index(items, frame, schema.item, where),
        )
        found.append(Rows(nothing, user, item, time, labels))
        flags = np.ones((frame.height, len(wheres)), bool)
        for place, one in enumerate(wheres.values()):
            if one is not None:
                flags[:, place] = holds(frame, one, where)[0]
        met.append(flags)
    if not found:
        raise fail(log.files[0], "holds no rows")
    for one, table, _ in tables:
        if one.on == schema.user:
            users = users.grown(table[one.on])
        else:
            items = items.grown(table[one.on])
    joint = [
        np.concatenate([getattr(one, name) for one in found])
        for name in ("user", "item", "time", "labels")
    ]
    whole = Rows(np.zeros((len(joint[0]), 0), np.int32), joint[0], joint[1], joint[2], joint[3])
    return users, items, whole, np.concatenate(met)


def _split(log: Log, schema: Schema, rows: Rows) -> np.ndarray:
    """int8 (N,): the part of each row."""
    split, n = schema.split, len(rows)
    part = np.full(n, TEST, np.int8)
    if split.column is not None:
        words = pl.concat(
            [frame[split.column].cast(pl.String) for frame, _ in log.parts([split.column])]
        )
        codes = words.replace_strict(PARTS, default=None, return_dtype=pl.Int8)
        if codes.null_count():
            raise fail(
                log.files[0],
                f"column {split.column}: holds {shown(words.filter(codes.is_null())[0])}, not "
                f"{', '.join(PARTS)}",
            )
        part = codes.to_numpy().copy()
    elif split.by == "user":
        order = np.lexsort(
            (rows.time, rows.user)
        )  # stable: the same second keeps the order of the log
        count = np.bincount(rows.user + 1, minlength=2)
        start = np.cumsum(count) - count
        user = rows.user[order] + 1
        place, total = np.arange(n) - start[user], count[user]
        last_train = np.floor(total * split.train + 1e-9)
        last = np.floor(total * (split.train + split.validation) + 1e-9)
        part[order] = np.where(place < last_train, TRAIN, np.where(place < last, VALIDATION, TEST))
    else:
        order = (
            np.argsort(rows.time, kind="stable")
            if split.by == "time"
            else np.random.default_rng(0).permutation(n)
        )
        part[order[: int(n * split.train)]] = TRAIN
        part[order[int(n * split.train) : int(n * (split.train + split.validation))]] = VALIDATION
    for name, code in PARTS.items():
        if not (part == code).any():
            raise fail(
                log.files[0],
                f"the {name} part is empty ({n} rows in all); give more rows or another split",
            )
    return part


def _check_labels(rows: Rows, part: np.ndarray, schema: Schema, log: Log) -> None:
    assert rows.labels is not None
    for place, (name, target) in enumerate(schema.tasks.items()):
        labels = rows.labels[part == TRAIN, place]
        labels = labels[labels >= 0]
        if not len(labels) or labels.min() == labels.max():
            what = (
                "no row of the training part counts"
                if not len(labels)
                else (f"every label of the training part is {labels[0]}")
            )
            raise fail(
                log.files[0],
                f"task {name} ({target.label.column}): {what}; nothing can be learned from it",
            )


def _vocabularies(
    log: Log,
    schema: Schema,
    base: Encoder | None,
    sides: dict[str, str],
    tables: Tables,
    rows: Rows,
    training: np.ndarray,
    users: Vocabulary,
    items: Vocabulary,
) -> tuple[dict[str, Vocabulary], dict[str, np.ndarray]]:
    """Second pass: values of the training part, counted; edges of the numbers."""
    counts: dict[str, list[pl.DataFrame]] = {
        n: [] for n, c in schema.categorical.items() if c.hash is None
    }
    sampled: dict[str, list[np.ndarray]] = {name: [] for name in schema.numeric}
    wanted = [name for name in (*counts, *sampled) if name not in sides]
    share = min(1.0, SAMPLED / max(int(training.sum()), 1))
    generator, start = np.random.default_rng(0), 0
    for frame, where in log.parts([column_of(schema, name) for name in wanted]) if wanted else ():
        mask = training[start : start + frame.height]
        start += frame.height
        frame = frame.filter(pl.Series(mask))
        for name in wanted:
            column = frame[column_of(schema, name)]
            if name in counts:
                counts[name].append(_counted(schema.categorical[name], column))
            else:
                values = _only_numbers(column, where, name)
                sampled[name].append(values[generator.random(len(values)) < share])
    for name, side in sides.items():
        known, who = (users, rows.user) if side == "user" else (items, rows.item)
        weight = np.bincount(who[training & (who >= 0)], minlength=len(known.keys))
        for one, table, path in tables:
            column = column_of(schema, name)
            if column not in table.columns or (one.on == schema.user) != (side == "user"):
                continue
            ids = index(known, table, one.on, path)
            times = np.where(ids < 0, 0, weight[ids])  # a row without an id is no one's
            if name in counts:
                counts[name].append(_counted(schema.categorical[name], table[column], times))
            elif name in sampled:
                sampled[name].append(
                    np.repeat(_only_numbers(table[column], path, name), times)[:SAMPLED]
                )
    vocabularies = {}
    for name, found in counts.items():
        total = pl.concat(found).group_by("value").agg(pl.col("count").sum())
        total = total.filter(pl.col("count") >= schema.categorical[name].min_count)
        values = total.sort(["count", "value"], descending=[True, False])["value"]
        vocabularies[name] = (base.vocabularies[name] if base else Vocabulary()).grown(values)
    edges = {
        name: base.edges[name]
        if base
        else equal_counts(np.concatenate(found), schema.numeric[name].buckets)
        for name, found in sampled.items()
    }
    return vocabularies, edges


def _only_numbers(column: pl.Series, where: object, name: str) -> np.ndarray:
    values, bad = read_numbers(column, where, name)
    if bad.any():
        cell = shown(column.filter(pl.Series(bad))[0])
        raise fail(
            where,
            f"numeric field {name}: column {shown(column.name)} holds {cell}, not a number; clean it, or "
            "make it categorical",
        )
    return values


def _counted(one: Categorical, column: pl.Series, times: np.ndarray | None = None) -> pl.DataFrame:
    """Values of a column as text, and how often each is there."""
    frame = pl.DataFrame({"value": texts(one, column)})
    frame = frame.with_columns(
        count=pl.lit(1, pl.Int64) if times is None else pl.Series(times.astype(np.int64))
    )
    frame = frame.filter(pl.col("count") > 0)
    if one.split is not None:
        frame = frame.with_columns(parts_of(frame["value"], one.split)).explode(
            "value", empty_as_null=False
        )
    frame = frame.group_by("value").agg(pl.col("count").sum())
    return frame.with_columns(clean(frame["value"]).cast(pl.String)).drop_nulls()


def _side_codes(encoder: Encoder, side: str, tables: Tables, base: Encoder | None) -> np.ndarray:
    """int32 (U or I, ·): the joined fields of all users or items; without a row in the tables,
    missing.
    """
    schema, known = encoder.schema, encoder.users if side == "user" else encoder.items
    columns = encoder.of_side(side)
    out = np.full((len(known.keys), sum(one.width for one in columns)), MISSING, np.int32)
    if base is not None:
        out[: len(base.side_codes[side])] = base.side_codes[side]
    for one, table, path in tables:
        if (one.on == schema.user) != (side == "user"):
            continue
        who, place = index(known, table, one.on, path), 0
        for column in columns:
            name = column_of(schema, column.name)
            if name in table.columns:
                codes = encoder.codes(column.name, table[name], path)[0]
                out[who[who >= 0], place : place + column.width] = codes[who >= 0]
            place += column.width
    return out


def _seen(who: np.ndarray, count: int, before: np.ndarray | None) -> np.ndarray:
    seen = np.zeros(count, bool)
    if before is not None:
        seen[: len(before)] = before
    seen[who[who >= 0]] = True
    return seen


def _encode(log: Log, encoder: Encoder, rows: Rows) -> None:
    """Third pass: the codes of the fields of the log, into `rows`."""
    schema = encoder.schema
    columns = encoder.of_side("row")
    needed = [column_of(schema, one.name) for one in columns if one.name not in schema.time_fields]
    needed += [one.column for one in schema.given.values() if one.column is not None]
    rows.fields = _codes_array((len(rows), sum(one.width for one in columns)))
    given: dict[str, list[Ragged]] = {name: [] for name in schema.given}
    start = 0
    for frame, where in log.parts(needed or [schema.user]):
        part = slice(start, start + frame.height)
        rows.fields[part], _ = encoder.fields(frame, rows.time[part], where)
        start += frame.height
        for name in given:
            given[name].append(encoder.given(name, frame, where))
    for name, found in given.items():
        lengths = np.concatenate([np.diff(one.offsets) for one in found])
        rows.given[name] = Ragged(
            np.concatenate([one.values for one in found]), np.r_[0, np.cumsum(lengths)]
        )


def _codes_array(shape: tuple[int, int]) -> np.ndarray:
    """int32 zeros; of a large size in a temporary file that goes when the array goes."""
    if 4 * shape[0] * shape[1] <= CODES_IN_MEMORY:
        return np.zeros(shape, np.int32)
    folder = tempfile.TemporaryDirectory(prefix="headwise-")
    codes = np.memmap(Path(folder.name) / "codes", np.int32, "w+", shape=shape)
    weakref.finalize(codes, folder.cleanup)
    return codes


def events_of(encoder: Encoder, rows: Rows, met: np.ndarray) -> dict[str, Events]:
    """The events of each sequence that is made from the log."""
    found = {}
    for place, (name, one) in enumerate(encoder.schema.events.items()):
        which = met[:, place] & (rows.user >= 0)
        found[name] = Events.of(
            rows.user[which], rows.time[which], field_codes(encoder, rows, one.of)[which]
        )
    return found


def field_codes(encoder: Encoder, rows: Rows, name: str) -> np.ndarray:
    """int32 (N,) codes of a field with one value, of the log or of a joined table."""
    side = encoder.sides.get(name, "row")
    place = 0
    for one in encoder.of_side(side):
        if one.name == name:
            break
        place += one.width
    if side == "row":
        return rows.fields[:, place]
    return encoder.side(side, rows.user if side == "user" else rows.item)[:, place]


def _last(rows: Rows, who: np.ndarray, count: int, before: np.ndarray | None) -> np.ndarray:
    """int32 (U or I, M): the codes of the log's fields in the last row of each."""
    out = np.full((count, rows.fields.shape[1]), MISSING, np.int32)
    if before is not None:
        out[: len(before)] = before
    order = np.argsort(rows.time, kind="stable")
    order = order[who[order] >= 0]
    newest = np.full(count, -1, np.int64)
    newest[who[order]] = order  # the last one assigned stays
    there = newest >= 0
    out[there] = rows.fields[newest[there]]
    return out
