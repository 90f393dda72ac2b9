"""Data sets as columns: records, one for each item, become a list for each of their fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Self

import numpy as np

from .parts import rows_in


def of_record(name: str) -> Mapping[str, str]:
    """Metadata of a column: the field of a record that it holds."""
    return {"record": name}


@dataclass(frozen=True, eq=False)
class ItemSet:
    """N items; the columns, whose metadata is `of_record`, have N entries each."""

    where: str  # the folder, table or list, for messages
    layout: str
    names: list[str] = field(metadata=of_record("name"))  # item ids
    parts: list[str] = field(metadata=of_record("part"))  # train, validation, test or ""

    def __len__(self) -> int:
        return len(self.names)

    def rows(self, *parts: str) -> np.ndarray:
        """Rows of these parts in their order, int64 (n,); all rows where none is named."""
        return rows_in(self.parts, parts)

    def of(self, rows: Sequence[int]) -> Self:
        """The items of these rows."""
        return replace(
            self, **{name: [getattr(self, name)[row] for row in rows] for name in _columns(self)}
        )

    @classmethod
    def of_records(
        cls, where: object, layout: str, records: Sequence[object], **others: object
    ) -> Self:
        """The set of these records. others: what it holds besides its columns."""
        columns: dict[str, object] = {
            column: [getattr(record, name) for record in records]
            for column, name in _columns(cls).items()
        }
        return cls(str(where), layout, **columns, **others)  # pyright: ignore[reportArgumentType]


def _columns(kind: ItemSet | type[ItemSet]) -> dict[str, str]:
    """The columns of a set and the fields of a record that they hold."""
    return {f.name: f.metadata["record"] for f in fields(kind) if "record" in f.metadata}
