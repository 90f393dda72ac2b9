"""Where the parts of each series ended, by which a run knows again the rows that it has seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np

from ...data.items import digest
from ...data.series.series import Series
from .usable import PartedSeries


class PartEnd(TypedDict):
    """The last row of a part: its time, and a hash of its values."""

    time: str
    values: str


def part_ends(chosen: Sequence[PartedSeries]) -> list[dict[str, PartEnd]]:
    """The last row of the training and the validation part of each series."""
    names = ("train", "validation")
    return [
        {
            name: _row(parted.series, stop - 1)
            for name, (_, stop) in zip(names, parted.rows, strict=False)
            if stop
        }
        for parted in chosen
    ]


def known_rows(series: Series, ends: Mapping[str, PartEnd]) -> dict[str, int]:
    """How many rows of a series are of the training part of a run or older, and how many of the
    validation part or older; {} for another series, or other rows of it.
    """
    stops: dict[str, int] = {}
    for name, end in ends.items():
        place = int(np.searchsorted(series.times, np.datetime64(end["time"])))
        if place < len(series.values) and _row(series, place) == end:
            stops[name] = place + 1
    return stops


def _row(series: Series, place: int) -> PartEnd:
    return {"time": str(series.times[place]), "values": digest(series.values[place])}
