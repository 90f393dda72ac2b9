"""What users did before a second, from one sorted array per sequence.

An event is a key `user << 32 | second` and a code. All events are sorted by key, so that the events
of a user before a second are one slice, which two binary searches locate.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

SECONDS = 1 << 32  # seconds of a key: from 1970 to 2106, or any count that starts at 0
AGES = 32  # classes of the age of an event, by powers of two


@dataclass(frozen=True)
class Events:
    """Events of one kind. keys: int64 (E,), increasing; codes: int32 (E,)."""

    keys: np.ndarray
    codes: np.ndarray

    @staticmethod
    def of(user: np.ndarray, time: np.ndarray, codes: np.ndarray) -> "Events":
        """From a log in any order; events of the same second keep the order of the log."""
        keys = user.astype(np.int64) * SECONDS + time
        order = np.argsort(keys, kind="stable")
        return Events(keys[order], codes[order].astype(np.int32))

    @cached_property
    def end(self) -> int:
        """The second after the newest event; 0 without one."""
        return int((self.keys & (SECONDS - 1)).max()) + 1 if len(self.keys) else 0

    def merged(self, newer: "Events") -> "Events":
        """With further events; an event with the same user, second and code as an old one does not
        count twice.
        """
        old = pl.DataFrame({"key": self.keys, "code": self.codes})
        new = pl.DataFrame({"key": newer.keys, "code": newer.codes})
        new = new.join(old, on=["key", "code"], how="anti", maintain_order="left")
        both = pl.concat([old, new])
        keys, codes = both["key"].to_numpy(), both["code"].to_numpy()
        order = np.argsort(keys, kind="stable")
        return Events(keys[order], codes[order])

    def before(
        self, user: np.ndarray, time: np.ndarray, most: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """(start, end) of the last `most` events of each user before each second; unknown users
        (below 0) have none.
        """
        base = user.astype(np.int64) * SECONDS
        end = np.searchsorted(self.keys, base + time)
        start = np.maximum(np.searchsorted(self.keys, base), end - most)
        return np.where(user < 0, end, start), end


@dataclass(frozen=True)
class Ragged:
    """Lists of codes of rows, joined. values: int32 (T,); offsets: int64 (N + 1,)."""

    values: np.ndarray
    offsets: np.ndarray

    def last(self, rows: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
        """(start, end) of the last `most` values of each row."""
        end = self.offsets[rows + 1]
        return np.maximum(self.offsets[rows], end - most), end


def spread(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """All integers of the ranges from start to end, range after range."""
    length = end - start
    ends = np.cumsum(length)
    return np.repeat(end - ends, length) + np.arange(ends[-1] if len(ends) else 0)


def packed(
    parts: Sequence[tuple[np.ndarray, np.ndarray]],
    values: Sequence[np.ndarray],
    ages: Sequence[np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Several sequences of each row, sequence by sequence within a row: (values, ages, offsets),
    offsets being int64 (N F + 1,).

    parts: start and end of each row (N,) in a sequence; values, ages: of the events in these
    ranges, range after range.
    """
    rows, kinds = len(parts[0][0]), len(parts)
    length = np.stack([end - start for start, end in parts], 1)
    offsets = np.zeros(rows * kinds + 1, np.int64)
    np.cumsum(length.ravel(), out=offsets[1:])
    all_values, all_ages = np.empty(offsets[-1], np.int64), np.empty(offsets[-1], np.int64)
    begins = offsets[:-1].reshape(rows, kinds)
    for kind in range(kinds):
        place = spread(begins[:, kind], begins[:, kind] + length[:, kind])
        all_values[place], all_ages[place] = values[kind], ages[kind]
    return all_values, all_ages, offsets


def age_class(seconds: np.ndarray) -> np.ndarray:
    """Classes of ages (n,), below AGES: 0 below a second, then one class per power of two."""
    power = np.frexp(np.maximum(seconds, 0).astype(np.float64))[1]
    return np.minimum(power, AGES - 1).astype(np.int64)
