"""Rows of an event log as codes: fields, labels, and what the user did before.

Shapes: N rows, M columns of codes (a field of several values has several), S tasks, F sequences, U
users, I items, T events of all rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import polars as pl

from ...base.errors import fail, nearest, shown
from ..formats.tables import numbers
from .history import Events, Ragged
from .schema import TIME_FIELDS, UNITS, Categorical, Condition, Numeric, Schema
from .vocabulary import FIRST, MISSING, Vocabulary, bucketed, clean, hashed

NOW = (1 << 32) - 1  # the second of a row without a time: after all events


@dataclass(frozen=True)
class Column:
    """A field as columns of codes: how many codes and columns it has, and whose it is.

    side: "row" where the log holds it, "user" or "item" where a joined table does.
    """

    name: str
    codes: int
    width: int = 1
    side: str = "row"


@dataclass
class Rows:
    """Encoded rows. `fields`: int32 (N, M) of those fields that the log holds; `user`, `item`:
    int32 (N,), -1 unknown.

    time: int64 (N,) seconds; labels: int8 (N, S), -1 where a task does not count, or None; given:
    sequences that the table holds; sides: codes of fields of joined tables that the table itself
    holds; unread: cells (N,) that should be numbers and are not."""

    fields: np.ndarray
    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    labels: np.ndarray | None = None
    given: dict[str, Ragged] = field(default_factory=dict)
    sides: dict[str, np.ndarray] = field(default_factory=dict)
    unread: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True)
class Encoder:
    """All that turns rows of a table into codes: what a run keeps of its log.

    vocabularies: of the fields that have one; edges: of the numeric ones; sides: which fields come
    from joined tables; users, items: every id of the log and the joined tables; side_codes: (U, ·)
    and (I, ·) codes of the joined fields, in the order of `columns`; seen: bool (U,) and (I,),
    those of the training part; events: by sequence; last: codes of the fields of the log in the
    last row of each user and item; rates: what counting the training part gives, for a baseline.
    """

    schema: Schema
    vocabularies: Mapping[str, Vocabulary]
    edges: Mapping[str, np.ndarray]
    sides: Mapping[str, str]
    users: Vocabulary
    items: Vocabulary
    side_codes: Mapping[str, np.ndarray]
    seen: Mapping[str, np.ndarray]
    events: Mapping[str, Events]
    last: Mapping[str, np.ndarray]
    rates: Mapping[str, np.ndarray] = field(default_factory=dict)

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """All fields: those of the log, of users, of items."""
        found = [
            Column(name, self.size(name), width_of(self.schema, name), self.sides.get(name, "row"))
            for name in self.schema.fields
        ]
        return tuple(sorted(found, key=lambda one: ("row", "user", "item").index(one.side)))

    def of_side(self, side: str) -> tuple[Column, ...]:
        """The fields of the log ("row"), or of a joined table."""
        return tuple(one for one in self.columns if one.side == side)

    def size(self, name: str) -> int:
        """Number of codes of a field."""
        if name in self.schema.time_fields:
            return FIRST + TIME_FIELDS[name]
        if name in self.schema.numeric:
            return FIRST + len(self.edges[name]) + 1
        one = self.schema.categorical[name]
        return FIRST + one.hash if one.hash else self.vocabularies[name].size

    def codes(
        self, name: str, column: pl.Series, where: object
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """int32 codes (n, width) of a field's column, and which cells should be numbers and are
        not.
        """
        if name in self.schema.numeric:
            values, bad = read_numbers(column, where, name)
            return bucketed(values, self.edges[name])[:, None], bad
        one = self.schema.categorical[name]
        column = texts(one, column)
        if one.split is None:
            return self._coded(one, name, column)[:, None], None
        lists = parts_of(column, one.split)
        length = lists.list.len().fill_null(0).to_numpy().astype(np.int64)
        flat = self._coded(one, name, lists.explode(empty_as_null=False, keep_nulls=False))
        out = np.full((len(column), one.length), MISSING, np.int32)
        place = np.arange(len(flat)) - np.repeat(np.cumsum(length) - length, length)
        fits = place < one.length
        out[np.repeat(np.arange(len(column)), length)[fits], place[fits]] = flat[fits]
        return out, None

    def _coded(self, one: Categorical, name: str, column: pl.Series) -> np.ndarray:
        return hashed(column, one.hash) if one.hash else self.vocabularies[name].codes(column)

    def rows(self, frame: pl.DataFrame, where: object, *, labels: bool = True) -> Rows:
        """Encode a part of a table. Raises `InputError` for a missing column or a column of another
        kind.

        labels: also those of the tasks; else they may be missing. Fields of joined tables are taken
        from the table itself where it has their column. Without a time column, or where a cell of
        it is empty, a row's time is NOW."""
        schema = self.schema
        user = index(self.users, frame, schema.user, where)
        item = index(self.items, frame, schema.item, where)
        time, unread = seconds(frame, schema, where, needed=labels)
        unread = unread.astype(np.int32)
        fields, bad = self.fields(frame, time, where)
        unread += bad
        sides = {}
        for column in (*self.of_side("user"), *self.of_side("item")):
            name = column_of(schema, column.name)
            if name in frame.columns:
                sides[column.name], wrong = self.codes(column.name, frame[name], where)
                unread += 0 if wrong is None else wrong
        given = {name: self.given(name, frame, where) for name in schema.given}
        found = task_labels(frame, schema, where) if labels else None
        return Rows(fields, user, item, time, found, given, sides, unread)

    def fields(
        self, frame: pl.DataFrame, time: np.ndarray, where: object
    ) -> tuple[np.ndarray, np.ndarray]:
        """int32 codes (n, M) of the log's own fields, and how many cells (n,) should be numbers and
        are not.
        """
        parts, unread = [np.zeros((frame.height, 0), np.int32)], np.zeros(frame.height, np.int32)
        for column in self.of_side("row"):
            if column.name in self.schema.time_fields:
                parts.append(time_codes(column.name, time)[:, None])
                continue
            cells = take(frame, column_of(self.schema, column.name), where)
            codes, bad = self.codes(column.name, cells, where)
            unread += 0 if bad is None else bad
            parts.append(codes)
        return np.concatenate(parts, 1), unread

    def given(self, name: str, frame: pl.DataFrame, where: object) -> Ragged:
        """A sequence that the table holds."""
        one = self.schema.sequences[name]
        assert one.column is not None
        lists = parts_of(take(frame, one.column, where), one.split)
        length = lists.list.len().fill_null(0).to_numpy().astype(np.int64)
        target = self.schema.categorical[one.of]
        flat = self._coded(
            target, one.of, texts(target, lists.explode(empty_as_null=False, keep_nulls=False))
        )
        return Ragged(flat, np.r_[0, np.cumsum(length)])

    def side(self, side: str, who: np.ndarray) -> np.ndarray:
        """Codes (N, ·) of the joined fields of users or items; of those unknown, missing."""
        return codes_of(self.side_codes[side], who)

    def trained_on(self, side: str, who: np.ndarray) -> np.ndarray:
        """bool (N,): which users or items the training part has."""
        seen = self.seen[side]
        return (who >= 0) & seen[np.maximum(who, 0)] if len(seen) else np.zeros(len(who), bool)

    def with_events(self, newer: Mapping[str, Events]) -> Encoder:
        """With further events in the histories."""
        return replace(
            self, events={name: one.merged(newer[name]) for name, one in self.events.items()}
        )


