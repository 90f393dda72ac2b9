"""Pictures of topics and of their raters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ....base.account import note
from ...figures.fonts import boxed, fonts_with
from ...figures.style import BLUE, GREY, LIGHT, MEDIUM, ROW, SMALL, WIDE, styled_figure
from ...metrics.agreement import Score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_SHOWN = 24  # topics of a picture
COLUMNS = 4
BARS = 8  # words of a topic


def topics_figure(
    names: Sequence[str],
    words: Sequence[Sequence[str]],
    weights: Sequence[Sequence[float]],
    sizes: Sequence[int],
) -> Figure:
    """The first words of the largest topics, as bars of their weights.

    sizes: how many texts each is the largest topic of. Letters that no installed font has are boxes
    and noted.
    """
    families, missing = fonts_with(word for topic in words for word in topic[:BARS])
    if missing:
        note("left out", "letters that no installed font has (picture)", sorted(missing))
    order = sorted(range(len(sizes)), key=lambda place: -sizes[place])[:MOST_SHOWN]
    rows = -(-len(order) // COLUMNS)
    with styled_figure(WIDE, 0.55 * ROW * rows, grid=False) as figure:
        grid = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
        for axes, place in zip(grid, order, strict=False):
            shown = [boxed(word, missing) for word in words[place][:BARS]]
            axes.barh(range(len(shown)), weights[place][: len(shown)], color=BLUE)
            axes.set_yticks(range(len(shown)), shown, fontsize=SMALL, fontfamily=families)
            axes.invert_yaxis()
            axes.set_xticks([])
            axes.set_title(f"{names[place]}: {sizes[place]:,} texts", fontsize=SMALL)
        for axes in grid[len(order) :]:
            axes.set_axis_off()
    return figure


def scores_figure(
    models: Sequence[str], panels: Mapping[str, Sequence[Score]], chance: Mapping[str, float]
) -> Figure:
    """A panel for each score: a dot and its interval for each model.

    panels: scores of the models by title; chance: what guessing gives, where that is known.
    """
    height = max(0.6 * ROW, 0.9 + 0.28 * len(models))
    with styled_figure(max(MEDIUM, 2.4 * len(panels)), height) as figure:
        grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        places = np.arange(len(models))
        for axes, (title, scores) in zip(grid, panels.items(), strict=True):
            value, low, high = np.array(scores, float).reshape(-1, 3).T
            if title in chance:
                axes.axvline(chance[title], color=LIGHT, linestyle="--")
            axes.hlines(places, low, high, color=GREY)
            axes.plot(value, places, "o", color=BLUE)
            axes.set_title(title)
        grid[0].set_yticks(places, models, fontsize=SMALL)
        grid[0].invert_yaxis()
    return figure
