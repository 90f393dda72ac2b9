"""From series to training windows: splits, scaling, time marks, and a data set that hands out whole
batches.

Sizes: T look-back, H horizon, C channels, K known columns, B batch. The splits are those of the
official SOFTS code."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...base.errors import InputError
from .clock import future_times as future_times
from .clock import parse_frequency

if TYPE_CHECKING:
    import torch

_ETT_MONTHS = (12, 16, 20)  # ends of train, validation and test, in months of 30 days
_DAY = 86400 * 10**6


class Borders(NamedTuple):
    """Half-open row ranges of the three parts, look-back rows of the validation and test windows
    included.
    """

    train: tuple[int, int]
    validation: tuple[int, int]
    test: tuple[int, int]


def split_borders(
    rows: int, protocol: str | Sequence[float], *, lookback: int, horizon: int, frequency: str
) -> Borders:
    """Row ranges of train, validation and test.

    protocol  "ratio": 70/10/20 % of the rows (the "custom" sets of the papers);
              "ett": 12/4/4 months of 30 days, later rows unused; clocks that divide a day, such as
              1h and 15m; "pems": 60/20/20 %, where the parts share no row at all; or two fractions
              (train, validation), the rest being test.
    Except for "pems", validation and test start `lookback` rows early, so that their first forecast
    is for their own first row. Raises `InputError` when some part would not hold one window of
    lookback + horizon rows."""
    overlap = lookback
    if protocol == "ett":
        per_day, rest = divmod(_DAY, parse_frequency(frequency).microseconds or _DAY + 1)
        if rest or not per_day:
            raise InputError(
                f"split ett: needs a clock that divides a day, such as 1h or 15m, not {frequency}; use ratio"
            )
        first, second, end = (months * 30 * per_day for months in _ETT_MONTHS)
        if rows < end:
            raise InputError(
                f"split ett: needs 20 months of 30 days = {end:,} rows of {frequency}, got {rows:,}; use ratio"
            )
    elif protocol == "pems":
        # int(0.8 * rows) as (0.6 + 0.2): the sum is taken in floating point, as the official code
        # does.
        first, second, end, overlap = int(0.6 * rows), int((0.6 + 0.2) * rows), rows, 0
    else:
        if protocol == "ratio":
            train, test = 0.7, 0.2
        elif isinstance(protocol, str):
            raise InputError(
                f"split: {protocol!r} is none of ratio, ett, pems, and not two fractions such as 0.7 0.1"
            )
        elif len(protocol) == 2 and min(protocol) > 0 and sum(protocol) < 1:
            train, test = protocol[0], 1 - sum(protocol)
        else:
            raise InputError(
                f"split: {tuple(protocol)} must be two positive fractions with a sum below 1 (train, validation)"
            )
        # Rounded before cutting: 0.7 and 0.1 leave 0.20000000000000007, and must give the rows that
        # 0.2 gives.
        first, second, end = int(rows * train), rows - int(rows * round(test, 12)), rows
    borders = Borders(
        (0, first), (max(first - overlap, 0), second), (max(second - overlap, 0), end)
    )
    need = lookback + horizon
    for name, (start, stop) in zip(Borders._fields, borders, strict=True):
        if stop - start < need:
            raise InputError(
                f"split {protocol}: the {name} part has {stop - start:,} of {rows:,} rows, but one window needs "
                f"look-back {lookback} + horizon {horizon} = {need:,}; {_rows_needed(protocol, lookback, horizon)}"
                "take a shorter look-back or horizon, or more rows"
            )
    return borders


def _rows_needed(protocol: str | Sequence[float], lookback: int, horizon: int) -> str:
    """How long a series must be for every part to hold a window, where a ratio decides it."""
    if protocol == "ett":
        return ""
    if protocol == "pems":
        parts = ((0.6, 0), (0.2, 0), (0.2, 0))
    else:
        train, validation = (0.7, 0.1) if isinstance(protocol, str) else protocol
        parts = ((train, 0), (validation, lookback), (1 - train - validation, lookback))
    needed = max((lookback + horizon - overlap) / part for part, overlap in parts)
    return f"about {int(np.ceil(needed)):,} rows are needed; "


@dataclass(frozen=True)
class Scaler:
    """Standardisation by channel: (values - mean) / std, both (C,) float64 in original units."""

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def fit(cls, values: np.ndarray) -> "Scaler":
        """Mean and population standard deviation of (T, C) training rows; a constant channel gets
        std 1.
        """
        if len(values) == 0:
            raise InputError("scaler: there are no training rows to fit on")
        mean, std = values.mean(axis=0), values.std(axis=0)
        # A constant column leaves rounding noise of the size of its mean's last digits, not an
        # exact 0.
        flat = std <= 10 * np.finfo(np.float64).eps * np.abs(mean)
        return cls(mean, np.where(flat, 1.0, std))

    def scale(self, values: np.ndarray) -> np.ndarray:
        """Original units (..., C) to standardised float64."""
        return (values - self.mean) / self.std

    def restore(self, values: np.ndarray) -> np.ndarray:
        """Standardised (..., C) to original units, float64."""
        return np.asarray(values, dtype=np.float64) * self.std + self.mean

    def to_dict(self) -> dict[str, list[float]]:
        """What `from_dict` takes; floats survive JSON exactly."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}

    @classmethod
    def from_dict(cls, data: dict[str, list[float]]) -> "Scaler":
        """The scaler that `to_dict` wrote. Raises `InputError` for anything else."""
        try:
            mean, std = (
                np.asarray(data["mean"], dtype=np.float64),
                np.asarray(data["std"], dtype=np.float64),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"scaler: needs lists 'mean' and 'std' of numbers ({error})"
            ) from error
        if (
            mean.ndim != 1
            or mean.shape != std.shape
            or not np.isfinite(mean).all()
            or not (std > 0).all()
        ):
            raise InputError(
                "scaler: 'mean' and 'std' must be finite lists of one length, std above 0"
            )
        return cls(mean, std)