def codes_of(table: np.ndarray, who: np.ndarray) -> np.ndarray:
    """Rows (N, ·) of a table of codes by place; of those unknown (-1), missing."""
    out = (
        table[np.maximum(who, 0)] if len(table) else np.zeros((len(who), table.shape[1]), np.int32)
    )
    out[who < 0] = MISSING
    return out


def width_of(schema: Schema, name: str) -> int:
    """Columns of codes of a field."""
    one = schema.categorical.get(name)
    return one.length if one is not None and one.split is not None else 1


def column_of(schema: Schema, name: str) -> str:
    """The table's column of a field."""
    one: Categorical | Numeric | None = schema.categorical.get(name) or schema.numeric.get(name)
    assert one is not None
    return one.column


def take(frame: pl.DataFrame, column: str, where: object) -> pl.Series:
    """A column that must be there."""
    if column not in frame.columns:
        raise fail(where, f"there is no column {shown(column)}{nearest(column, frame.columns)}")
    return frame[column]


def texts(one: Categorical, column: pl.Series) -> pl.Series:
    """The column with only the first characters, where the schema says so."""
    return clean(column).cast(pl.String).str.slice(0, one.prefix) if one.prefix else column


def parts_of(column: pl.Series, mark: str) -> pl.Series:
    """Lists of a column that holds lists, or text with `mark` between the values."""
    if isinstance(column.dtype, pl.List | pl.Array):
        return column.cast(pl.List(column.dtype.inner))  # type: ignore[attr-defined]
    text = clean(column).cast(pl.String)
    lists = text.str.split(mark)
    return lists.list.eval(pl.element().filter(pl.element() != ""))


