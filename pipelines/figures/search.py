"""Plot of a search for options: its history, and the score by the value of each option."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .style import BLUE, GREY, MEDIUM, plain_ticks, styled_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Value = bool | int | float | str | None
_COLUMNS = 3


class SearchPoint(NamedTuple):
    """A trial: the values of its options (words where there are choices), its score (None where it
    failed), its state (done, pruned or failed), and whether it is the best.
    """

    values: Mapping[str, Value]
    score: float | None
    state: str
    best: bool


def search_figure(
    points: Sequence[SearchPoint],
    score: str,
    choices: Mapping[str, Sequence[str] | None],
    logs: Collection[str] = (),
) -> Figure:
    """First the scores of all trials with the best one so far, then a plot for each option.

    Pruned trials are hollow, the best one is blue. choices: for each option the words of its
    values, which stand side by side; None for a range of numbers. logs: options with a logarithmic
    axis.
    """
    names = list(choices)
    rows = 1 + -(-len(names) // _COLUMNS)
    with styled_figure(MEDIUM, 2.2 * rows + 0.4) as figure:
        grid = figure.add_gridspec(rows, _COLUMNS)
        _history(figure.add_subplot(grid[0, :]), points, score)
        for place, name in enumerate(names):
            axes = figure.add_subplot(grid[1 + place // _COLUMNS, place % _COLUMNS])
            _slice(axes, points, name, choices[name])
            if name in logs:
                axes.set_xscale("log")
                plain_ticks(axes.xaxis)
            if place % _COLUMNS == 0:
                axes.set_ylabel(score)
    return figure


def _history(axes: Axes, points: Sequence[SearchPoint], score: str) -> None:
    done = [point.score if point.state == "done" else None for point in points]
    scores = np.array([np.nan if value is None else value for value in done])
    _dots(axes, points, list(range(1, len(points) + 1)))
    if np.isfinite(scores).any():
        best = np.fmin.accumulate(scores)
        axes.step(np.arange(1, len(points) + 1), best, where="post", color=BLUE, lw=1)
    axes.set_xlabel("trial (line: the best one so far)")
    axes.set_ylabel(score)


def _slice(
    axes: Axes, points: Sequence[SearchPoint], name: str, words: Sequence[str] | None
) -> None:
    """The score by the value of an option."""
    if words is None:
        _dots(axes, points, [point.values.get(name) for point in points])
    else:
        places = [words.index(str(point.values[name])) for point in points]
        _dots(axes, points, places)
        axes.set_xticks(range(len(words)), words, fontsize=8)
        axes.set_xlim(-0.5, len(words) - 0.5)
    axes.set_xlabel(name)


def _dots(axes: Axes, points: Sequence[SearchPoint], places: Sequence[object]) -> None:
    for point, place in zip(points, places):
        if point.score is None:
            continue
        colour = BLUE if point.best else GREY
        face = "none" if point.state == "pruned" else colour
        axes.plot([place], [point.score], "o", color=colour, markerfacecolor=face, ms=5)  # pyright: ignore
