"""Features on disk, found again by a key of their content: one SQLite file, of bounded size."""

from __future__ import annotations

import sqlite3
import time
import zlib
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import numpy as np

from ...data.catalogue import cache_folder
from .command_line.terminal import say

FILE = "features.sqlite"
MOST_BYTES = 512 << 20  # of features; those that were not used for longest go first
WAIT = 20.0  # seconds for another process that writes
_TABLE = (
    "CREATE TABLE IF NOT EXISTS features "
    "(key BLOB PRIMARY KEY, value BLOB NOT NULL, used REAL NOT NULL) WITHOUT ROWID"
)


class FeatureCache:
    """To be used as a context. What cannot be read or written counts as absent: a cache may be
    missing, damaged or locked, and nothing depends on it.

    path: by default in `cache_folder()`; most_bytes: of all features together.
    """

    def __init__(self, path: Path | None = None, most_bytes: int = MOST_BYTES) -> None:
        self.path, self.most_bytes = path or cache_folder() / FILE, most_bytes
        self._connection: sqlite3.Connection | None = None
        self._used: list[bytes] = []

    def __enter__(self) -> FeatureCache:
        self._used = []
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self.path, timeout=WAIT)
            self._connection.execute(_TABLE)
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._connection is None:
            return
        now = time.time()
        try:
            with self._connection as connection:
                rows = [(now, key) for key in self._used]
                connection.executemany("UPDATE features SET used = ? WHERE key = ?", rows)
                self._bound(connection)
            self._connection.close()
        except sqlite3.Error as error:
            self._give_up(error)
        self._connection = None

    def get(self, key: bytes, width: int) -> np.ndarray | None:
        """The feature, float32 (width,), or None."""
        if self._connection is None:
            return None
        try:
            query = "SELECT value FROM features WHERE key = ?"
            row = self._connection.execute(query, (key,)).fetchone()
        except sqlite3.Error as error:
            self._give_up(error)
            return None
        value = row[0] if row else b""
        if len(value) != 4 * width + 4 or zlib.crc32(value[4:]) != int.from_bytes(value[:4]):
            return None
        self._used.append(key)
        return np.frombuffer(value[4:], "<f4").astype(np.float32)

    def put(self, keys: Iterable[bytes], values: np.ndarray) -> None:
        """Store features (n, D), one for each key."""
        if self._connection is None:
            return
        now, rows = time.time(), []
        for key, value in zip(keys, values, strict=True):
            content = value.astype("<f4").tobytes()
            rows.append((key, zlib.crc32(content).to_bytes(4) + content, now))
        try:
            with self._connection as connection:
                connection.executemany("INSERT OR REPLACE INTO features VALUES (?, ?, ?)", rows)
        except sqlite3.Error as error:
            self._give_up(error)

    def _bound(self, connection: sqlite3.Connection) -> None:
        """Remove what was not used for longest, until the rest fits."""
        query = "SELECT COALESCE(SUM(LENGTH(value)), 0) FROM features"
        excess = connection.execute(query).fetchone()[0] - self.most_bytes
        query = "SELECT key, LENGTH(value) FROM features ORDER BY used, key"
        old: list[tuple[bytes]] = []
        for key, size in connection.execute(query) if excess > 0 else ():
            if excess <= 0:
                break
            old.append((key,))
            excess -= size
        connection.executemany("DELETE FROM features WHERE key = ?", old)

    def _give_up(self, error: Exception) -> None:
        say(f"{self.path}: features are computed and not kept ({error})")
        self._connection = None
