"""Batches of encoded rows for torch, with the history of each row up to its time.

Shapes: B rows, C columns of codes, S tasks, F sequences, T events of all rows of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from .coding import Rows
from .encoder import ClickEncoder
from .history import SECONDS, age_class, packed, spread
from .times import NOW

_Batch = TypeVar("_Batch")


class ClickRows:
    """Some rows of a log as a torch data set. A batch is a dict:

    fields   int64 (B, C), places in one table of all fields' embeddings
    events   int64 (T,), such places, sequence by sequence within a row
    ages     int64 (T,), classes of the events' ages
    offsets  int64 (B F + 1,): the events of row b in sequence f are offsets[b F + f] to
             offsets[b F + f + 1]
    labels   float32 (B, S), and counts: bool (B, S), whether a task counts on the row; both only
             where the rows have labels
    """

    def __init__(self, encoder: ClickEncoder, rows: Rows, which: np.ndarray | None = None) -> None:
        """which: int64 places of the rows; by default all."""
        self.encoder, self.rows = encoder, rows
        self.which = np.arange(len(rows)) if which is None else which
        columns = encoder.columns
        starts = np.cumsum([0, *(column.codes for column in columns)])
        self.start = {column.name: int(start) for column, start in zip(columns, starts)}
        # "Now" of rows without a time: just after the log, so that ages are like those of training.
        self.now = max((events.end for events in encoder.events.values()), default=0)
        self.shift = np.repeat(starts[:-1], [column.width for column in columns]).astype(np.int64)

    def __len__(self) -> int:
        return len(self.which)

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        """The batch of these rows."""
        return self.batch(self.which[np.asarray(indices)])

    def batch(self, places: np.ndarray) -> dict[str, Tensor]:
        """The batch of rows by their place in the log."""
        rows = self.rows
        events, ages, offsets = self._events(places)
        batch = {
            "fields": torch.from_numpy(self._fields(places)),
            "events": torch.from_numpy(events),
            "ages": torch.from_numpy(ages),
            "offsets": torch.from_numpy(offsets),
        }
        if rows.labels is not None:
            labels = torch.from_numpy(rows.labels[places])
            batch |= {"labels": labels.clamp(min=0).float(), "counts": labels >= 0}
        return batch

    def _fields(self, places: np.ndarray) -> np.ndarray:
        rows, parts = self.rows, [self.rows.fields[places]]
        for side, who in (("user", rows.user), ("item", rows.item)):
            columns = self.encoder.of_side(side)
            if columns:
                codes = self.encoder.side(side, who[places])
                start = 0
                for column in columns:
                    if column.name in rows.sides:
                        codes[:, start : start + column.width] = rows.sides[column.name][places]
                    start += column.width
                parts.append(codes)
        return np.concatenate(parts, 1) + self.shift

    def _events(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        schema, rows = self.encoder.schema, self.rows
        if not schema.sequences:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(1, np.int64)
        user, time = rows.user[places], rows.time[places]
        moment = np.where(time == NOW, self.now, time)
        ranges, values, ages = [], [], []
        for name, sequence in schema.sequences.items():
            shift = self.start[sequence.of]
            if name in rows.listed:
                lists = rows.listed[name]
                start, end = lists.last(places, sequence.length)
                where = spread(start, end)
                values.append(lists.values[where].astype(np.int64) + shift)
                # Lists have no times: the age of a value is its distance from the end.
                ages.append(age_class(np.repeat(end, end - start) - where))
            else:
                log = self.encoder.events[name]
                start, end = log.before(user, time, sequence.length)
                where = spread(start, end)
                values.append(log.codes[where].astype(np.int64) + shift)
                then = log.keys[where] & (SECONDS - 1)
                ages.append(age_class(np.repeat(moment, end - start) - then))
            ranges.append((start, end))
        return packed(ranges, values, ages)

    @staticmethod
    def collate(batch: _Batch) -> _Batch:
        """For `DataLoader(collate_fn=...)`: `__getitems__` returns a complete batch."""
        return batch
