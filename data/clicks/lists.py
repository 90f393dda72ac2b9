"""Cells that hold several values: lists of a typed column, or text in which a mark parts them.

Text is read as people and programs write it: `1 7 24`, `1|7|24`, `[1, 7, 24]`, `['a', 'b']`,
`{1,7}`. Nulls and words for them are no values, nor is what only fills up lists of a fixed length,
such as the zeros behind `[3, 7, 0, 0, 0]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import polars as pl

from ...base.account import note
from ...base.errors import fail, shown
from .cells import take, texts
from .log import Log
from .schema import Schema
from .vocabulary import UNSEEN, Vocabulary, clean

SPACE = " "
_BRACKETS = r"(?s)^\s*[\[({]\s*(.*?)\s*[\])}]\s*$"
_QUOTED = r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s,;|"']+"""
_MARKS = ("|", ";", ",")
# What programs fill lists up with, in lower case.
_FILLERS = ("0", "-1", "<pad>", "[pad]", "pad", "<padding>", "padding", "unk", "-")
_MOST = 0.5  # share of the lists that end, or begin, with a filler


def values_of(
    column: pl.Series,
    mark: str,
    where: object,
    *,
    any_mark: bool = False,
    brackets: bool = True,
    missing_words: bool = True,
) -> tuple[pl.Series, np.ndarray]:
    """The values of all cells, one cell after the other, and int64 (n,), how many each cell has.

    mark: between the values of text. any_mark: where it is a space, also `|`, `;` and `,` in cells
    without a space between values. brackets: text in brackets is a list whatever the mark is.
    missing_words: whether a word such as NA is no value. Raises InputError for lists of lists and
    the like.
    """
    if isinstance(column.dtype, pl.List | pl.Array):
        inner = column.dtype.inner  # type: ignore[attr-defined]
        if inner.is_nested() or inner == pl.Binary:
            problem = f"column {shown(column.name)} holds lists of {inner}, not of ids"
            raise fail(where, problem)
        lists = column.cast(pl.List(inner))
    else:
        text = clean(column, missing_words=missing_words).cast(pl.String)
        lists = _parted(text, mark, any_mark=any_mark, brackets=brackets)
    lengths = lists.list.len().fill_null(0).to_numpy().astype(np.int64)
    values = clean(
        lists.explode(empty_as_null=False, keep_nulls=False), missing_words=missing_words
    )
    return keep_values(values, lengths, values.is_not_null().to_numpy())


def keep_values(
    values: pl.Series, lengths: np.ndarray, kept_mask: np.ndarray
) -> tuple[pl.Series, np.ndarray]:
    """The values (T,) and lengths (n,) of lists without the values that a mask (T,) rules out."""
    if kept_mask.all():
        return values, lengths
    cell = np.repeat(np.arange(len(lengths)), lengths)[kept_mask]
    return values.filter(pl.Series(kept_mask)), np.bincount(cell, minlength=len(lengths))


def without(values: pl.Series, lengths: np.ndarray, filler: object) -> tuple[pl.Series, np.ndarray]:
    """The values and lengths of lists without a value that only fills them up, if there is one."""
    if filler is None:
        return values, lengths
    return keep_values(values, lengths, (values.cast(pl.String) != str(filler)).to_numpy())


def _parted(text: pl.Series, mark: str, *, any_mark: bool, brackets: bool) -> pl.Series:
    """Lists of text (n,) of the values in text cells (n,)."""
    cell, bracketed = pl.col("text"), pl.col("text").str.extract(_BRACKETS, 1)
    plain = cell.str.split(mark)
    if any_mark and mark == SPACE:
        alone = ~cell.str.contains(r"[^\s,;|]\s+[^\s,;|]")
        plain = pl.when(alone).then(_by_first_mark(cell, _MARKS)).otherwise(plain)
    if brackets:
        quoted = bracketed.str.contains(r"""["']""")
        inside = (
            pl.when(quoted)
            .then(bracketed.str.extract_all(_QUOTED))
            .otherwise(_by_first_mark(bracketed, (*((mark,) if mark != SPACE else ()), *_MARKS)))
        )
        plain = pl.when(bracketed.is_not_null()).then(_unquoted(inside)).otherwise(plain)
    lists = pl.DataFrame({"text": text}).select(plain.alias(text.name or "text")).to_series()
    return lists.list.eval(pl.element().filter(pl.element().str.strip_chars() != ""))


def _by_first_mark(cell: pl.Expr, marks: tuple[str, ...]) -> pl.Expr:
    """The values between the first of these marks that a cell has, else between its spaces."""
    parts = cell.str.extract_all(r"\S+")
    for mark in reversed(marks):
        has = cell.str.contains(mark, literal=True)
        parts = pl.when(has).then(cell.str.split(mark)).otherwise(parts)
    return parts


def _unquoted(lists: pl.Expr) -> pl.Expr:
    bare = pl.element().str.strip_chars().str.replace(r"""(?s)^(?:"(.*)"|'(.*)')$""", "$1$2")
    return lists.list.eval(bare)


def with_fillers(log: Log, schema: Schema, vocabularies: Mapping[str, Vocabulary]) -> Schema:
    """The schema with the fillers that the lists of a log seem to have.

    A filler is a usual one that most lists end or begin with and that no row has as a value of the
    field. One that is such a value, too, is only named in the account.
    """
    unclear = [n for n, s in schema.listed.items() if s.filler is None and s.of in vocabularies]
    columns = [schema.sequences[name].column or "" for name in unclear]
    first = next(log.parts(columns), None) if unclear else None
    sequences = dict(schema.sequences)
    for name, column in zip(unclear, columns):
        assert first is not None
        frame, where = first
        sequence, field = sequences[name], schema.categorical[sequences[name].of]
        values, lengths = values_of(
            take(frame, column, where, lists_allowed=True),
            sequence.split,
            where,
            any_mark=sequence.split == SPACE,
            missing_words=field.missing_words,
        )
        filler = likely_filler(values, lengths)
        if filler is None:
            continue
        known = vocabularies[sequence.of].codes(texts(field, pl.Series([filler])))
        if known[0] == UNSEEN:
            sequences[name] = replace(sequence, filler=filler)
            note("values", f"{shown(filler)} fills up the lists of {column} and is no event")
        else:
            note(
                "values",
                f"most lists of {column} end or begin with {shown(filler)}, which {sequence.of} "
                f"has, too; if it only fills them up, say filler: {filler} in the schema",
            )
    return replace(schema, sequences=sequences) if sequences != schema.sequences else schema


def likely_filler(values: pl.Series, lengths: np.ndarray) -> str | None:
    """The usual filler that most of several lists, of more than one value, end or begin with."""
    ends = np.cumsum(lengths)
    long = lengths > 1
    if not long.any():
        return None
    for place in (ends[long] - 1, (ends - lengths)[long]):
        spelled = values.gather(place).cast(pl.String)
        at_edge = spelled.str.to_lowercase().to_numpy()
        for filler in _FILLERS:
            filled = at_edge == filler
            if filled.sum() > 1 and filled.mean() >= _MOST:
                return str(spelled.filter(pl.Series(filled))[0])
    return None