def time_marks(times: np.ndarray) -> np.ndarray:
    """(T,) instants to (T, 4) float32 in [-.5, .5]: hour of day, day of week, day of month, day of
    year.

    The four marks of `timeF` with frequency "h", which the official scripts use for 15-minute data
    as well."""
    days = times.astype("datetime64[D]")
    hour = (times.astype("datetime64[h]") - days).astype(np.int64)
    weekday = (days.astype(np.int64) + 3) % 7  # 1970-01-01 was a Thursday; Monday is 0
    month_day = (days - times.astype("datetime64[M]").astype("datetime64[D]")).astype(np.int64)
    year_day = (days - times.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.int64)
    marks = np.stack([hour / 23, weekday / 6, month_day / 30, year_day / 365], axis=1) - 0.5
    return marks.astype(np.float32)


class WindowDataset:
    """All windows of several series, as a torch map-style data set that also fetches a whole batch
    at once.

    parts     per series (values, marks, known): scaled values (T_s, C) float32; time marks (T_s, 4) float32 or None;
              known columns (T_s, K) float32 or None, on the same rows
    lookback, horizon, stride   in rows; a window is `lookback` + `horizon` rows and starts every `stride` rows

    Series shorter than a window add nothing. No window is ever dropped: batching is the loader's
    affair. Raises `InputError` if there is no window at all."""

    def __init__(
        self,
        parts: Sequence[tuple["torch.Tensor", "torch.Tensor | None", "torch.Tensor | None"]],
        lookback: int,
        horizon: int,
        stride: int = 1,
    ) -> None:
        import torch

        if min(lookback, horizon, stride) < 1:
            raise InputError(
                f"windows: look-back {lookback}, horizon {horizon} and stride {stride} must be at least 1"
            )
        self.lookback, self.horizon, self.stride = lookback, horizon, stride
        length = lookback + horizon
        counts = [max(0, (len(part[0]) - length) // stride + 1) for part in parts]
        if not sum(counts):
            longest = max((len(part[0]) for part in parts), default=0)
            raise InputError(
                f"windows: the longest of {len(parts)} series has {longest} rows, but one window needs look-back "
                f"{lookback} + horizon {horizon} = {length}; take a shorter look-back or horizon, or more rows"
            )
        self._ends = torch.tensor(counts).cumsum(0)  # windows up to and including series s
        rows = torch.tensor([0, *(len(part[0]) for part in parts)]).cumsum(0)
        self._first_row = rows[:-1]  # of series s in the joined tensors
        self._values, self._marks, self._known = (
            self._join([part[i] for part in parts]) for i in range(3)
        )
        self._past = torch.arange(lookback)
        self._whole = torch.arange(length)

    @staticmethod
    def _join(tensors: "Sequence[torch.Tensor | None]") -> "torch.Tensor | None":
        """One tensor for all series; a single series is not copied."""
        import torch

        there = [t for t in tensors if t is not None]
        if not there:
            return None
        if len(there) < len(tensors):
            raise ValueError("some series have marks or known columns and some have none")
        return there[0] if len(there) == 1 else torch.cat(there)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def locate(self, index: int) -> tuple[int, int]:
        """The series and the row in it at which window `index` starts."""
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        import torch

        series = int(self.series_of(torch.tensor(index)))
        before = int(self._ends[series - 1]) if series else 0
        return series, (index - before) * self.stride

    def series_of(self, indices: "torch.Tensor") -> "torch.Tensor":
        """The series that windows belong to; int64, of the shape of `indices`."""
        import torch

        return torch.searchsorted(self._ends, indices, right=True)

    def _starts(self, indices: "torch.Tensor") -> "torch.Tensor":
        """Rows of the joined tensors at which windows start, (B,)."""
        import torch

        series = self.series_of(indices)
        before = torch.cat([self._ends.new_zeros(1), self._ends[:-1]])
        return self._first_row[series] + (indices - before[series]) * self.stride

    def __getitems__(self, indices: Sequence[int]) -> "dict[str, torch.Tensor]":
        """A batch: "past" (B, T, C), "future" (B, H, C), and if there are any "past_marks" (B, T,
        4) and "known" (B, T + H, K). Indices must lie in [0, len)."""
        import torch

        picked = torch.as_tensor(indices, dtype=torch.long)
        if len(picked) and (int(picked.min()) < 0 or int(picked.max()) >= len(self)):
            raise IndexError(f"window {int(picked.max())} of {len(self)}")
        starts = self._starts(picked)[:, None]
        assert self._values is not None
        window = self._values[starts + self._whole]
        batch = {"past": window[:, : self.lookback], "future": window[:, self.lookback :]}
        if self._marks is not None:
            batch["past_marks"] = self._marks[starts + self._past]
        if self._known is not None:
            batch["known"] = self._known[starts + self._whole]
        return batch

    def __getitem__(self, index: int) -> "dict[str, torch.Tensor]":
        """One window: the tensors of `__getitems__` without the batch axis."""
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        return {name: tensor[0] for name, tensor in self.__getitems__([index]).items()}

    @staticmethod
    def collate(batch: Any) -> Any:
        """For `DataLoader(collate_fn=...)`: `__getitems__` has made the batch already."""
        return batch
