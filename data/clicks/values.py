"""The second pass over a click log: the values of its fields in the training part.

Shapes: N rows of the log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from ...base.account import note
from ...base.errors import fail, shown
from ..formats.tables import MISSING_WORDS
from ..formats.tables_codes import doubt_codes
from .cells import field_numbers, places, take, texts
from .coding import Rows
from .encoder import ClickEncoder
from .lists import values_of
from .log import JoinedTable, Log
from .marks import NumberMarks, number_parts
from .schema import Categorical, Numeric, Schema
from .vocabulary import Vocabulary, clean, equal_counts

SAMPLED = 1_000_000  # numbers that the edges of buckets are computed from


class TrainingValues:
    """Values of the fields in the training part.

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
        marks: NumberMarks,
    ) -> None:
        self.schema, self.marks = schema, marks
        counted = [name for name, field in schema.categorical.items() if field.hash is None]
        self.counts: dict[str, list[pl.DataFrame]] = {name: [] for name in counted}
        self.samples: dict[str, list[np.ndarray]] = {name: [] for name in schema.numeric}
        self.words: dict[str, Counter[str]] = {name: Counter() for name in counted}
        self._read_log(log, [n for n in (*counted, *schema.numeric) if n not in sides], training)
        who = {"user": rows.user, "item": rows.item}
        for name, side in sides.items():
            known = who[side][training & (who[side] >= 0)]
            weight = np.bincount(known, minlength=len(ids[side].keys))
            for table in tables:
                if table.side == side and schema.column(name) in table.frame.columns:
                    self._read_table(table, name, ids[side], weight)
        for name, samples in self.samples.items():
            cure = f"`missing: {{}}` of {name} under numeric in the schema"
            doubt_codes(log.files[0], schema.column(name), np.concatenate(samples), cure)
        for name, words in self.words.items():
            if words:
                what = f"cells of {name} hold a word that counts as missing"
                cure = "`missing_words: false` in the schema makes it a value"
                note("values", f"{what}; {cure}", words, count=words.total())

    def _read_log(self, log: Log, names: Sequence[str], training: np.ndarray) -> None:
        schema = self.schema
        share = min(1.0, SAMPLED / max(int(training.sum()), 1))
        generator, start = np.random.default_rng(0), 0
        columns = [schema.column(name) for name in names]
        parts = number_parts(log, schema, columns, self.marks) if names else ()
        for frame, where in parts:
            mask = training[start : start + frame.height]
            start += frame.height
            frame = frame.filter(pl.Series(mask))
            for name in names:
                listed = name in self.counts and schema.categorical[name].split is not None
                column = take(frame, schema.column(name), where, lists_allowed=listed)
                if name in self.counts:
                    self.counts[name].append(_counted(schema.categorical[name], column, where))
                    self._count_words(name, column)
                else:
                    values = _only_numbers(schema.numeric[name], column, where, name)
                    self.samples[name].append(values[generator.random(len(values)) < share])

    def _count_words(self, name: str, column: pl.Series) -> None:
        """Count the cells that hold a word for a missing value."""
        kind = column.dtype
        if not (kind == pl.String or isinstance(kind, pl.Categorical | pl.Enum)):
            return
        if not self.schema.categorical[name].missing_words:
            return
        text = column.cast(pl.String).str.strip_chars()
        words = text.filter(text.str.to_lowercase().is_in(MISSING_WORDS[1:]))
        self.words[name].update(words.to_list())

    def _read_table(
        self, table: JoinedTable, name: str, ids: Vocabulary, weight: np.ndarray
    ) -> None:
        """Values of a joined table, each as often as its user or item is in the training part."""
        column = table.frame[self.schema.column(name)]
        words = self.schema.missing_words(table.on)
        place = places(ids, table.frame, table.on, table.path, missing_words=words)
        times = np.where(place < 0, 0, weight[place])  # a row without an id has no owner
        if name in self.counts:
            field = self.schema.categorical[name]
            self.counts[name].append(_counted(field, column, table.path, times))
        elif name in self.samples:
            values = _only_numbers(self.schema.numeric[name], column, table.path, name)
            values = np.repeat(values, times)
            self.samples[name].append(values[:SAMPLED])

    def vocabularies(self, base: ClickEncoder | None) -> dict[str, Vocabulary]:
        """The vocabularies of `base`, or new ones, grown by the values that are frequent enough."""
        vocabularies = {}
        for name, tables in self.counts.items():
            total = pl.concat(tables).group_by("value").agg(pl.col("count").sum())
            total = total.filter(pl.col("count") >= self.schema.categorical[name].min_count)
            values = total.sort(["count", "value"], descending=[True, False])["value"]
            before = base.vocabularies[name] if base else Vocabulary()
            # Words for missing values are no longer among them, unless they are values.
            vocabularies[name] = before.grown(values, missing_words=False)
        return vocabularies

    def edges(self, base: ClickEncoder | None) -> dict[str, np.ndarray]:
        """The edges of the buckets of `base`, or new ones of equal count."""
        if base:
            return {name: base.edges[name] for name in self.samples}
        return {
            name: equal_counts(np.concatenate(samples), self.schema.numeric[name].buckets)
            for name, samples in self.samples.items()
        }


def _only_numbers(field: Numeric, column: pl.Series, where: object, name: str) -> np.ndarray:
    values, bad = field_numbers(field, column, where, name)
    if bad.any():
        cell = shown(column.filter(pl.Series(bad))[0])
        problem = f"numeric field {name}: column {shown(column.name)} holds {cell}, not a number"
        raise fail(where, f"{problem}; clean it, or make it categorical")
    return values


def _counted(
    field: Categorical, column: pl.Series, where: object, times: np.ndarray | None = None
) -> pl.DataFrame:
    """Values of a column as text, and how often they occur; times: how often each row counts."""
    count = np.ones(len(column), np.int64) if times is None else times.astype(np.int64)
    present_mask = pl.Series(count > 0)
    column, count = texts(field, column).filter(present_mask), count[count > 0]
    if field.split is not None:
        column, lengths = values_of(column, field.split, where, missing_words=field.missing_words)
        count = np.repeat(count, lengths)
    values = clean(column, missing_words=field.missing_words).cast(pl.String)
    frame = pl.DataFrame({"value": values, "count": count})
    return frame.group_by("value").agg(pl.col("count").sum()).drop_nulls()
