"""Figures of reasoning: scenes with what was asked for and where the model looks, and accuracies.

Shapes: N trials, A answers, O objects of a scene.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...data.trials.trial import COLOURS, LETTERS, SIDE
from ...data.trials.words import answer_words, question_words
from ..engine.pipeline import ReportFigure
from ..figures.style import BLUE, GREY, LIGHT, MEDIUM, ROW, SMALL, WIDE, styled_figure
from .data import TrialPart
from .scoring import ReasoningScores, Share

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = 4  # scenes of a report
PAINT = {"white": "#ffffff", "yellow": "#e0b000", "pink": "#e377c2", "cyan": "#17becf"}


def draw_scene(
    axes: Axes, part: TrialPart, row: int, attention: np.ndarray | None, title: str
) -> None:
    """A scene: letters in their colours, shaded by attention (O,), and a ring around what was asked
    for.
    """
    trial, outcome = part.trials[row].trial, part.outcomes[row]
    shades = np.zeros((SIDE, SIDE))
    if attention is not None:
        for thing, weight in zip(trial.scene, attention, strict=True):
            shades[thing.y, thing.x] = weight
    axes.imshow(shades, cmap="Blues", vmin=0, vmax=1, extent=(-0.5, SIDE - 0.5, SIDE - 0.5, -0.5))
    axes.set_facecolor(LIGHT)
    for place, thing in enumerate(trial.scene):
        name = COLOURS[thing.colour - 1]
        axes.text(
            thing.x, thing.y, LETTERS[thing.letter - 1], color=PAINT.get(name, name),
            ha="center", va="center", fontsize=9, weight="bold",
            bbox={"boxstyle": "square,pad=0.15", "facecolor": "#5a6570", "linewidth": 0}
            if name == "white" else None,
        )  # fmt: skip
        if place in outcome.asked:
            axes.plot(thing.x, thing.y, "o", ms=15, mfc="none", mec="black", mew=1.4)
    axes.set_xticks(range(SIDE))
    axes.set_yticks(range(SIDE))
    axes.tick_params(labelsize=SMALL, length=0)
    axes.grid(visible=False)
    axes.set_title(title, fontsize=SMALL)


def scene_title(part: TrialPart, row: int, probability: np.ndarray) -> str:
    """The question of a trial, the answer of the model, and that of the rule; probability: (A,)."""
    entry = part.trials[row]
    question = textwrap.shorten(question_words(entry.trial.rule), 120, placeholder=" …")
    told, sure = answer_words(int(probability.argmax())), float(probability.max())
    answer = f"{told} ({sure:.0%}), right: {answer_words(entry.trial.answer)}"
    return "\n".join([*textwrap.wrap(question, 46), answer])


def scenes_figure(
    part: TrialPart,
    probability: np.ndarray,
    attention: Sequence[np.ndarray] | None,
    looks: str | None,
) -> ReportFigure:
    """Some trials, of all levels, with their answers.

    probability: (N, A); attention: on the objects of each trial, of `looks`, or None.
    """
    rows = np.unique(np.linspace(0, len(part) - 1, min(SHOWN, len(part))).round().astype(int))
    with styled_figure(WIDE, 1.6 * ROW * ((len(rows) + 1) // 2), grid=False) as figure:
        grid = figure.subplots((len(rows) + 1) // 2, min(2, len(rows)), squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, row in zip(grid.flat, rows.tolist()):
            axes.set_axis_on()
            shade = None if attention is None else attention[row]
            draw_scene(axes, part, row, shade, scene_title(part, row, probability[row]))
    shaded = f"; shaded: attention of {looks}" if looks else ""
    caption = f"Scenes with their answers; ringed: what the rule asks for{shaded}"
    return ReportFigure("scenes", caption, figure, is_answer=True)


def levels_figure(scores: ReasoningScores) -> ReportFigure:
    """Accuracy by level and by operator, with intervals and with what needs no scene."""
    height = 0.8 + 0.26 * (len(scores.levels) + len(scores.operators))
    with styled_figure(MEDIUM, height) as figure:
        axes = figure.subplots()
        _draw_shares(axes, {**scores.levels, **scores.operators})
    caption = (
        "Share that is right, by level and by operator, with 95 % intervals by trial; grey: the "
        "best constant for each form of question"
    )
    return ReportFigure("accuracy", caption, figure)


def _draw_shares(axes: Axes, shares: dict[str, Share]) -> None:
    places = np.arange(len(shares))[::-1]
    values = np.array([share.accuracy for share in shares.values()])
    ends = np.array([share.interval for share in shares.values()])
    axes.barh(places, [share.blind for share in shares.values()], color=GREY, alpha=0.35)
    spans = np.abs(np.stack([values - ends[:, 0], ends[:, 1] - values]))
    axes.errorbar(values, places, xerr=spans, fmt="o", color=BLUE, ms=4, capsize=2)
    axes.set_yticks(places, list(shares), fontsize=SMALL)
    axes.set(xlabel="share that is right", xlim=(0, 1.02))
