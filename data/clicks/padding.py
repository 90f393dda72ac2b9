"""Values that only fill up lists of a fixed length, such as the zeros behind `[3, 7, 0, 0, 0]`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import polars as pl

from ...base.account import note
from ...base.errors import shown
from .cells import take, texts
from .lists import SPACE, values_of
from .log import Log
from .schema import Schema
from .vocabulary import UNSEEN, Vocabulary

# What programs fill lists up with, in lower case.
_FILLERS = ("0", "-1", "<pad>", "[pad]", "pad", "<padding>", "padding", "unk", "-")
_MOST = 0.5  # share of the lists that end, or begin, with a filler


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
