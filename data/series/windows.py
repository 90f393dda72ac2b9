"""From series to training windows: scaling, time marks, and a data set that reads entire batches.

Shapes: T rows (of a window: the look-back), H horizon, C channels, K known columns, B batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ...base.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

_Batch = TypeVar("_Batch")


def is_flat(mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Which channels are constant: their deviation is not exactly 0, but rounding noise in the last
    digits of their mean.
    """
    return std <= 10 * np.finfo(np.float64).eps * np.abs(mean)


def constant_channels(values: np.ndarray) -> np.ndarray:
    """Which channels of (T, C) rows hold one value only, (C,)."""
    return is_flat(values.mean(axis=0), values.std(axis=0))


@dataclass(frozen=True)
class Scaler:
    """Standardisation by channel, (values - mean) / std; both are (C,) float64, original units."""

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def fit(cls, values: np.ndarray) -> Scaler:
        """Mean and population standard deviation of (T, C) training rows; 1 for a constant channel.

        Raises InputError where there are no rows.
        """
        if len(values) == 0:
            raise InputError("scaler: there are no training rows to fit on")
        mean, std = values.mean(axis=0), values.std(axis=0)
        return cls(mean, np.where(is_flat(mean, std), 1.0, std))

    def scale(self, values: np.ndarray) -> np.ndarray:
        """Original units (..., C) to standardised float64."""
        return (values - self.mean) / self.std

    def restore(self, values: np.ndarray) -> np.ndarray:
        """Standardised (..., C) to original units, float64."""
        return np.asarray(values, dtype=np.float64) * self.std + self.mean

    def to_dict(self) -> dict[str, list[float]]:
        """The input of `from_dict`; JSON keeps floats exactly."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}

    @classmethod
    def from_dict(cls, data: dict[str, list[float]]) -> Scaler:
        """The scaler that `to_dict` wrote. Raises InputError for anything else."""
        try:
            mean, std = (np.asarray(data[name], dtype=np.float64) for name in ("mean", "std"))
        except (KeyError, TypeError, ValueError) as error:
            problem = f"scaler: needs lists 'mean' and 'std' of numbers ({error})"
            raise InputError(problem) from error
        same_length = mean.ndim == 1 and mean.shape == std.shape
        if not (same_length and np.isfinite(mean).all() and (std > 0).all()):
            problem = "'mean' and 'std' must be finite lists of one length, std above 0"
            raise InputError(f"scaler: {problem}")
        return cls(mean, std)


def time_marks(times: np.ndarray) -> np.ndarray:
    """Hour of day, day of week, day of month and day of year of instants (T,): (T, 4) float32 in
    [-.5, .5].

    The four marks of `timeF` with frequency "h", which the official scripts use for 15-minute data,
    too.
    """
    days = times.astype("datetime64[D]")
    hour = (times.astype("datetime64[h]") - days).astype(np.int64)
    weekday = (days.astype(np.int64) + 3) % 7  # 1970-01-01 was a Thursday; Monday is 0
    month_day = (days - times.astype("datetime64[M]").astype("datetime64[D]")).astype(np.int64)
    year_day = (days - times.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.int64)
    marks = np.stack([hour / 23, weekday / 6, month_day / 30, year_day / 365], axis=1) - 0.5
    return marks.astype(np.float32)


class WindowDataset:
    """All windows of several series: a map-style data set of torch that reads entire batches.

    parts     per series (values, marks, known): scaled values (T_s, C) float32; time marks (T_s, 4)
              float32 or None; known columns (T_s, K) float32 or None, on the same rows
    lookback, horizon, stride   in rows; a window has `lookback` + `horizon` rows, and one begins
              every `stride` rows

    Series shorter than a window add nothing. No window is dropped: batching is the loader's task.
    Raises InputError where there is no window.
    """

    def __init__(
        self,
        parts: Sequence[tuple[Tensor, Tensor | None, Tensor | None]],
        lookback: int,
        horizon: int,
        stride: int = 1,
    ) -> None:
        import torch

        if min(lookback, horizon, stride) < 1:
            sizes = f"look-back {lookback}, horizon {horizon} and stride {stride}"
            raise InputError(f"windows: {sizes} must be at least 1")
        self.lookback, self.horizon, self.stride = lookback, horizon, stride
        length = lookback + horizon
        counts = [max(0, (len(part[0]) - length) // stride + 1) for part in parts]
        if not sum(counts):
            longest = max((len(part[0]) for part in parts), default=0)
            raise InputError(
                f"windows: the longest of {len(parts)} series has {longest} rows, but one window "
                f"needs look-back {lookback} + horizon {horizon} = {length}; take a shorter "
                "look-back or horizon, or more rows"
            )
        self._ends = torch.tensor(counts).cumsum(0)  # windows up to and including series s
        rows = torch.tensor([0, *(len(part[0]) for part in parts)]).cumsum(0)
        self._first_row = rows[:-1]  # of series s in the joined tensors
        self._values, self._marks, self._known = (
            self._join([part[i] for part in parts]) for i in range(3)
        )
        self._past = torch.arange(lookback)
        self._window = torch.arange(length)

    @staticmethod
    def _join(tensors: Sequence[Tensor | None]) -> Tensor | None:
        """One tensor for all series; a single series is not copied."""
        import torch

        present = [tensor for tensor in tensors if tensor is not None]
        if not present:
            return None
        if len(present) < len(tensors):
            raise ValueError("some series have marks or known columns and some have none")
        return present[0] if len(present) == 1 else torch.cat(present)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def locate(self, index: int) -> tuple[int, int]:
        """The series of a window, and the row in it at which the window starts."""
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        import torch

        series = int(self.series_of(torch.tensor(index)))
        before = int(self._ends[series - 1]) if series else 0
        return series, (index - before) * self.stride

    def series_of(self, indices: Tensor) -> Tensor:
        """The series of windows; int64, of the shape of `indices`."""
        import torch

        return torch.searchsorted(self._ends, indices, right=True)

    def _starts(self, indices: Tensor) -> Tensor:
        """Rows of the joined tensors at which windows start, (B,)."""
        import torch

        series = self.series_of(indices)
        before = torch.cat([self._ends.new_zeros(1), self._ends[:-1]])
        return self._first_row[series] + (indices - before[series]) * self.stride

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """A batch: "past" (B, T, C), "future" (B, H, C) and, where the series have them,
        "past_marks" (B, T, 4) and "known" (B, T + H, K).

        Raises IndexError for indices outside [0, len).
        """
        import torch

        picked = torch.as_tensor(indices, dtype=torch.long)
        if len(picked) and (int(picked.min()) < 0 or int(picked.max()) >= len(self)):
            raise IndexError(f"window {int(picked.max())} of {len(self)}")
        starts = self._starts(picked)[:, None]
        assert self._values is not None
        window = self._values[starts + self._window]
        batch = {"past": window[:, : self.lookback], "future": window[:, self.lookback :]}
        if self._marks is not None:
            batch["past_marks"] = self._marks[starts + self._past]
        if self._known is not None:
            batch["known"] = self._known[starts + self._window]
        return batch

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One window: the tensors of `__getitems__` without the batch axis."""
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        return {name: tensor[0] for name, tensor in self.__getitems__([index]).items()}

    @staticmethod
    def collate(batch: _Batch) -> _Batch:
        """For `DataLoader(collate_fn=...)`: `__getitems__` returns a complete batch."""
        return batch
