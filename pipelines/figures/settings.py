"""Plot of settings that were trained with several seeds, beside simpler models."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from .style import BLUE, GREY, LIGHT, ORANGE, WIDE, styled_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Interval = tuple[float, float]


class SettingPoint(NamedTuple):
    """A row of the plot: scores and gains of each seed, their means, and 95 % intervals of these.

    kind: best, setting or rung, which decides the colour.
    """

    name: str
    kind: str
    scores: Sequence[float]
    score: float
    interval: Interval | None
    gains: Sequence[float]
    gain: float
    gain_interval: Interval | None
    reference: bool


def settings_figure(metric: str, rows: Sequence[SettingPoint], reference: str, over: str) -> Figure:
    """Left: the score of each row with its interval, and of each seed; right: the gain over the
    reference.

    The best setting is blue, the others are orange, rungs grey; hollow points are seeds. over: what
    the intervals of the gain are over.
    """
    colours = {"best": BLUE, "setting": ORANGE, "rung": GREY}
    with styled_figure(WIDE, 1.1 + 0.45 * len(rows)) as figure:
        scores, gains = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1))
        for place, row in enumerate(rows):
            colour = colours[row.kind]
            _draw(scores, place, row.scores, row.score, row.interval, colour)
            if not row.reference:
                _draw(gains, place, row.gains, row.gain, row.gain_interval, colour)
        gains.axvline(0, color="black", lw=0.8)
        names = [textwrap.fill(row.name, 38) for row in rows]
        scores.set_yticks(range(len(rows)), names)
        scores.set_ylim(len(rows) - 0.5, -0.5)
        scores.set_xlabel(f"{metric}, test part")
        short = textwrap.shorten(reference, 40)
        gains.set_xlabel(f"gain over {short}, test part\n(bars: 95 % over {over})")
    return figure


def _draw(
    axes: Axes,
    place: int,
    seeds: Sequence[float],
    mean: float,
    interval: Interval | None,
    colour: str,
) -> None:
    if interval is not None:
        axes.plot(interval, [place, place], color=colour, lw=1.5)
    if len(seeds) > 1:
        axes.plot(seeds, [place] * len(seeds), "o", mfc="none", mec=LIGHT, ms=4)
    axes.plot(mean, place, "o", color=colour)
