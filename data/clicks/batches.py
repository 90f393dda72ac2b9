"""Batches of encoded rows, for torch: whole batches at once, histories cut where each row stands in
time.

Shapes: B rows, C columns of codes, S tasks, F sequences, T events of all rows of the batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .history import SECONDS, Events, age_class, packed, spread
from .interactions import NOW, Encoder, Rows


class ClickRows:
    """Some rows of a log as a torch data set. A batch is a dict:

    fields   int64 (B, C), places in one table of all fields' embeddings
    events   int64 (T,), such places, sequence by sequence within a row; ages: int64 (T,), classes of their age
    offsets  int64 (B F + 1,): row b's events of sequence f are offsets[b F + f] to offsets[b F + f + 1]
    labels   float32 (B, S); counts: bool (B, S), whether a task counts on the row (with labels only)
    """

    def __init__(self, encoder: Encoder, rows: Rows, which: np.ndarray | None = None) -> None:
        """which: int64 places of the rows, by default all."""
        self.encoder, self.rows = encoder, rows
        self.which = np.arange(len(rows)) if which is None else which
        columns = encoder.columns
        starts = np.cumsum([0, *(one.codes for one in columns)])
        self.start = {one.name: int(start) for one, start in zip(columns, starts)}
        # "Now" of rows without a time: just after the log, so that ages are of the kind that
        # training saw.
        self.now = max((one.end for one in encoder.events.values()), default=0)
        self.shift = np.repeat(starts[:-1], [one.width for one in columns]).astype(np.int64)

    def __len__(self) -> int:
        return len(self.which)

    def __getitems__(self, indices: Any) -> dict[str, Tensor]:
        """The batch of these rows."""
        return self.batch(self.which[np.asarray(indices)])

    def batch(self, places: np.ndarray) -> dict[str, Tensor]:
        """The batch of rows by their place in the log."""
        rows = self.rows
        found = {"fields": torch.from_numpy(self._fields(places))}
        events, ages, offsets = self._events(places)
        found |= {
            "events": torch.from_numpy(events),
            "ages": torch.from_numpy(ages),
            "offsets": torch.from_numpy(offsets),
        }
        if rows.labels is not None:
            labels = torch.from_numpy(rows.labels[places])
            found |= {"labels": labels.clamp(min=0).float(), "counts": labels >= 0}
        return found

    def _fields(self, places: np.ndarray) -> np.ndarray:
        rows, parts = self.rows, [self.rows.fields[places]]
        for side, who in (("user", rows.user), ("item", rows.item)):
            columns = self.encoder.of_side(side)
            if columns:
                codes = self.encoder.side(side, who[places])
                start = 0
                for one in columns:
                    if one.name in rows.sides:
                        codes[:, start : start + one.width] = rows.sides[one.name][places]
                    start += one.width
                parts.append(codes)
        return np.concatenate(parts, 1) + self.shift

    def _events(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        schema, rows = self.encoder.schema, self.rows
        if not schema.sequences:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(1, np.int64)
        user, time = rows.user[places], rows.time[places]
        moment = np.where(time == NOW, self.now, time)
        ranges, values, ages = [], [], []
        for name, one in schema.sequences.items():
            shift = self.start[one.of]
            if name in rows.given:
                source = rows.given[name]
                start, end = source.last(places, one.length)
                where = spread(start, end)
                values.append(source.values[where].astype(np.int64) + shift)
                ages.append(age_class(np.repeat(end, end - start) - where))
            else:
                log: Events = self.encoder.events[name]
                start, end = log.before(user, time, one.length)
                where = spread(start, end)
                values.append(log.codes[where].astype(np.int64) + shift)
                then = log.keys[where] & (SECONDS - 1)
                ages.append(age_class(np.repeat(moment, end - start) - then))
            ranges.append((start, end))
        return packed(ranges, values, ages)

    @staticmethod
    def collate(batch: Any) -> Any:
        """For `DataLoader(collate_fn=...)`: `__getitems__` has made the batch already."""
        return batch
