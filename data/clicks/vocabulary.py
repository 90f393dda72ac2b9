"""Values to codes: vocabularies that grow, hashing, buckets.

Code 0 is a missing cell, 1 an unseen value; known values begin at 2. Codes never change: a
vocabulary grows at its end, so the weights of a run fit its successors.
"""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import polars as pl

from ..formats.tables import MISSING_WORDS

MISSING, UNSEEN, FIRST = 0, 1, 2
EXACT = 1 << 53  # floats below hold every integer
LARGEST = (1 << 63) - 1  # of int64
FEWEST_BUCKETS, MOST_BUCKETS, ROWS_OF_BUCKET = 10, 255, 20  # where a schema does not say it
DENSE = 4  # a table of integer keys by value has at most this many places per key


def clean(column: pl.Series, *, missing_words: bool = True) -> pl.Series:
    """The column with null for missing cells; text is stripped, and integral floats become
    integers.

    missing_words: whether words such as NA and null (MISSING_WORDS) are missing cells; else they
    are values, and only empty cells are missing.
    """
    if isinstance(column.dtype, pl.Categorical | pl.Enum):
        column = column.cast(pl.String)
    if column.dtype == pl.String:
        text = column.str.strip_chars()
        words = MISSING_WORDS if missing_words else ("",)
        return text.set(text.str.to_lowercase().is_in(words), None)
    if column.dtype.is_float():
        finite = column.is_not_null() & column.is_finite()
        column = column.set(~finite, None)
        # 3.0 in one file or part of a file is 3 in another.
        integral = (column % 1 == 0) & (column.abs() < EXACT)
        numbers = column.set(~integral, None).cast(pl.Int64)
        if integral.all():
            return numbers
        return numbers.cast(pl.String).fill_null(column.cast(pl.String))
    if column.dtype == pl.UInt64 and (column > LARGEST).any():
        return column.cast(pl.String)
    if column.dtype == pl.Boolean or column.dtype.is_integer():
        return column.cast(pl.Int64)
    return column.cast(pl.String)


def are_integers(column: pl.Series) -> bool:
    """Whether all values of a clean column are integers in their plain spelling (no 007, no +7)."""
    if column.dtype == pl.Int64 or column.dtype == pl.Null:
        return True
    numbers = column.cast(pl.Int64, strict=False)
    return bool((numbers.cast(pl.String) == column).fill_null(column.is_null()).all())


@dataclass(frozen=True)
class Vocabulary:
    """Known values in the order of their codes. keys: int64 for integers, else strings."""

    keys: pl.Series = field(default_factory=lambda: pl.Series("key", [], pl.Int64))

    @property
    def size(self) -> int:
        """The number of codes, with the two special ones."""
        return FIRST + len(self.keys)

    @property
    def integers(self) -> bool:
        """Whether the keys are integers."""
        return self.keys.dtype == pl.Int64

    def codes(self, column: pl.Series, *, missing_words: bool = True) -> np.ndarray:
        """int32 codes (n,) of a column's values.

        missing_words: as in `clean`; a word that is a key is a value in any case. A value that is
        no key is looked up once more in the spelling of other types of columns (7.0 for 7, true for
        1).
        """
        values = clean(column, missing_words=missing_words and not self._has_words)
        codes = self._codes(values)
        unseen = codes == UNSEEN
        if unseen.any():
            rest = values.filter(pl.Series(unseen))
            respelled = self._respelled(rest, was_boolean=column.dtype == pl.Boolean)
            codes[unseen] = self._codes(rest if respelled is None else respelled)
        return codes

    def _codes(self, column: pl.Series) -> np.ndarray:
        """int32 codes (n,) of a clean column's values."""
        missing = column.is_null().to_numpy()
        if self.integers:
            numbers = column.cast(pl.Int64, strict=False)
            codes = self._integer_codes(numbers.fill_null(0).to_numpy())
            if column.dtype == pl.String:  # 007 is not 7
                differs = (numbers.cast(pl.String) != column).fill_null(True).to_numpy()
                codes[differs] = UNSEEN
        else:
            place = column.cast(pl.String).cast(self._enum, strict=False).to_physical()
            codes = (place.cast(pl.Int64) + FIRST).fill_null(UNSEEN).to_numpy().astype(np.int32)
        codes[missing] = MISSING
        return codes

    def _respelled(self, values: pl.Series, *, was_boolean: bool) -> pl.Series | None:
        """Clean values (n,) as a column of the type of the keys would hold them; None where no
        other spelling could be a key.
        """
        if self.integers:
            if values.dtype != pl.String:
                return None
            whole = values.str.replace(r"^([+-]?\d+)\.0+$", "$1")
            if not self._is_binary:
                return whole
            lower = whole.str.to_lowercase()
            return whole.set(lower == "true", "1").set(lower == "false", "0")
        if was_boolean and self._answers:
            return values.cast(pl.String).replace(self._answers)
        return values.cast(pl.String) + ".0" if values.dtype == pl.Int64 else None

    @cached_property
    def _has_words(self) -> bool:
        """Whether words that usually mean a missing cell are keys."""
        return not self.integers and bool(self.keys.str.to_lowercase().is_in(MISSING_WORDS).any())

    @cached_property
    def _is_binary(self) -> bool:
        """Whether the keys are 0 and 1, as a column of type Boolean has them."""
        return len(self.keys) > 0 and set(self.keys) <= {0, 1}

    @cached_property
    def _answers(self) -> dict[str, str]:
        """How text keys spell 1 and 0: {"1": "True", "0": "False"}."""
        return {
            number: key
            for key in self.keys.head(10)
            for number, word in (("1", "true"), ("0", "false"))
            if str(key).lower() == word
        }

    @cached_property
    def _enum(self) -> pl.Enum:
        return pl.Enum(self.keys.to_list())

    @cached_property
    def _dense(self) -> tuple[int, np.ndarray] | None:
        """(smallest key, codes by key) where keys are dense, else None; the table's last place is
        for all unknown numbers.
        """
        keys = self.keys.to_numpy()
        low, high = (int(keys.min()), int(keys.max())) if len(keys) else (0, -1)
        if high - low >= DENSE * len(keys) + 1_000:
            return None
        table = np.full(high - low + 2, UNSEEN, np.int32)
        table[keys - low] = np.arange(FIRST, self.size, dtype=np.int32)
        return low, table

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(self.keys.to_numpy(), kind="stable")
        return self.keys.to_numpy()[order], (order + FIRST).astype(np.int32)

    def _integer_codes(self, numbers: np.ndarray) -> np.ndarray:
        if self._dense is not None:
            low, table = self._dense
            place = numbers - low
            # The difference may have overflowed.
            place[(numbers < low) | (place < 0) | (place >= len(table))] = len(table) - 1
            return table[place]
        keys, codes = self._sorted
        place = np.searchsorted(keys, numbers)
        place[place == len(keys)] = 0
        return np.where(keys[place] == numbers, codes[place], UNSEEN).astype(np.int32)

    def grown(self, values: pl.Series, *, missing_words: bool = True) -> "Vocabulary":
        """With new values at its end; all keys become strings where one is not an integer.

        missing_words: as in `clean`.
        """
        keys, values = self.keys, clean(values, missing_words=missing_words)
        values = values.drop_nulls().unique(maintain_order=True)
        if self.integers and are_integers(values):
            values = values.cast(pl.Int64)
        else:
            keys, values = keys.cast(pl.String), values.cast(pl.String)
        new = values.filter(~values.is_in(keys.implode())) if len(keys) else values
        return Vocabulary(pl.concat([keys.alias("key"), new.alias("key")]))


