"""Plot of the models of a ladder, one above the other, with their intervals."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from .style import BLUE, GREY, MEDIUM, styled_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Interval = tuple[float, float]


class LadderRow(NamedTuple):
    """A rung: what it is, its score and 95 % interval, and the paired gain of the chosen one over
    it."""

    rung: str
    words: str
    score: float
    interval: Interval | None
    gain: float
    gain_interval: Interval | None
    chosen: bool


def ladder_figure(metric: str, rows: Sequence[LadderRow]) -> Figure:
    """Left: the score of each rung; right: by how much the chosen one is better, with paired
    intervals. The chosen rung is blue.
    """
    places = range(len(rows))
    with styled_figure(MEDIUM, 0.9 + 0.5 * len(rows)) as figure:
        scores, gains = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        for place, row in zip(places, rows):
            colour = BLUE if row.chosen else GREY
            if row.interval is not None:
                scores.plot(row.interval, [place, place], color=colour, lw=1.5)
            scores.plot(row.score, place, "o", color=colour)
            if not row.chosen:
                if row.gain_interval is not None:
                    gains.plot(row.gain_interval, [place, place], color=colour, lw=1.5)
                gains.plot(row.gain, place, "o", color=colour)
        gains.axvline(0, color="black", lw=0.8)
        names = [f"{row.words} (chosen)" if row.chosen else row.words for row in rows]
        scores.set_yticks(list(places), [textwrap.fill(name, 32) for name in names])
        scores.invert_yaxis()
        scores.set_xlabel(metric)
        gains.set_xlabel("gain of the chosen one")
    return figure
