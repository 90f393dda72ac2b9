"""Rows of a click log as codes: by vocabularies, hashes and buckets.

Shapes: n rows of a table, M columns of codes (a field with several values per cell has several), S
tasks, U users, I items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import polars as pl

from .cells import field_numbers, places, take, task_labels, texts
from .history import Ragged
from .lists import SPACE, values_of, without
from .schema import TIME_FIELDS, Categorical, Schema
from .times import seconds, time_codes
from .vocabulary import FIRST, MISSING, Vocabulary, bucketed, hashed


@dataclass(frozen=True)
class Column:
    """A field as columns of codes: the number of codes, the number of columns, and its owner.

    side: "row" where the log holds it, "user" or "item" where a joined table does.
    """

    name: str
    codes: int
    width: int = 1
    side: str = "row"


@dataclass
class Rows:
    """Encoded rows of a log.

    fields  int32 (n, M), codes of the fields that the log itself holds
    user    int32 (n,), places of the users, -1 unknown; item: the same for items
    time    int64 (n,), seconds
    labels  int8 (n, S), -1 where a task does not count; or None
    listed  the sequences that the table holds as lists
    sides   codes of those fields of joined tables that the table itself holds
    unread  int32 (n,), how many cells should be numbers and are not
    """

    fields: np.ndarray
    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    labels: np.ndarray | None = None
    listed: dict[str, Ragged] = field(default_factory=dict)
    sides: dict[str, np.ndarray] = field(default_factory=dict)
    unread: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True)
class FieldCodes:
    """What turns the rows of a table into codes.

    vocabularies  of the fields that have one
    edges         of the buckets of the numeric fields
    sides         which fields come from joined tables: "user" or "item"
    users, items  all ids of the log and the joined tables
    """

    schema: Schema
    vocabularies: Mapping[str, Vocabulary]
    edges: Mapping[str, np.ndarray]
    sides: Mapping[str, str]
    users: Vocabulary
    items: Vocabulary

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """All fields: those of the log, of users, of items."""
        columns = [
            Column(name, self.size(name), self.schema.width(name), self.sides.get(name, "row"))
            for name in self.schema.fields
        ]
        return tuple(sorted(columns, key=lambda column: ("row", "user", "item").index(column.side)))

    def of_side(self, side: str) -> tuple[Column, ...]:
        """The fields of the log ("row"), or of the joined tables of users or items."""
        return tuple(column for column in self.columns if column.side == side)

    def ids(self, side: str) -> Vocabulary:
        """The ids of a side, "user" or "item"."""
        return self.users if side == "user" else self.items

    def size(self, name: str) -> int:
        """Number of codes of a field."""
        if name in self.schema.time_fields:
            return FIRST + TIME_FIELDS[name]
        if name in self.schema.numeric:
            return FIRST + len(self.edges[name]) + 1
        buckets = self.schema.categorical[name].hash
        return FIRST + buckets if buckets else self.vocabularies[name].size

    def codes(
        self, name: str, column: pl.Series, where: object
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """int32 codes (n, width) of a field's column, and a mask (n,) of the cells that should be
        numbers and are not.
        """
        if name in self.schema.numeric:
            values, bad = field_numbers(self.schema.numeric[name], column, where, name)
            return bucketed(values, self.edges[name])[:, None], bad
        categorical = self.schema.categorical[name]
        column = texts(categorical, column)
        if categorical.split is None:
            return self._coded(categorical, name, column)[:, None], None
        listed, length = values_of(
            column,
            categorical.split,
            where,
            brackets=name not in self._with_brackets,
            missing_words=categorical.missing_words,
        )
        values = self._coded(categorical, name, listed)
        codes = np.full((len(column), categorical.length), MISSING, np.int32)
        place = np.arange(len(values)) - np.repeat(np.cumsum(length) - length, length)
        fits = place < categorical.length
        codes[np.repeat(np.arange(len(column)), length)[fits], place[fits]] = values[fits]
        return codes, None

    @cached_property
    def _with_brackets(self) -> frozenset[str]:
        """Fields of older runs, which took text in brackets for words between spaces."""
        return frozenset(
            name
            for name, words in self.vocabularies.items()
            if not words.integers and words.keys.str.contains(r"^[\[({][^\])}]*$").any()
        )

    def _coded(self, categorical: Categorical, name: str, column: pl.Series) -> np.ndarray:
        words = categorical.missing_words
        if categorical.hash:
            return hashed(column, categorical.hash, missing_words=words)
        return self.vocabularies[name].codes(column, missing_words=words)

    def ids_of(
        self, side: str, frame: pl.DataFrame, column: str | None, where: object
    ) -> np.ndarray:
        """int32 (n,) places of the users ("user") or items ("item") of a column of a table, -1 for
        unknown or missing ones, and all of them where there is no such column (None).
        """
        if column is None:
            return np.full(frame.height, -1, np.int32)
        words = self.schema.missing_words(getattr(self.schema, side))
        return places(self.ids(side), frame, column, where, missing_words=words)

    def rows(self, frame: pl.DataFrame, where: object, *, labels: bool = True) -> Rows:
        """Encode a part of a table.

        labels: with the labels of the tasks, whose columns must then be there. Fields of joined
        tables are read from the table itself where it has their column. Without a time column, or
        where a cell of it is empty, a row's time is NOW. Raises InputError for a missing column or
        a column of the wrong kind.
        """
        schema = self.schema
        user = self.ids_of("user", frame, schema.user, where)
        item = self.ids_of("item", frame, schema.item, where)
        time, unread = seconds(frame, schema, where, needed=labels)
        unread = unread.astype(np.int32)
        fields, bad = self.fields(frame, time, where)
        unread += bad
        sides = {}
        for column in (*self.of_side("user"), *self.of_side("item")):
            name = schema.column(column.name)
            if name in frame.columns:
                sides[column.name], wrong = self.codes(column.name, frame[name], where)
                unread += 0 if wrong is None else wrong
        listed = {name: self.listed(name, frame, where) for name in schema.listed}
        targets = task_labels(frame, schema, where) if labels else None
        return Rows(fields, user, item, time, targets, listed, sides, unread)

    def fields(
        self, frame: pl.DataFrame, time: np.ndarray, where: object
    ) -> tuple[np.ndarray, np.ndarray]:
        """int32 codes (n, M) of the fields that the log holds, and how many cells of each row (n,)
        should be numbers and are not.
        """
        parts, unread = [np.zeros((frame.height, 0), np.int32)], np.zeros(frame.height, np.int32)
        for column in self.of_side("row"):
            if column.name in self.schema.time_fields:
                parts.append(time_codes(column.name, time)[:, None])
                continue
            categorical = self.schema.categorical.get(column.name)
            listed = categorical is not None and categorical.split is not None
            cells = take(frame, self.schema.column(column.name), where, lists_allowed=listed)
            codes, bad = self.codes(column.name, cells, where)
            unread += 0 if bad is None else bad
            parts.append(codes)
        return np.concatenate(parts, 1), unread

    def listed(self, name: str, frame: pl.DataFrame, where: object) -> Ragged:
        """A sequence that the table holds as lists."""
        sequence = self.schema.sequences[name]
        assert sequence.column is not None
        cells = take(frame, sequence.column, where, lists_allowed=True)
        categorical = self.schema.categorical[sequence.of]
        listed, lengths = values_of(
            cells,
            sequence.split,
            where,
            any_mark=sequence.split == SPACE,
            missing_words=categorical.missing_words,
        )
        listed, lengths = without(listed, lengths, sequence.filler)
        values = self._coded(categorical, sequence.of, texts(categorical, listed))
        return Ragged(values, np.r_[0, np.cumsum(lengths)])


def codes_of(table: np.ndarray, who: np.ndarray) -> np.ndarray:
    """Rows (n, ·) of a table of codes by place (n,); missing for unknown places (-1)."""
    if not len(table):
        return np.full((len(who), table.shape[1]), MISSING, np.int32)
    codes = table[np.maximum(who, 0)]
    codes[who < 0] = MISSING
    return codes