def read_numbers(column: pl.Series, where: object, name: str) -> tuple[np.ndarray, np.ndarray]:
    """float64 (n,), NaN where missing, and which cells are no numbers."""
    try:
        return numbers(column)
    except TypeError as error:
        raise fail(
            where, f"column {shown(column.name)} of {name} holds {error}, not numbers"
        ) from None


def index(vocabulary: Vocabulary, frame: pl.DataFrame, column: str, where: object) -> np.ndarray:
    """int32 (n,) places of ids, -1 for those unknown or missing."""
    return np.maximum(vocabulary.codes(take(frame, column, where)) - FIRST, -1)


def seconds(
    frame: pl.DataFrame, schema: Schema, where: object, *, needed: bool
) -> tuple[np.ndarray, np.ndarray]:
    """int64 (n,) whole seconds since 1970, and which cells were no times. `InputError` where one is
    needed.
    """
    rows = frame.height
    if schema.time is None or (schema.time not in frame.columns and not needed):
        return np.full(rows, NOW), np.zeros(rows, bool)
    column = take(frame, schema.time, where)
    if column.dtype.is_temporal():
        column = column.cast(pl.Datetime("us")).dt.epoch("s")
        values, bad = numbers(column)
    elif column.dtype.is_integer():
        values, bad = column.cast(pl.Int64).to_numpy(), np.zeros(rows, bool)
        whole = values // UNITS[schema.unit] if column.null_count() == 0 else None
        if whole is not None and len(whole) and whole.min() >= 0 and whole.max() < NOW:
            return whole, bad
        values = values / UNITS[schema.unit]
    else:
        values, bad = read_numbers(column, where, "time")
        values = np.floor(values / UNITS[schema.unit])
    wrong = bad | np.isnan(values) | (values < 0) | (values >= NOW)
    if needed and wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        what = f"time {shown(column.name)}: row {row + 1} of this part holds {shown(column[row])}"
        raise fail(
            where,
            f"{what}, not a time in {schema.unit} since 1970; mend or remove such rows, or name the unit",
        )
    return np.where(wrong, NOW, np.nan_to_num(values)).astype(np.int64), bad


def time_codes(name: str, time: np.ndarray) -> np.ndarray:
    """int32 codes (n,) of a part of the time, in UTC."""
    moment = pl.from_epoch(pl.Series(time), "s")
    part = {"hour": moment.dt.hour, "weekday": moment.dt.weekday, "month": moment.dt.month}[name]()
    codes = part.to_numpy().astype(np.int32) + FIRST - (0 if name == "hour" else 1)
    codes[time == NOW] = MISSING
    return codes


def holds(frame: pl.DataFrame, one: Condition, where: object) -> tuple[np.ndarray, np.ndarray]:
    """Whether a condition holds in each row, and which rows have no answer (an empty cell)."""
    column = take(frame, one.column, where)
    if isinstance(one.equals, str):
        text = clean(column).cast(pl.String)
        return (text == one.equals).fill_null(False).to_numpy(), text.is_null().to_numpy()
    values, bad = read_numbers(column, where, "a condition")
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise fail(
            where,
            f"column {shown(one.column)}: row {row + 1} of this part holds {shown(column[row])}, "
            "not a number",
        )
    none = np.isnan(values)
    if one.at_least is not None:
        return values >= one.at_least, none
    if one.at_most is not None:
        return values <= one.at_most, none
    if one.equals is not None:
        return values == one.equals, none
    odd = ~none & (values != 0) & (values != 1)
    if odd.any():
        row = int(np.flatnonzero(odd)[0])
        raise fail(
            where,
            f"column {shown(one.column)}: row {row + 1} of this part holds {values[row]:g}, not 0 or 1; "
            "say at_least or equals in the schema",
        )
    return values == 1, none


def task_labels(frame: pl.DataFrame, schema: Schema, where: object) -> np.ndarray:
    """int8 (n, S): 1, 0, or -1 where a task does not count."""
    out = np.empty((frame.height, len(schema.tasks)), np.int8)
    for place, one in enumerate(schema.tasks.values()):
        yes, none = holds(frame, one.label, where)
        if one.only_where is not None:
            counts, _ = holds(frame, one.only_where, where)
            none = none | ~counts
        out[:, place] = np.where(none, -1, yes)
    return out