def hashed(column: pl.Series, buckets: int, *, missing_words: bool = True) -> np.ndarray:
    """int32 codes (n,): a stable hash of each value into `buckets` codes after the special ones."""
    column = clean(column, missing_words=missing_words).cast(pl.String)
    unique = column.unique().drop_nulls()
    codes = [
        int.from_bytes(hashlib.blake2b(value.encode(), digest_size=8).digest(), "little") % buckets
        + FIRST
        for value in unique
    ]
    table = np.r_[MISSING, UNSEEN, np.array(codes, np.int64)].astype(np.int32)
    return table[Vocabulary(unique.alias("key")).codes(column, missing_words=False)]


def bucketed(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """int32 codes (n,) of numbers by the buckets between edges; a number on an edge is in the
    bucket above it.
    """
    codes = np.searchsorted(edges, values, side="right").astype(np.int32) + FIRST
    codes[np.isnan(values)] = MISSING
    return codes


def equal_counts(values: np.ndarray, buckets: int | None) -> np.ndarray:
    """Increasing edges, at most buckets - 1, that cut numbers into buckets of equal count.

    buckets: None for as many as leave ROWS_OF_BUCKET numbers to each, from 10 to 255.

    Edges that coincide count once. Where half of the numbers or more are equal, these have a bucket
    of their own, and the rest is cut into buckets of equal count.
    """
    values = values[~np.isnan(values)]
    if not len(values):
        return np.zeros(0)
    if buckets is None:
        buckets = min(max(len(values) // ROWS_OF_BUCKET, FEWEST_BUCKETS), MOST_BUCKETS)
    edges = _quantiles(values, buckets)
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) == 1 or (2 * counts.max() < len(values) and len(edges)):
        return edges
    return _edges_around(values, float(distinct[counts.argmax()]), buckets)


def _quantiles(values: np.ndarray, buckets: int) -> np.ndarray:
    """Increasing edges above the least number that cut numbers into buckets of equal count."""
    if not len(values) or buckets < 2:
        return np.zeros(0)
    edges = np.unique(np.quantile(values, np.arange(1, buckets) / buckets))
    return edges[edges > values.min()]


def _edges_around(values: np.ndarray, frequent: float, buckets: int) -> np.ndarray:
    """Edges with the most frequent number alone in its bucket, as far as there are buckets."""
    below, above = values[values < frequent], values[values > frequent]
    after = np.nextafter(frequent, np.inf)
    if buckets == 2 or not len(below) or not len(above):
        # With two buckets only one side can be told from the frequent number: the larger one.
        side = [after] if len(above) >= len(below) else [frequent]
        rest = above if len(above) >= len(below) else below
        return np.unique(np.r_[side, _quantiles(rest, buckets - 1)])
    share = round((buckets - 1) * len(below) / (len(below) + len(above)))
    of_below = min(max(share, 1), buckets - 2)
    return np.unique(
        np.r_[
            _quantiles(below, of_below), frequent, after, _quantiles(above, buckets - 1 - of_below)
        ]
    )
