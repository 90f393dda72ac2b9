"""What a run keeps of its log: the codes of its fields, and the history of its users and items.

Shapes: n rows, U users, I items, M columns of codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from .coding import FieldCodes, Rows, codes_of
from .history import Events
from .marks import NumberMarks
from .row_parts import RowParts


@dataclass(frozen=True)
class ClickEncoder(FieldCodes):
    """The codes of a log's fields, with what the log says of its users and items.

    side_codes  int32 (U, ·) and (I, ·), codes of the joined fields in the order of `columns`
    trained     bool (U,) and (I,), which of them the training part has
    events      of each sequence that is made from the log
    last        int32 (U, M) and (I, M), codes of the log's fields in the last row of each
    rates       what counting the training part gives, for a baseline
    row_parts   which rows were in which part
    marks       how numbers of columns are written, where a text file does not say it
    span        first and last second of the log; empty where a run of an earlier version has none
    complete    fields of which no cell of the training part is empty
    """

    side_codes: Mapping[str, np.ndarray]
    trained: Mapping[str, np.ndarray]
    events: Mapping[str, Events]
    last: Mapping[str, np.ndarray]
    rates: Mapping[str, np.ndarray] = field(default_factory=dict)
    row_parts: RowParts = field(default_factory=RowParts)
    marks: NumberMarks = field(default_factory=NumberMarks)
    span: tuple[int, ...] = ()
    complete: frozenset[str] = frozenset()

    def side(self, side: str, who: np.ndarray) -> np.ndarray:
        """Codes (n, ·) of the joined fields of users or items by place; missing if unknown."""
        return codes_of(self.side_codes[side], who)

    def trained_on(self, side: str, who: np.ndarray) -> np.ndarray:
        """bool (n,): whether the training part has these users or items."""
        trained = self.trained[side]
        if not len(trained):
            return np.zeros(len(who), bool)
        return (who >= 0) & trained[np.maximum(who, 0)]

    def with_events(self, newer: Mapping[str, Events]) -> ClickEncoder:
        """The encoder with further events in the histories."""
        events = {name: events.merged(newer[name]) for name, events in self.events.items()}
        return replace(self, events=events)


def field_codes(
    fields: FieldCodes, side_codes: Mapping[str, np.ndarray], rows: Rows, name: str
) -> np.ndarray:
    """int32 (n,) codes of a field with one value per cell, of the log or of a joined table."""
    side = fields.sides.get(name, "row")
    columns = fields.of_side(side)
    place = sum(c.width for c in columns[: [c.name for c in columns].index(name)])
    if side == "row":
        return rows.fields[:, place]
    return codes_of(side_codes[side], rows.user if side == "user" else rows.item)[:, place]
