"""What Python has in memory, as the files that the pipelines read: tables, pictures and recordings.

The files lie in a folder of ours while a prediction runs; in what it answers they are called
"frame", "array", or "array 2" by their place in a list.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from ....base.errors import InputError
from ....data.formats.pictures import write_png
from ....data.frames import is_frame, write_frame


def in_memory(value: object) -> bool:
    """Whether a value is a table, a picture or a recording, not the path of one."""
    return is_frame(value) or hasattr(value, "__array__") or hasattr(value, "__array_interface__")


@dataclass
class MemoryInputs:
    """Writes values into a folder and takes its paths out of the answers again.

    folder: its real path. rate: samples per second of recordings, None if none was stated.
    """

    folder: Path
    rate: int | None = None
    labels: dict[str, str] = field(default_factory=dict)
    """What a file is called, by its path."""

    def write(self, value: object, place: int | None) -> Path:
        """Write a value; returns its file. place: its place in the list of inputs, None if it is
        the only one. Raises `InputError` for a value that no pipeline could read.
        """
        kind = "frame" if is_frame(value) else "array"
        label = kind if place is None else f"{kind} {place}"
        try:
            path = self._write(value, self.folder / label)
        except InputError as error:
            raise InputError(f"{label}: {error}") from None
        self.labels[str(path)] = label
        return path

    def _write(self, value: object, path: Path) -> Path:
        if is_frame(value):
            path = path.with_name(f"{path.name}.parquet")
            write_frame(value, path)
            return path
        array = np.asarray(value)
        if self.rate is not None and array.ndim in (1, 2):
            return _write_samples(array, self.rate, path.with_name(f"{path.name}.wav"))
        if array.ndim == 1:
            raise InputError("samples of a recording need sample_rate=, in samples per second")
        return _write_picture(array, path.with_name(f"{path.name}.png"))

    def renamed(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Rows whose files and items have the labels of the values, not the paths of our files."""
        if not self.labels:
            return rows
        paths, labels = list(self.labels), list(self.labels.values())
        names = [Path(path).name for path in paths]
        return rows.with_columns(
            pl.col("file").str.replace_many(paths, labels),
            pl.col("item", "error").str.replace_many(paths + names, labels + labels, leftmost=True),
        )

    def reworded(self, error: InputError) -> InputError:
        """An error that names values by their labels."""
        text = str(error)
        for path, label in self.labels.items():
            text = text.replace(path, label).replace(Path(path).name, label)
        return InputError(text)


def _write_picture(array: np.ndarray, path: Path) -> Path:
    grey, colour = array.ndim == 2, array.ndim == 3 and array.shape[2] == 3
    if not (grey or colour) or 0 in array.shape:
        raise InputError(
            f"has the shape {array.shape}; a picture is (Y, X) or (Y, X, 3), colours last"
        )
    if array.dtype != np.uint8 and not (grey and array.dtype == np.uint16):
        raise InputError(f"holds {array.dtype}; a picture holds uint8, or uint16 if it is grey")
    write_png(path, np.ascontiguousarray(array))
    return path


def _write_samples(array: np.ndarray, rate: int, path: Path) -> Path:
    from scipy.io import wavfile

    if array.dtype not in (np.int16, np.int32, np.float32, np.float64) or not array.size:
        raise InputError(
            f"holds {array.size} values of {array.dtype}; a recording holds int16, int32 or floats"
        )
    if not 1 <= rate <= 10_000_000:
        raise InputError(f"sample_rate {rate}: must be from 1 to 10,000,000 samples per second")
    samples = array.astype(np.float32) if array.dtype == np.float64 else array
    wavfile.write(path, int(rate), samples)
    return path
