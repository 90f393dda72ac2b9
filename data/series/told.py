"""What reading a table of series tells the account."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...base.account import note
from ..items import look_alike
from .cells import Cells
from .frequency import MICROSECONDS, Step


@dataclass
class Tally:
    """What was filled or taken as it is while series were read.

    steps     missing steps that were filled
    values    missing or infinite values that were filled
    repeated  rows whose timestamp occurs before
    """

    steps: int = 0
    values: int = 0
    repeated: int = 0


def note_assumptions(cells: Cells) -> None:
    """Note how dates were read."""
    for text in cells.assumed:
        note("assumed", text)
    if cells.times is None:
        note("assumed", "a table without dates begins on 2000-01-01")


def note_fills(tally: Tally, fill: str) -> None:
    """Note what was filled."""
    if tally.steps:
        note("values", f"missing steps filled ({fill})", count=tally.steps)
    if tally.values:
        note("values", f"missing values filled ({fill})", count=tally.values)
    if tally.repeated:
        note("items", "rows with a repeated timestamp, taken as they are", count=tally.repeated)


def note_table(
    cells: Cells, times: Sequence[np.ndarray], step: Step, tally: Tally, fill: str, stated: bool
) -> None:
    """Note what a table held. times: of each series; stated: whether the user named the step."""
    rows = sum(len(rows) for rows in cells.rows)
    note("read", "rows", count=rows)
    if cells.columns.ids:
        note("read", "series", count=len(times))
        alike = [name for similar in look_alike(cells.names) for name in similar]
        if alike:
            note("items", "series whose names look alike, taken as different ones", alike)
    note("read", "columns to forecast", count=len(cells.columns.targets))
    if cells.times is not None:
        first = min(series[0] for series in times)
        last = max(series[-1] for series in times)
        note("read", f"dates from {_moment(first)} to {_moment(last)} in steps of {step.text}")
        ended = [name for name, series in zip(cells.names, times) if series[-1] < last]
        if ended:
            what = f"series end before {_moment(last)}; their forecasts begin where they end"
            note("items", what, ended)
        if step.business and not stated:
            note("assumed", "rows are business days, Monday to Friday")
        zoned = any("offset" in text or "1970" in text for text in cells.assumed)
        if 0 < step.microseconds < MICROSECONDS["d"] and not zoned:
            note("assumed", "times without a time zone are taken as they are")
    note_assumptions(cells)
    note_fills(tally, fill)


def _moment(time: np.datetime64) -> str:
    text = str(time)[:19].replace("T", " ")
    return text.removesuffix(" 00:00:00")
