"""Figures of the report of texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

from ..engine.pipeline import ReportFigure
from ..figures.classifier import draw_confusion
from ..figures.style import BLUE, GREY, MEDIUM, NARROW, ROW, SMALL, styled_figure
from ..metrics.labels.decisions import LabelReliability

NAMED = 8  # labels that a figure names
WIDE = 20  # times the least count that the largest must be for logarithms to be read more easily


def reliability_figure(reliability: LabelReliability) -> ReportFigure:
    """How often a label is right against how probable it was said to be, of all labels."""
    filled = reliability.overall_count > 0
    confidence, share = reliability.overall_confidence[filled], reliability.overall_share[filled]
    with styled_figure(NARROW, ROW) as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], ":", color=GREY)
        axes.plot(confidence, share, "o-", color=BLUE)
        axes.set(xlabel="probability of a label", ylabel="share of texts that have it")
    caption = (
        "Of all pairs of a text and a label with about this probability (across), the share that "
        "is true (up). On the dotted line probabilities mean what they say; above it they are "
        "too low, below it too high."
    )
    return ReportFigure("reliability", caption, figure)


def label_figure(names: Sequence[str], scores: np.ndarray, counts: Sequence[int]) -> ReportFigure:
    """F1 of each label against how often the training part has it."""
    heights = np.nan_to_num(scores)
    with styled_figure(MEDIUM, ROW) as figure:
        axes = figure.subplots()
        axes.plot(counts, heights, "o", color=BLUE, alpha=0.6)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        middle = (min(counts) + max(counts)) / 2
        if max(counts) > WIDE * max(1, min(counts)):
            middle = (max(1, min(counts)) * max(counts)) ** 0.5
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
            axes.xaxis.set_major_formatter(ScalarFormatter())
            axes.xaxis.set_minor_formatter(NullFormatter())
        for place in np.argsort(-np.array(counts))[:NAMED].tolist():
            is_right = counts[place] > middle  # its name goes to the left, into the picture
            axes.annotate(
                str(names[place]),
                (float(counts[place]), float(heights[place])),
                xytext=(-5 if is_right else 5, -2),
                textcoords="offset points",
                ha="right" if is_right else "left",
                fontsize=SMALL,
            )
        axes.set(xlabel="texts of the training part with the label", ylabel="F1")
        axes.set_ylim(-0.02, 1.02)
    caption = (
        "F1 of each label (up) against how many texts it was learned from (across). The most "
        "frequent labels are named; the table of labels has all."
    )
    return ReportFigure("labels", caption, figure)


def confusion_figure(
    labels: np.ndarray, probability: np.ndarray, classes: Sequence[str]
) -> ReportFigure:
    """Counts of true by predicted classes."""
    side = 2.5 + 0.35 * len(classes)
    with styled_figure(side + 0.8, side, grid=False) as figure:
        draw_confusion(figure.subplots(), labels, probability, classes)
    return ReportFigure("confusion", "Counts of texts by true and by predicted class.", figure)


def number_figure(truth: np.ndarray, predicted: np.ndarray, name: str) -> ReportFigure:
    """Predictions against the truth."""
    ends = [min(truth.min(), predicted.min()), max(truth.max(), predicted.max())]
    with styled_figure(NARROW, ROW) as figure:
        axes = figure.subplots()
        axes.plot(truth, predicted, ".", color=BLUE, alpha=0.4)
        axes.plot(ends, ends, ":", color=GREY)
        axes.set(xlabel=f"{name}, true", ylabel=f"{name}, predicted")
    caption = "Each dot is a text of this part; on the dotted line the prediction is right."
    return ReportFigure("predictions", caption, figure)
