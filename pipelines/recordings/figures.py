"""Figures of recordings: confusion, how much each token weighs, deletion, cross-validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from ..engine.experiments.table import draw_values
from ..engine.pipeline import ReportFigure
from ..figures.classifier import draw_confusion, draw_reliability
from ..figures.style import BLUE, GREY, MEDIUM, ORANGE, ROW, WIDE, styled_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_CLASSES = 30  # of a picture of confusions


def calibration_figure(
    labels: np.ndarray, probability: np.ndarray, classes: Sequence[str]
) -> ReportFigure:
    """Confusion of the classes, and whether probabilities mean what they say.

    labels: int (N,); probability: (N, C).
    """
    shown = len(classes) <= MOST_CLASSES
    side = max(ROW, 1.2 + 0.28 * len(classes)) if shown else ROW
    with styled_figure(WIDE if shown else MEDIUM, side) as figure:
        axes = figure.subplots(1, 2 if shown else 1, squeeze=False)[0]
        draw_reliability(axes[0], labels, {"this run": (probability, BLUE)})
        if shown:
            draw_confusion(axes[1], labels, probability, classes)
    caption = "Reliability" + (" and counts of true by predicted classes" if shown else "")
    return ReportFigure("calibration", f"{caption}, on this part", figure)


def importance_figure(
    factors: np.ndarray, names: Sequence[str], by_class: Mapping[str, np.ndarray]
) -> Figure:
    """The importance factor of each token, from 0 (least) to 1 (most).

    factors: (N,); names: of the tokens; by_class: the factors of the recordings of each class.
    """
    with styled_figure(MEDIUM, ROW) as figure:
        axes = figure.subplots()
        places = np.arange(len(factors))
        for name, values in list(by_class.items())[:8]:
            axes.plot(places, values, "-", lw=1, alpha=0.6, label=name)
        axes.plot(places, factors, "o-", color="black", label="all")
        axes.set(ylabel="importance factor", ylim=(-0.02, 1.02))
        step = max(1, len(names) // 12)
        axes.set_xticks(places[::step], names[::step])
        axes.legend()
    return figure


def deletion_figure(shares: Sequence[float], curves: Mapping[str, np.ndarray]) -> Figure:
    """Mean log-probability of the true class against the share of tokens that are deleted.

    curves: (K,) of each order in which tokens are deleted.
    """
    colours = {"highest first": BLUE, "random": GREY, "lowest first": ORANGE}
    with styled_figure(MEDIUM, ROW) as figure:
        axes = figure.subplots()
        for name, values in curves.items():
            axes.plot(shares, values, "o-", color=colours[name], label=name)
        axes.set(xlabel="share of the tokens that is deleted", ylabel="log-probability")
        axes.legend()
    return figure


def crossval_figure(summary: pl.DataFrame, simple: Sequence[str]) -> Figure:
    """Accuracy and balanced accuracy of each model with the deviation over speakers."""
    models = summary["model"].to_list()
    colours = [GREY if model in simple else BLUE for model in models]
    names = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy"}
    with styled_figure(WIDE, 0.45 * len(summary) + 1.2) as figure:
        for axes, (name, words) in zip(figure.subplots(1, 2, sharey=True), names.items()):
            draw_values(axes, models, summary[name], summary[f"{name}_sd"], colours)
            axes.set_xlabel(f"{words}, with its deviation over speakers")
    return figure
