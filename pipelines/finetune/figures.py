"""Figures of fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..engine.pipeline import ReportFigure
from ..figures.style import BLUE, GREY, MEDIUM, NARROW, ORANGE, styled_figure
from .scoring import Scores


def change_figure(scores: Scores) -> ReportFigure:
    """What was gained on the task and lost elsewhere, with intervals."""
    changes = {"the task": scores.task, **scores.general}
    with styled_figure(MEDIUM, 1.2 + 0.4 * len(changes)) as figure:
        axes = figure.subplots()
        axes.axvline(0, color=GREY, linewidth=1)
        for place, change in enumerate(changes.values()):
            colour = BLUE if place == 0 else ORANGE
            if change.interval is not None:
                axes.plot(change.interval, [-place, -place], color=colour)
            axes.plot([change.difference], [-place], "o", color=colour)
        axes.set_yticks([-place for place in range(len(changes))], list(changes))
        axes.set_ylim(0.6 - len(changes), 0.6)
        axes.set_xlabel("change of the loss, nats a token (left: better)")
    caption = (
        "How the loss changed from the model as it came to what predicts now, with 95 % intervals: "
        "left of 0 it got better. The task is what was tuned for; the others are general texts."
    )
    return ReportFigure("change", caption, figure, is_answer=True)


def row_figure(scores: Scores) -> ReportFigure:
    """The loss of each row before and after."""
    before, after = scores.losses
    with styled_figure(NARROW, NARROW) as figure:
        axes = figure.subplots()
        top = float(max(before.max(), after.max(), 1e-3)) * 1.05
        axes.plot([0, top], [0, top], ":", color=GREY)
        axes.plot(before, after, ".", color=BLUE, markersize=5, alpha=0.6)
        axes.set(xlabel="as it came, nats a token", ylabel="now", xlim=(0, top), ylim=(0, top))
    caption = (
        "Loss of each answer: as the model came (across) and now (up). Below the dotted line the "
        "answer is more probable than before."
    )
    return ReportFigure("rows", caption, figure)


def usage_figure(usage: Mapping[int, np.ndarray], what: str) -> ReportFigure:
    """How often each head or expert of each converted layer is on. usage: by layer, in [0, 1]."""
    layers = sorted(usage)
    table = np.stack([usage[layer] for layer in layers])
    with styled_figure(MEDIUM, 1.5 + 0.18 * len(layers), grid=False) as figure:
        axes = figure.subplots()
        image = axes.imshow(table, vmin=0, vmax=1, cmap="Blues", aspect="auto")
        axes.set_yticks(range(len(layers)), [str(layer) for layer in layers])
        axes.set(xlabel=what, ylabel="layer")
        figure.colorbar(image, ax=axes, label="share of tokens that it is on for")
    caption = (
        f"Share of the tokens of this part for which each {what} of a converted layer is on; "
        f"on average {table.mean():.0%}."
    )
    return ReportFigure("usage", caption, figure)
