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
    """A trial: the values of its options, its score (None where it failed), its state (done, pruned
    or failed), and whether it is the best.
    """

    values: Mapping[str, Value]
    score: float | None
    state: str
    best: bool


def search_figure(
    points: Sequence[SearchPoint], names: Sequence[str], score: str, logs: Collection[str] = ()
) -> Figure:
    """First the scores of all trials with the best one so far, then a plot for each option.

    Pruned trials are hollow, the best one is blue. logs: options with a logarithmic axis.
    """
    rows = 1 + -(-len(names) // _COLUMNS)
    with styled_figure(MEDIUM, 2.2 * rows + 0.4) as figure:
        grid = figure.add_gridspec(rows, _COLUMNS)
        _history(figure.add_subplot(grid[0, :]), points, score)
        for place, name in enumerate(names):
            axes = figure.add_subplot(grid[1 + place // _COLUMNS, place % _COLUMNS])
            _slice(axes, points, name, log=name in logs)
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


def _slice(axes: Axes, points: Sequence[SearchPoint], name: str, *, log: bool) -> None:
    values = [point.values.get(name) for point in points]
    numbers = all(type(value) in (int, float) for value in values)
    if numbers:
        _dots(axes, points, values)
    else:
        labels = sorted({str(value) for value in values})
        _dots(axes, points, [labels.index(str(value)) for value in values])
        axes.set_xticks(range(len(labels)), [label.lower() for label in labels])
    if numbers and log:
        axes.set_xscale("log")
        plain_ticks(axes.xaxis)
    axes.set_xlabel(name)


def _dots(axes: Axes, points: Sequence[SearchPoint], places: Sequence[object]) -> None:
    for point, place in zip(points, places):
        if point.score is None:
            continue
        colour = BLUE if point.best else GREY
        face = "none" if point.state == "pruned" else colour
        axes.plot([place], [point.score], "o", color=colour, markerfacecolor=face, ms=5)  # pyright: ignore
